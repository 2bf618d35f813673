"""JSON lines are read and written as any other table."""

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newcomer.data.io.column_parsing import parse_column
from newcomer.data.io.json_lines import frame_from_jsonl
from newcomer.data.io.row_files import frame_to_jsonl, read_rows, write_rows
from newcomer.data.schema import Field
from newcomer.errors import DataError

ROW = st.fixed_dictionaries(
    {
        "item": st.text(max_size=5),
        "price": st.none() | st.floats(allow_nan=False, width=32),
        "tags": st.lists(st.text(max_size=3)),
    }
)


@given(st.lists(ROW, min_size=1, max_size=5))
def test_rows_written_as_lines_come_back(rows: list[dict[str, object]]) -> None:
    frame = pl.DataFrame(rows, schema={"item": pl.String, "price": pl.Float64, "tags": pl.List(pl.String)})
    lines = list(frame_to_jsonl(frame))
    assert len(lines) == len(rows)
    assert frame_from_jsonl(lines, "table").to_dicts() == rows


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl", "a.ndjson"])
def test_every_form_of_a_file_holds_the_same(name: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"item": ["b", "ä,\n"], "user": ["7", "8"]})
    write_rows(frame, tmp_path / name)
    assert read_rows(tmp_path / name).equals(frame)


def test_a_missing_key_is_an_empty_value_and_mixed_kinds_are_text() -> None:
    frame = frame_from_jsonl(['{"a": 1, "b": null}', "", ' {"a": "x", "c": [1, 2]} '], "table")
    assert frame.to_dicts() == [{"a": "1", "b": None, "c": None}, {"a": "x", "b": None, "c": [1, 2]}]
    assert frame_from_jsonl(['{"a": 1}', '{"a": 2.5}'], "table")["a"].cast(pl.Float64).to_list() == [1.0, 2.5]
    assert frame_from_jsonl([], "table").is_empty()


@pytest.mark.parametrize("line", ["[1]", "7", '"a"', "{", "null", "a,b"])
def test_what_is_no_object_is_named_by_its_line(line: str) -> None:
    with pytest.raises(DataError, match=r"^requests: line 3 is not a JSON object; write one per line"):
        frame_from_jsonl([json.dumps({"a": 1}), "", line], "requests")


def test_lists_beside_single_values_are_an_error_of_their_row() -> None:
    frame = frame_from_jsonl(['{"a": 1}', '{"a": [1]}'], "table")
    with pytest.raises(DataError, match=r"row 2, column 'a' holds \[1\] of type list; write a scalar"):
        parse_column(frame, Field("a", "item"), "table")


def test_files_that_cannot_be_are_errors(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes('{"a": "ä"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.jsonl: line 1 is not UTF-8"):
        read_rows(tmp_path / "latin.jsonl")
    with pytest.raises(DataError, match=r"none.jsonl: no such file"):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match=r"a.txt: neither .csv, .parquet nor .jsonl; choose one of them"):
        write_rows(pl.DataFrame({"a": [1]}), tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"a.csv: cannot be written .*; choose another path"):
        write_rows(pl.DataFrame({"a": [1]}), tmp_path / "nowhere" / "a.csv")
