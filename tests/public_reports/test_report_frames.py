"""Tables of a caller: one request as a mapping, masks, clocks of seconds, names that come twice; and files that frames wrote."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from newcomer.cli.input_tables import read_input
from newcomer.data.inference.schema import propose
from newcomer.data.io.frames import as_frame
from newcomer.data.io.log_reader import log_from_frame
from newcomer.data.schema import Field, Schema
from newcomer.errors import DataError, DataWarning

SCHEMA = Schema(
    "item",
    "user",
    fields=(Field("genre", "item"), Field("bid", "context", "numeric", missing="mark")),
    missing_values=("-1", "NULL"),
)


def rows(**columns: object) -> pl.DataFrame:
    return pl.DataFrame({"item": ["a"], "user": ["u"], "genre": ["war"], "label": [1], "time": [1]} | columns)


def test_one_row_is_a_row_and_a_text_is_no_column() -> None:
    """`score({"item_id": "i001", …})` ended in a TypeError; a text beside lists was read once a character."""
    assert as_frame({"item": "abc", "bid": 0.5}).rows() == [("abc", 0.5)]
    with pytest.raises(DataError, match="column 'device' is a scalar beside lists"):
        as_frame({"item": ["a", "b"], "device": "tv"})


def test_what_is_masked_is_missing() -> None:
    """Masked arrays of numpy: the values under the mask were read."""
    assert as_frame({"click": np.ma.array([1, 1], mask=[False, True])})["click"].to_list() == [1, None]


def test_two_columns_of_one_name_are_refused() -> None:
    """A pandas frame with a name twice: every value was the name."""
    with pytest.raises(DataError, match="two columns have the same name"):
        as_frame(pd.DataFrame([[1, 2]], columns=["device", "device"]))


def test_times_of_seconds_and_wide_floats_are_read() -> None:
    """datetime64[s] of pandas and long doubles of numpy ended in a ValueError."""
    frame = as_frame({"t": np.array(["2024-01-01T00:00:01"], "datetime64[s]"), "x": np.array([1.5], np.longdouble)})
    assert frame["t"].dt.epoch("s").to_list() == [1704067201]
    assert frame["x"].to_list() == [1.5]


@pytest.mark.parametrize("bid", [-1, "-1", -1.0, "-1.0", "NULL"])
def test_a_number_that_stands_for_nothing_does_so_in_every_type(bid: object) -> None:
    """`missing_values = ["-1"]`: the text was missing, the number was a number."""
    log = log_from_frame(rows(bid=[bid]), SCHEMA)
    assert np.isnan(log.context["bid"].values).all()


def test_a_column_in_capitals_is_warned_of() -> None:
    """An optional column called DEVICE was read as missing without a word."""
    with pytest.warns(DataWarning, match="did you mean 'BID'"):
        log_from_frame(rows(BID=[0.5]), SCHEMA, items=False, labels=False)


def test_an_index_that_was_written_along_is_no_column(tmp_path: Path) -> None:
    """`df.to_csv()` with its index: `inspect` ended in KeyError: ''."""
    log = pd.DataFrame(
        {
            "item_id": [f"i{n % 20}" for n in range(400)],
            "user_id": [n % 37 for n in range(400)],
            "click": [int(n % 3 == 0) for n in range(400)],
            "timestamp": range(1_700_000_000, 1_700_000_400),
        }
    )
    log.to_csv(tmp_path / "log.csv")
    assert propose(str(tmp_path / "log.csv")).schema.item == "item_id"


def test_half_a_character_is_a_bad_line_among_good_ones(tmp_path: Path) -> None:
    """A cut emoji in JSON lines: UnicodeEncodeError and no answers; a byte order mark: the first line was no JSON."""
    lines = ["\ufeff" + json.dumps({"item": "a"}), '{"item": "b", "title": "\\ud83d"}', '{"item": "\\ud83d\\ude00"}']
    (tmp_path / "r.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    read = read_input(str(tmp_path / "r.jsonl"), strict=False)
    assert read.frame["item"].to_list() == ["a", None, "😀"]
    assert list(read.broken) == [1]
