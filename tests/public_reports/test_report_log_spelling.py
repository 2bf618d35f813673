"""A value is the same value however it is spelled: by another type, program, or line of the same file."""

from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newcomer.data.canonical import canonical, canonical_name, canonical_or_same, may_change
from newcomer.data.click_log import ClickLog, Column
from newcomer.data.datasets.movielens import movielens_1m, movielens_latest
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.frames import as_frame, as_series
from newcomer.data.io.json_lines import frame_from_jsonl
from newcomer.data.io.log_reader import items_from_frame, log_from_frame, log_from_rows, read_log
from newcomer.data.io.shuffle import latest_events
from newcomer.data.schema import Field, Schema
from newcomer.data.vocabulary import UNSEEN, Vocabulary
from newcomer.errors import DataError

SCHEMA = Schema(
    "item",
    "user",
    "click",
    "time",
    (Field("tags", "item", "multi", separator=","), Field("page", "context", missing="mark")),
)


def log_of(**columns: Any) -> ClickLog:
    rows: dict[str, Any] = {
        "item": ["1"],
        "user": ["1"],
        "click": [1],
        "time": [1],
        "tags": ["a"],
        "page": ["home"],
    } | columns
    count = max(map(len, rows.values()))
    return log_from_rows(
        SCHEMA, **{name: values * count if len(values) == 1 else values for name, values in rows.items()}
    )


@pytest.mark.parametrize(
    "ids",
    [
        [1, 2, 3],
        [1.0, 2.0, 3.0],
        ["1", "2", "3"],
        ["1.0", " 2", "3.00"],
        [Decimal("1"), Decimal("2.0"), Decimal("3.00")],
        np.array([1, 2, 3], dtype=np.uint8),
        pl.Series([1, 2, 3], dtype=pl.Float32),
        pl.Series(["1", "2", "3"], dtype=pl.Categorical),
        pl.Series([b"1", b"2", b"3"]),
        [1, "2", 3.0],
    ],
)
def test_ids_are_the_same_by_every_type(ids: Any) -> None:
    """tfx #819: trained on whole numbers, served floats (a column of pandas with a gap): every user was unseen."""
    frame = pl.DataFrame([as_series("user", ids, "t"), pl.Series("item", [7, 7, 8])])
    frame = frame.with_columns(click=1, time=1, tags=pl.lit("a"), page=pl.lit("x"))
    assert log_from_frame(frame, SCHEMA).users.ids == ("1", "2", "3")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_with_a_gap_is_read_as_the_column_without(tmp_path: Path, kind: str) -> None:
    """tfx #819: one missing value makes floats of a column of whole numbers, in files too."""
    frame = pl.DataFrame(
        {"item": [1.0, 2.0, 1.0], "user": [5, 6, 7], "click": [1, 0, 1], "time": [1, 2, 3], "tags": ["a"] * 3}
    )
    frame = frame.with_columns(page=pl.Series([4.0, None, 5.0]))
    path = tmp_path / f"log.{kind}"
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    for log in (read_log(path, SCHEMA), (files := ChunkedLog(path, SCHEMA, rows=2)).read(*files.chunks)):
        assert log.items.ids == ("1", "2")
        assert log.context["page"].texts() == ["4", "", "5"]
    assert len(latest_events(files, ["1.0", "9"], 5)) == 2  # whoever asks for an item need not know how it is spelled


@pytest.mark.parametrize("true", [True, "True", "TRUE", "true", np.True_])
def test_true_is_true_in_every_spelling(true: Any) -> None:
    """Users train on CSV, where pandas writes True, and ask in JSON, where it is true."""
    assert log_of(page=[true]).context["page"].names == ("true",)


def test_white_space_around_a_value_is_none_of_it() -> None:
    """Users export lists with a blank behind the comma: 'Action, Love' held ' Love', which no request asked for."""
    log = log_of(tags=["Action, Love ,\u00a0War"], page=[" tv"], user=["ann "])
    assert (log.items.columns["tags"].names, log.context["page"].names, log.users.ids) == (
        ("Action", "Love", "War"),
        ("tv",),
        ("ann",),
    )


def test_composed_and_decomposed_letters_are_one() -> None:
    """A file system of a Mac decomposes letters; the same café came out as two."""
    log = log_of(page=["caf\u00e9", "cafe\u0301"], user=["\u212b", "A\u030a"])
    assert (log.context["page"].names, log.users.ids) == (("caf\u00e9",), ("\u00c5",))


def test_elements_of_lists_are_spelled_as_single_values_are() -> None:
    """A warehouse's parquet holds lists of numbers where the CSV for serving holds text."""
    for tags in ([[3, 1]], [[3.0, 1.0]], ["3,1"], [["3", " 1"]], [[3.0, None, 1.0]], [[Decimal("3.0"), Decimal(1)]]):
        assert log_of(tags=tags).items.columns["tags"].names == ("1", "3")
    assert log_of(tags=[[date(2024, 1, 2)]]).items.columns["tags"].names == ("2024-01-02",)


def test_leading_zeros_long_numbers_and_codes_stay_what_they_are() -> None:
    """Postcodes and article numbers are text, whatever digits they are made of."""
    assert log_of(user=["01", "1"]).users.ids == ("01", "1")
    assert log_of(user=[2**63, 2**60 + 1]).users.ids == (str(2**60 + 1), str(2**63))
    assert log_of(user=["1e5", "1.10", "1.1", "0x1"]).users.ids == ("0x1", "1.1", "1.10", "1e5")


@pytest.mark.parametrize("bad", [2.0**53, -(2.0**60), 1.8e308, "1.23457E+15", "1e+16"])
def test_numbers_that_lost_digits_are_no_ids(bad: Any) -> None:
    """A spreadsheet writes 1.23457E+15 and a float column rounds ids of 17 digits: many users became one."""
    with pytest.raises(DataError, match=r"table: row 2, column 'user' is .* has lost digits; write ids .* as text"):
        log_of(user=[1.0 if isinstance(bad, float) else "1", bad])
    with pytest.raises(DataError, match=r"column 'tags' .* lost digits"):
        log_of(tags=[["a", bad] if isinstance(bad, str) else [1.0, bad]])


def test_a_float_of_32_bits_loses_digits_earlier() -> None:
    """The same in a column of Float32, which skips whole numbers from 2^24 on."""
    assert canonical(pl.Series("u", [2.0**24 - 1], dtype=pl.Float32), "t").to_list() == ["16777215"]
    with pytest.raises(DataError, match="lost digits"):
        canonical(pl.Series("u", [2.0**24], dtype=pl.Float32), "t")


@pytest.mark.parametrize(
    "day", ["2024-01-02", "2024-01-02 00:00:00", "2024-01-02T00:00:00.000", date(2024, 1, 2), datetime(2024, 1, 2)]
)
def test_a_date_as_a_category_has_one_form(day: Any) -> None:
    """A column of dates is text in CSV, dates in parquet and moments in pandas."""
    assert log_of(page=[day]).context["page"].names == ("2024-01-02",)


SCALARS = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(-1e9, 1e9) | st.text(max_size=6)


@settings(deadline=None)
@given(st.lists(SCALARS, min_size=1, max_size=6))
def test_a_line_is_read_by_itself(values: list[Any]) -> None:
    """Users send requests one by one or many at once; a value was read differently beside another."""
    import json

    def page(lines: list[str]) -> list[str]:
        frame = frame_from_jsonl(lines, "requests").with_columns(item=pl.lit("1"), user=pl.lit("1"))
        return log_from_frame(frame, SCHEMA, items=False, labels=False).context["page"].texts()

    lines = [json.dumps({"page": value, "n": n}) for n, value in enumerate(values)]
    assert page(lines) == [page([line])[0] for line in lines]


def test_lists_of_numbers_lose_nothing_in_lines() -> None:
    """[[1], [2.5]] in JSON lines was read as [[1], [2]]."""
    frame = frame_from_jsonl(['{"a": [1], "b": [1, "x"]}', '{"a": [2.5], "b": [true]}', '{"a": []}'], "table")
    assert frame["a"].to_list() == [[1.0], [2.5], []]
    assert frame["b"].to_list() == [["1", "x"], ["true"], None]


@settings(deadline=None)
@given(
    st.lists(st.text(max_size=5) | st.sampled_from(["True", "3.0", " x", "-0.0", "2020-01-01T00:00:00"]), min_size=1)
)
def test_one_value_and_a_column_are_spelled_alike(texts: list[str]) -> None:
    """The same rule for ids that are asked for one by one, such as `--item`."""
    assert canonical(pl.Series("x", texts), "t").to_list() == [canonical_name(text) for text in texts]
    for text in texts:
        assert may_change(text) or canonical_or_same(text) == text


@settings(deadline=None)
@given(st.lists(st.floats(-1e15, 1e15), min_size=1))
def test_a_float_and_a_column_of_floats_are_spelled_alike(numbers: list[float]) -> None:
    """The same of numbers: by Python's shortest digits."""
    assert canonical(pl.Series("x", numbers), "t").to_list() == [canonical_name(number) for number in numbers]


def test_names_of_an_older_store_are_known_in_the_new_spelling() -> None:
    """A store from before holds '3.0' and ' Love'; two old spellings of one name are told by neither."""
    old = Vocabulary("x", (" Love", "3.0", "True", "War", "War ", "a ", " a"))
    asked = Column.of_names(["Love", "3", "true", "War", "a", "b"])
    assert old.encode(asked).tolist() == [2, 3, 4, 5, UNSEEN, UNSEEN]


def test_new_items_are_named_as_in_the_log() -> None:
    """Items added from a frame of pandas had other ids than the events about them."""
    table = items_from_frame(pl.DataFrame({"item": [3.0, 4.0], "tags": ["a, b", ""]}), SCHEMA)
    assert (table.ids, table.columns["tags"].names) == (("3", "4"), ("a", "b"))
    with pytest.raises(DataError, match="'3' occurs twice"):
        items_from_frame(pl.DataFrame({"item": ["3", "3.0"], "tags": ["a", "a"]}), SCHEMA)


def test_frames_of_other_libraries_are_tables() -> None:
    """Users of pandas hand over what they have, with any index and missing values of its own."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"user": [1, None, 3], "when": pandas.to_datetime(["2024-01-01"] * 3)}, index=[5, 1, 3])
    frame["code"] = pandas.array([1, None, 2], dtype="Int64")
    found = as_frame(frame)
    assert canonical(found["user"], "t").to_list() == ["1", None, "3"]
    assert canonical(found["code"], "t").to_list() == ["1", None, "2"]
    assert canonical(found["when"], "t").to_list() == ["2024-01-01"] * 3
    with pytest.raises(DataError, match="is not a table"):
        as_frame(7)
    with pytest.raises(DataError, match=r"have 1 \(a\), 2 \(b\) rows"):
        as_frame({"a": [1], "b": [1, 2]})


@pytest.mark.parametrize("name", ["ml-1m", "ml-latest-small"])
def test_the_names_of_the_fields_own_data_were_canonical_before(name: str, real_data: Callable[[str], Path]) -> None:
    """Nothing that was measured on MovieLens is spelled otherwise now."""
    folder = str(real_data(name))
    log = movielens_1m(folder) if name == "ml-1m" else movielens_latest(folder)
    known = [log.items.ids, log.users.ids]
    known += [
        column.names for table in (log.items, log.users) for key, column in table.columns.items() if key != "title"
    ]
    for names in known:
        assert canonical(pl.Series("x", names), "t").to_list() == list(names)
