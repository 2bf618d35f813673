"""A small table of plain values is read as the general reader reads it, or left to that."""

import contextlib
import dataclasses
import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from newcomer.data.canonical import FEW, canonical, canonical_name, plain_name
from newcomer.data.click_log import ClickLog
from newcomer.data.io.frames import as_frame, as_series
from newcomer.data.io.log_reader import log_from_frame
from newcomer.data.io.plain_tables import PlainReader
from newcomer.data.schema import Field, Schema
from newcomer.data.tokenization import ascii_words, tokenize
from newcomer.errors import DataError
from newcomer.items.serving.event_ids import id_column, read_ids

FIELDS = (
    Field("kind", "item"),
    Field("age", "user"),
    Field("job", "user", missing="mark"),
    Field("height", "user", "numeric", missing="mark"),
    Field("page", "context"),
    Field("device", "context", missing="mark"),
    Field("price", "context", "numeric"),
    Field("rank", "context", "numeric", missing="mark"),
)
SCHEMA = Schema("film", "viewer", "liked", "seen", FIELDS)
SEVERAL = (
    Field("tags", "context", "multi", missing="mark"),
    Field("tastes", "user", "multi", missing="mark", max_values=2),
    Field("query", "context", "text", missing="mark"),
    Field("look", "context", "vector", missing="mark"),
    Field("habit", "user", "vector", missing="mark"),
)
SCHEMAS = {
    "plain": SCHEMA,
    "users may be missing": dataclasses.replace(SCHEMA, user_missing="mark"),
    "missing values": dataclasses.replace(SCHEMA, missing_values=("none", "-1", "a", "")),
    "values at serving": dataclasses.replace(
        SCHEMA,
        fields=(
            *(field for field in FIELDS if field.name not in ("page", "rank")),
            Field("page", "context", at_serving="home"),
            Field("rank", "context", "numeric", missing="mark", at_serving=1),
        ),
    ),
    "several values": dataclasses.replace(SCHEMA, fields=SEVERAL, missing_values=()),
    "several values, some missing": dataclasses.replace(SCHEMA, fields=SEVERAL, missing_values=("a", "b c", "-1")),
    "several values, none missing": dataclasses.replace(
        SCHEMA, fields=tuple(dataclasses.replace(field, missing="error") for field in SEVERAL)
    ),
    "grades": dataclasses.replace(SCHEMA, clicked_from=4.0),
    "shares": dataclasses.replace(SCHEMA, clicked_from=0.5),
}

texts = st.text(max_size=6) | st.sampled_from(
    [
        *("", " ", "a ", "a", "b", "a|b", "b c", "a||b|a", "c++ it's", "3.0", "03", "-0", "TRUE", "1e+20", "1E+5"),
        *("none", "-1", "2020-01-01T00:00:00", "a:b", "1:2", "é", "e\u0301", "a\n", "\x1c", "\u200ba", "0.5", "\ud800"),
    ]
)
numbers = (
    st.integers(-(2**70), 2**70)
    | st.integers(-9, 9)
    | st.floats()
    | st.sampled_from([0.0, -0.0, 1.5, 0.1, 1e15, 1e16, 1e-7, 2.0**53, 2**53, 2**53 - 1, 2**63 - 1, 2**63])
)
scalars = st.none() | st.booleans() | texts | numbers
small = st.sampled_from(["a", "b", "Ann"]) | st.integers(0, 3)
lists = st.lists(scalars | small, max_size=4)
vectors = st.lists(st.floats(-3, 3) | st.integers(-(2**30), 2**30), min_size=2, max_size=2)
times = (
    st.integers(-(2**64), 2**64)
    | st.floats()
    | st.floats(0, 2e9)
    | st.datetimes().map(lambda value: value.isoformat())
    | st.datetimes(timezones=st.timezones()).map(lambda value: value.isoformat(" "))
    | st.sampled_from([None, "2024-02-30", "2024-02-30T10:00:00", "2024-01-01 10:00:00.123456789Z", "17", "2024-01-01"])
)
labels = st.sampled_from([0, 1, 0.0, 1.0, True, False, 2, 4.0, 0.5, "1", None, 1e9, float("nan")]) | scalars
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "film": small | scalars,
    "viewer": small | scalars,
    **dict.fromkeys(["age", "job", "page", "device"], small | scalars),
    **dict.fromkeys(["height", "price", "rank"], numbers | scalars),
    **dict.fromkeys(["tags", "tastes"], lists | texts | st.none()),
    "query": texts | st.none(),
    **dict.fromkeys(["look", "habit"], vectors | lists | st.none()),
    "liked": labels,
    "seen": times,
    "event_id": small | scalars,
    **dict.fromkeys(["Page", "kind", "devise"], small),
}
USUAL: dict[str, st.SearchStrategy[Any]] = {
    "film": small,
    "viewer": small,
    **dict.fromkeys(["age", "job", "page", "device"], small),
    **dict.fromkeys(["height", "price", "rank"], st.floats(-9, 9) | st.integers(0, 9)),
    "tags": st.lists(small, max_size=3),
    "tastes": st.sampled_from(["a|b", "b", "a|c|d", "e"]),
    "query": st.sampled_from(["the sea", "C++ it's", "", "a a b"]),
    **dict.fromkeys(["look", "habit"], st.lists(st.floats(-3, 3) | st.integers(-9, 9), min_size=2, max_size=2)),
    "liked": st.integers(0, 1),
    "seen": st.integers(0, 10**10),
    "event_id": st.uuids().map(str),
}


@st.composite
def tables(draw: st.DrawFn, schema: Schema) -> tuple[list[dict[str, Any]], bool]:
    """Rows, and whether all columns are usual ones; otherwise some are missing, have missing values, or values of any kind."""
    count, is_usual = draw(st.integers(1, 4)), draw(st.booleans())
    names = [node.name for node in schema.nodes if node.name != "kind"] + ["liked", "seen", "event_id"]
    if not is_usual:
        names += draw(st.lists(st.sampled_from(["Page", "kind", "devise"]), unique=True, max_size=1))
    columns = dict[str, list[Any]]()
    for name in names:
        how = 9 if is_usual else draw(st.integers(0, 9))
        if how == 0:
            continue
        values = USUAL.get(name, VALUES[name]) if how > 2 else VALUES[name]
        alike = draw(st.booleans()) and name != "event_id"
        columns[name] = [draw(values)] * count if alike else [draw(values) for _ in range(count)]
        if how == 3:
            columns[name][0] = None
    return [{name: column[n] for name, column in columns.items()} for n in range(count)], is_usual


def parts(log: ClickLog) -> Any:
    """Everything in a log, with types."""
    columns = {**log.users.columns, **log.context}
    arrays: list[np.ndarray[Any, Any]] = [
        *(log.item, log.user, log.label, log.time, log.row),
        *(column.values for column in columns.values()),
        *([] if log.fraction is None else [log.fraction]),
    ]
    names = [
        log.items.ids,
        dict(log.items.columns),
        log.users.ids,
        {name: column.names for name, column in columns.items()},
    ]
    more = [log.schema, log.fraction is None, log.labels, log.labels and log.labels.quantiles, log.has_dates]
    return [(array.dtype, array.shape, array.tolist()) for array in arrays], names, more


def columns_of(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
@settings(max_examples=60)
@given(data=st.data())
def test_what_is_read_is_what_the_general_reader_makes_of_it(schema: Schema, data: st.DataObject) -> None:
    compare_readers(schema, data)


@pytest.mark.slow
@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
@settings(max_examples=300)
@given(data=st.data())
def test_so_it_is_for_many_more_tables(schema: Schema, data: st.DataObject) -> None:
    compare_readers(schema, data)


def compare_readers(schema: Schema, data: st.DataObject) -> None:
    (rows, is_usual), reader = data.draw(tables(schema)), PlainReader(schema)
    shapes: list[Any] = [rows, columns_of(rows)]
    with contextlib.suppress(Exception):  # what polars cannot hold
        shapes.append(as_frame(rows))
    for table, labels in itertools.product(shapes, (False, True)):
        if labels:
            found = reader.events(table, lambda names: id_column(schema, names, None, "table"))
            log, ids = (None, None) if found is None else (found.log, found.ids)
        else:
            log, ids = reader.requests(table), None
        if log is None:
            assert not is_usual or schema.missing_values or isinstance(table, pl.DataFrame)
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a warning is the general reader's
            frame = as_frame(rows)
            right = log_from_frame(frame, schema, items=False, labels=labels)
        np.testing.assert_equal(parts(log), parts(right))
        if labels:
            assert ids == (read_ids(frame, "event_id", "table") if "event_id" in frame.columns else None)


def test_usual_requests_are_plain() -> None:
    row = {"viewer": 3, "film": "f", "age": 30, "job": "cook", "height": 1.8, "page": "home", "price": 2}
    reader = PlainReader(SCHEMA)

    def is_read(**other: Any) -> bool:
        return reader.requests([{**row, **other}]) is not None

    assert is_read()
    assert is_read(device=None, rank=None, page=True)
    assert is_read(page="hôtel", colour=1)
    assert reader.requests(pl.DataFrame([row, row])) is not None
    for other in (
        {"page": " home"},
        {"price": "2"},
        {"age": None},
        {"price": float("nan")},
        {"page": ["a"]},
        {"kind": "a"},
        {"devise": "a"},
    ):
        assert not is_read(**other)
    event = {**row, "liked": 1, "seen": "2024-01-31T08:30:00.5+00:00", "event_id": "e:1"}
    found = reader.events([event], lambda names: "event_id")
    assert found is not None
    assert found.ids == ["e:1"]
    assert found.log.time.tolist() == [1706689800500]


@settings(max_examples=500)
@given(st.lists(scalars, min_size=1, max_size=4))
def test_plain_names_are_canonical(values: list[Any]) -> None:
    found = [plain_name(value) for value in values]
    if None in found:
        return
    assert found == [canonical_name(value) for value in values]
    try:
        column = canonical(as_series("id", values, "t"), "t").to_list()
    except DataError:
        pytest.fail("a column of plain names is readable")
    assert found == column
    many = as_series("id", [*values, *["x "] * FEW], "t")  # in long columns the rules are applied to all texts
    assert canonical(many, "t").to_list()[: len(values)] == found


@settings(max_examples=300)
@given(st.text(st.characters(max_codepoint=127)))
@example("C++ it's c# A'")
def test_words_of_ascii_are_words(text: str) -> None:
    assert ascii_words(text) == tokenize(pl.Series([text])).to_list()[0]
