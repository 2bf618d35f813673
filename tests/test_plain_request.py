"""A request of plain scalars, read without a table, is what the table reader makes of it."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newcomer.data.canonical import FEW, canonical, canonical_name, plain_name
from newcomer.data.click_log import ClickLog
from newcomer.data.io.frames import as_frame, as_series
from newcomer.data.io.log_reader import log_from_frame
from newcomer.data.io.plain_request import plain_request
from newcomer.data.schema import Field, Schema
from newcomer.errors import DataError

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
SCHEMAS = {
    "plain": SCHEMA,
    "users may be missing": dataclasses.replace(SCHEMA, user_missing="mark"),
    "missing values": dataclasses.replace(SCHEMA, missing_values=("none", "-1")),
    "values at serving": dataclasses.replace(
        SCHEMA,
        fields=(
            *(field for field in FIELDS if field.name not in ("page", "rank")),
            Field("page", "context", at_serving="home"),
            Field("rank", "context", "numeric", missing="mark", at_serving=1),
        ),
    ),
    "lists": dataclasses.replace(SCHEMA, fields=(*FIELDS, Field("tags", "context", "multi", missing="mark"))),
}

texts = st.text(max_size=6) | st.sampled_from(
    [
        "",
        " ",
        "a ",
        "3.0",
        "03",
        "-0",
        "TRUE",
        "1e+20",
        "1E+5",
        "none",
        "-1",
        "2020-01-01T00:00:00",
        "é",
        "é",
        "a\n",
        "\x1c",
        "0.5",
    ]
)
numbers = (
    st.integers(-(2**70), 2**70)
    | st.integers(-9, 9)
    | st.floats()
    | st.sampled_from([0.0, -0.0, 1.5, 0.1, 1e15, 1e16, 1e-7, 2.0**53, 2**53, 2**53 - 1, 2**63 - 1, 2**63])
)
scalars = st.none() | st.booleans() | texts | numbers
NAMES = [field.name for field in FIELDS if field.role != "item"]
rows = st.fixed_dictionaries({}, optional=dict.fromkeys(["viewer", *NAMES, "Page", "kind"], scalars))
usual = st.fixed_dictionaries(
    {"viewer": st.sampled_from([3, "ann"]), "age": scalars, "page": scalars, "price": numbers},
    optional=dict.fromkeys(["job", "height", "device", "rank"], scalars),
)


def parts(log: ClickLog) -> Any:
    """Everything in a log, with types."""
    columns = {**log.users.columns, **log.context}
    arrays: list[np.ndarray[Any, Any]] = [
        log.item,
        log.user,
        log.label,
        log.time,
        log.row,
        *(column.values for column in columns.values()),
    ]
    names = [
        log.items.ids,
        dict(log.items.columns),
        log.users.ids,
        {name: column.names for name, column in columns.items()},
    ]
    more = [log.schema, log.fraction, log.labels, log.has_dates]
    return [(array.dtype, array.shape, array.tolist()) for array in arrays], names, more


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
@settings(max_examples=500)
@given(row=usual | rows)
@pytest.mark.filterwarnings("ignore::newcomer.errors.DataWarning")
def test_a_plain_request_is_read_as_a_table_of_one_row(schema: Schema, row: dict[str, Any]) -> None:
    found = plain_request(row, schema)
    if found is None:
        return
    right = log_from_frame(as_frame([{**row, "film": "?"}]), schema, items=False, labels=False)
    np.testing.assert_equal(parts(found), parts(right))


def test_usual_requests_are_plain() -> None:
    row = {"viewer": 3, "age": 30, "job": "cook", "height": 1.8, "page": "home", "price": 2}
    assert plain_request(row, SCHEMA) is not None
    assert plain_request(row | {"device": None, "rank": None, "page": True}, SCHEMA) is not None
    assert plain_request({**row, "viewer": None}, SCHEMAS["users may be missing"]) is not None
    for other in (
        {"page": " home"},
        {"price": "2"},
        {"age": None},
        {"price": float("nan")},
        {"page": ["a"]},
        {"colour": 1},
    ):
        assert plain_request({**row, **other}, SCHEMA) is None


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
