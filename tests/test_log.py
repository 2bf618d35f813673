"""Click logs: what is read is what is in the file, and what cannot be is said in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from newcomer.data.log import Column, Log
from newcomer.data.read import items_from_frame, log_from_frame, read_log
from newcomer.data.schema import Field, Schema
from newcomer.errors import DataError

SCHEMA = Schema(
    "film",
    "viewer",
    "liked",
    "seen",
    (
        Field("genres", "item", "multi"),
        Field("title", "item", "text"),
        Field("zip", "user"),
        Field("price", "context", "numeric"),
        Field("page", "context", missing="mark"),
    ),
)
ROWS: dict[str, list[Any]] = {
    "film": ["b", "a", "b"],
    "viewer": ["7", "7", "10"],
    "liked": [1, 0, 0],
    "seen": [30, 10, 20],
    "genres": ["Drama|War", "", "Drama|War"],
    "title": ["The Sea, the Sea", "Up", "The Sea, the Sea"],
    "zip": ["01234", "01234", "5"],
    "price": [1.5, 2, 2.5],
    "page": ["home", None, "list"],
}


def changed(**columns: list[Any]) -> pl.DataFrame:
    return pl.DataFrame(ROWS | columns, strict=False)


def shown(log: Log) -> list[tuple[Any, ...]]:
    """The rows in words."""
    return [
        (log.items.ids[i], log.users.ids[u], int(y), int(t))
        for i, u, y, t in zip(log.item, log.user, log.label, log.time, strict=True)
    ]


def words(column: Column, row: int) -> list[str]:
    return [column.names[value] for value in column.values[row] if value >= 0]


@pytest.fixture(params=["csv", "parquet"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"clicks.{request.param}"
    frame = changed()
    frame.write_csv(path) if request.param == "csv" else frame.write_parquet(path)
    return path


def test_a_file_gives_the_same_log_as_the_table_in_it(file: Path) -> None:
    log = read_log(file, SCHEMA)
    assert shown(log) == [("b", "7", 1, 30), ("a", "7", 0, 10), ("b", "10", 0, 20)]
    assert log.items.ids == ("a", "b")
    assert log.users.columns["zip"].texts() == ["5", "01234"]  # viewers '10' and '7': text stays text
    assert log.context["price"].values.tolist() == [1.5, 2, 2.5]
    assert log.context["page"].texts() == ["home", "", "list"]
    assert words(log.items.columns["genres"], 0) == []
    assert words(log.items.columns["genres"], 1) == ["Drama", "War"]
    assert words(log.items.columns["title"], 1) == ["the", "sea"]


def test_several_files_are_one_log(tmp_path: Path) -> None:
    for part in range(3):
        changed()[part : part + 1].write_parquet(tmp_path / f"{part}.parquet")
    assert shown(read_log(f"{tmp_path}/*.parquet", SCHEMA)) == shown(log_from_frame(changed(), SCHEMA))


def test_lists_are_several_values_as_they_are() -> None:
    log = log_from_frame(changed(genres=[["War", "Drama"], [], ["War", "Drama"]]), SCHEMA)
    assert words(log.items.columns["genres"], 1) == ["War", "Drama"]


def test_a_part_of_a_log_shares_its_tables() -> None:
    log = log_from_frame(changed(), SCHEMA)
    part = log.take(np.array([2, 0]))
    assert part.items is log.items
    assert shown(part) == [shown(log)[2], shown(log)[0]]
    assert part.row.tolist() == [2, 0]
    assert part.context["page"].texts() == ["list", "home"]
    assert shown(log.of_items(np.array([0]))) == [("a", "7", 0, 10)]
    assert log.items.take(np.array([1])).ids == ("b",)


def test_requests_need_neither_labels_nor_the_items_fields() -> None:
    log = log_from_frame(changed().select("film", "viewer", "zip", "price", "page"), SCHEMA, items=False, labels=False)
    assert log.label.tolist() == [0, 0, 0]
    assert not log.items.columns


def test_a_missing_number_is_marked_where_the_schema_says_so() -> None:
    schema = Schema("film", "viewer", "liked", "seen", (Field("price", "context", "numeric", missing="mark"),))
    assert np.isnan(log_from_frame(changed(price=[1.0, None, 2.0]), schema).context["price"].values).tolist() == [
        0,
        1,
        0,
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"liked": [1, 2, 0]}, r"row 2, label 'liked' is 2; write 1"),
        ({"liked": ["yes", "0", "1"]}, r"row 1, label 'liked' is 'yes'"),
        ({"liked": [0, 1, None]}, r"row 3, label 'liked' is None"),
        ({"seen": ["1", "2", "soon"]}, r"row 3, time 'seen' is 'soon'"),
        ({"price": [1.0, float("nan"), 2.0]}, r"row 2, column 'price' is nan"),
        ({"price": ["1", "2", "dear"]}, r"row 3, column 'price': 'dear' is not a number"),
        ({"film": ["b", None, "b"]}, r"row 2, column 'film' is empty"),
        (
            {"zip": ["1", "2", "5"]},
            r"'7' of column 'viewer' has two values of 'zip', in rows 1 and 2; make 'zip' a context field",
        ),
        ({"genres": ["War", "", "Drama"]}, r"'b' of column 'film' has two values of 'genres', in rows 1 and 3"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_row(columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        log_from_frame(changed(**columns), SCHEMA)


def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    changed().rename({"viewer": "viewers"}).write_csv(path)
    with pytest.raises(DataError, match=r"clicks.csv: .*no column 'viewer'; did you mean 'viewers'"):
        read_log(path, SCHEMA)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_bytes(b"film,viewer,liked,seen\na,1,1,1\nb,\xff\xfe,1,1\n")
    with pytest.raises(DataError, match=r"clicks.csv: line 3 is not UTF-8"):
        read_log(path, Schema("film", "viewer", "liked", "seen"))
    for content in (b"", b"film,viewer,liked,seen\n"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"clicks.csv"):
            read_log(path, Schema("film", "viewer", "liked", "seen"))
    with pytest.raises(DataError, match="no such file"):
        read_log(tmp_path / "none-*.csv", SCHEMA)
    (tmp_path / "clicks.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"clicks.parquet: cannot be read"):
        read_log(tmp_path / "clicks.parquet", SCHEMA)


def test_new_items_are_a_table_of_their_fields() -> None:
    table = items_from_frame(pl.DataFrame({"film": ["z", "c"], "genres": ["War", ""], "title": ["Z", "C"]}), SCHEMA)
    assert table.ids == ("c", "z")
    assert words(table.columns["genres"], 1) == ["War"]
    with pytest.raises(DataError, match="'z' is there twice"):
        items_from_frame(pl.DataFrame({"film": ["z", "z"], "genres": ["", ""], "title": ["", ""]}), SCHEMA)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"item": "a"}, "schema.user is missing"),
        ({"item": "a", "user": "a"}, "column 'a' has two meanings"),
        (
            {"item": "a", "user": "b", "fields": [{"name": "c", "role": "film"}]},
            r"schema.fields\[0\].role = 'film' cannot be",
        ),
        ({"item": "a", "user": "b", "fields": [{"name": "c", "role": "item", "knd": "text"}]}, "did you mean 'kind'"),
        ({"item": "a", "user": "b", "fields": "c"}, "schema.fields is not a list of tables"),
    ],
)
def test_a_schema_that_cannot_be_says_where(table: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Schema.from_json(table)


def test_a_schema_comes_back_from_json() -> None:
    assert Schema.from_json(SCHEMA.to_json()) == SCHEMA
