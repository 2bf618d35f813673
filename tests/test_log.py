"""Click logs: columns are read as they are in the file, and invalid ones are one-line errors."""

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newcomer.data.click_log import ClickLog, Column
from newcomer.data.io.frames import as_series
from newcomer.data.io.log_reader import items_from_frame, log_from_frame, log_from_rows, read_log
from newcomer.data.io.timestamps import parse_timestamps
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


def shown(log: ClickLog) -> list[tuple[Any, ...]]:
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
        ({"liked": [0, 1, None]}, r"row 3, label 'liked' is empty"),
        ({"seen": ["1", "2", "soon"]}, r"row 3, time 'seen' is 'soon'"),
        ({"price": [1.0, float("nan"), 2.0]}, r"row 2, column 'price' is empty"),
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
    alike = pl.DataFrame({"film": ["z", "z"], "genres": ["", ""], "title": ["", ""]})
    assert items_from_frame(alike, SCHEMA).ids == ("z",)
    with pytest.raises(DataError, match="'z' occurs twice with different values"):
        items_from_frame(alike.with_columns(title=pl.Series(["", "Z"])), SCHEMA)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"item": "a"}, "schema.user is missing"),
        ({"item": "a", "user": "a"}, "column 'a' is used twice"),
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


ZONES: Any = st.none() | st.just(UTC) | st.timezones()


@given(
    st.lists(
        st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1), timezones=ZONES).filter(
            lambda moment: (moment.utcoffset() or timedelta()).seconds % 60 == 0
        ),
        min_size=1,
    ),
    st.sampled_from("T "),
    st.sampled_from(["auto", "minutes", "milliseconds", "microseconds"]),
)
def test_dates_as_text_are_milliseconds_as_python_reads_them(given: list[datetime], between: str, exact: str) -> None:
    texts = [moment.isoformat(between, exact) for moment in given]
    read = [datetime.fromisoformat(text) for text in texts]
    known = [moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in read]
    start = datetime(1970, 1, 1, tzinfo=UTC)
    assert parse_timestamps(pl.Series("t", texts), "").to_list() == [
        (one - start) // timedelta(milliseconds=1) for one in known
    ]


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ([7, 2**60], [7, 2**60]),
        ([1.0, 1700000000.25], [1, 1700000000]),
        (["12", "1.7e9", str(2**60 + 1)], [12, 1_700_000_000, 2**60 + 1]),
        ([date(1970, 1, 2), date(1969, 12, 31)], [86_400_000, -86_400_000]),
        ([datetime(1970, 1, 1, 0, 0, 1, 500_000)], [1500]),
        ([datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=1)))], [3_600_000]),
        (["1970-01-02", "1970-01-01T00:00:01Z", "1970-01-01 01:00-00:30"], [86_400_000, 1000, 5_400_000]),
    ],
)
def test_times_are_numbers_or_dates(given: list[Any], stored: list[int]) -> None:
    log = log_from_rows(Schema("i", "u"), i=["a"] * len(given), u=[1] * len(given), label=[0] * len(given), time=given)
    assert log.time.tolist() == stored
    assert log.time.dtype == np.int64


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["2024-01-01", "17"], r"row 2, time 't' is '17', other values are like '2024-01-01'; write"),
        (["17", "2024-01-01"], r"row 2, time 't' is '2024-01-01', other values are like '17'; write"),
        (["2024-01-31", "2024-02-30"], r"row 2, time 't' is '2024-02-30'"),
        (["2024-01-31T25:00"], r"row 1, time 't' is '2024-01-31T25:00'; write an increasing integer"),
        (["2024-01-31", ""], r"row 2, time 't' is empty"),
        ([1.0, float("nan")], r"row 2, time 't' is nan"),
        ([date(2024, 1, 1), None], r"row 2, time 't' is empty"),
    ],
)
def test_a_time_that_is_none_is_named_with_its_row(given: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=f"clicks.csv: {message}"):
        parse_timestamps(pl.Series("t", given), "clicks.csv")


def test_dates_in_one_file_and_numbers_in_another_are_not_one_time(tmp_path: Path) -> None:
    changed().write_csv(tmp_path / "a.csv")
    changed(seen=["2024-01-01"] * 3).write_csv(tmp_path / "b.csv")
    with pytest.raises(DataError, match=r"time 'seen' has dates in .*b.csv and numbers in .*a.csv"):
        read_log([tmp_path / "a.csv", tmp_path / "b.csv"], SCHEMA)


@pytest.mark.parametrize("given", [[True, False, True], ["true", "FALSE", "True"], ["1", "0", "1.0"], [1.0, 0.0, 1.0]])
def test_true_and_false_are_labels(given: list[Any]) -> None:
    assert log_from_frame(changed(liked=given), SCHEMA).label.tolist() == [1, 0, 1]


@given(st.lists(st.floats(-10, 10), min_size=1), st.floats(-10, 10))
def test_labels_from_the_threshold_on_are_clicks(ratings: list[float], least: float) -> None:
    count = len(ratings)
    log = log_from_rows(
        Schema("i", "u", clicked_from=least), i=["a"] * count, u=[1] * count, label=ratings, time=range(count)
    )
    assert log.label.tolist() == [float(rating >= least) for rating in ratings]


@pytest.mark.parametrize("rating", ["good", None, float("nan")])
def test_a_rating_that_is_none_is_named(rating: Any) -> None:
    schema = Schema("film", "viewer", "liked", "seen", clicked_from=4)
    with pytest.raises(DataError, match=r"row 2, label 'liked' is .*; write a number"):
        log_from_frame(changed(liked=["4", rating, "5"] if rating != rating else [4, rating, 5]), schema)


LOOK = Schema("film", "viewer", "liked", "seen", (Field("look", "context", "vector", missing="mark"),))


@pytest.mark.parametrize(
    "given",
    [
        ["[0.5, -1e-1]", None, "[2,3]"],
        ["[0.5, -0.1]", "[]", " [2, 3] "],
        [["0.5", "-0.1"], None, ["2", "3"]],
        [[0.5, -0.1], None, [2, 3]],
        pl.Series([[0.5, -0.1], None, [2, 3]], dtype=pl.Array(pl.Float32, 2)),
    ],
)
def test_a_vector_is_a_list_however_it_is_written(given: Any) -> None:
    column = log_from_frame(changed(look=given), LOOK).context["look"]
    assert column.is_vector
    expected = np.array([[0.5, -0.1], [np.nan, np.nan], [2, 3]])
    np.testing.assert_allclose(column.values, expected, rtol=1e-6)
    assert log_from_frame(changed(look=given), LOOK).take(np.array([2])).context["look"].values.tolist() == [[2, 3]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            [[1.0, 2.0], [1.0], [1.0, 2.0]],
            r"row 2, column 'look' starts with \[1.0\], 1 in all; write 2 finite numbers",
        ),
        (["[1, 2]", "[1, x]", "[1, 2]"], r"row 2, column 'look' starts with \['1', ' x'\]"),
        ([[1.0, 2.0], [1.0, float("nan")], None], r"row 2, column 'look'"),
        ([[1.0, 2.0], [1.0, None], None], r"row 2, column 'look'"),
    ],
)
def test_a_vector_that_cannot_be_is_named_with_its_row(given: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        log_from_frame(changed(look=given), LOOK)
    with pytest.raises(DataError, match=r"row 2, column 'look' is empty"):
        log_from_frame(
            changed(look=["[1]", None, "[1]"]),
            Schema("film", "viewer", "liked", "seen", (Field("look", "user", "vector"),)),
        )


@pytest.mark.parametrize("kind", ["categorical", "numeric", "text"])
def test_lists_are_no_single_values(kind: Any) -> None:
    schema = Schema("film", "viewer", "liked", "seen", (Field("page", "context", kind),))
    with pytest.raises(DataError, match=rf"column 'page' is {kind}, but holds list.*; set kind = 'multi' or 'vector'"):
        log_from_frame(changed(page=[["home"], ["list"], []]), schema)


@pytest.mark.parametrize("name", ["liked", "seen"])
def test_lists_are_neither_labels_nor_times(name: str) -> None:
    with pytest.raises(DataError, match=rf"table: (label|time) '{name}' holds list.*; write one number"):
        log_from_frame(changed(**{name: [[1], [0], [1]]}), SCHEMA)


def test_an_item_has_one_vector() -> None:
    schema = Schema("film", "viewer", "liked", "seen", (Field("look", "item", "vector"),))
    with pytest.raises(DataError, match=r"'b' of column 'film' has two values of 'look', in rows 1 and 3"):
        log_from_frame(changed(look=[[1.0, 2.0], [3.0, 4.0], [1.0, 2.5]]), schema)


def test_of_very_many_values_the_first_are_read() -> None:
    fields = (Field("tags", "context", "multi", max_values=3), Field("about", "context", "text", max_values=2))
    frame = changed(
        tags=["|".join(f"t{n % 5}" for n in range(1000)), "a|b", ""], about=["sea sea sun moon", "up", "no " * 500]
    )
    log = log_from_frame(frame, Schema("film", "viewer", "liked", "seen", fields))
    assert [words(log.context["tags"], row) for row in range(3)] == [["t0", "t1", "t2"], ["a", "b"], []]
    assert [words(log.context["about"], row) for row in range(3)] == [["sea", "sun"], ["up"], ["no"]]
    assert log.context["tags"].values.shape == (3, 3)


def test_an_empty_text_is_missing() -> None:
    assert log_from_frame(changed(page=["home", "", "list"]), SCHEMA).context["page"].texts() == ["home", "", "list"]
    assert log_from_frame(changed(page=["home", "", "list"]), SCHEMA).context["page"].values[1] == -1
    with pytest.raises(DataError, match=r"row 2, column 'viewer' is empty"):
        log_from_frame(changed(viewer=["7", "", "10"]), SCHEMA)


def test_a_value_may_hold_commas_quotes_line_breaks_and_any_letters(tmp_path: Path) -> None:
    pages = ['a "quoted", one', "two\nlines\r\nand more", "日本語 é 🎬"]
    changed(page=pages).write_csv(tmp_path / "clicks.csv")
    log = read_log(tmp_path / "clicks.csv", SCHEMA)
    assert log.context["page"].texts() == pages
    assert shown(log) == shown(log_from_frame(changed(), SCHEMA))


def test_columns_that_are_empty_or_constant_are_read() -> None:
    fields = (
        *(
            Field(kind, "context", kind, missing="mark")
            for kind in ("categorical", "multi", "numeric", "text", "vector")
        ),
        Field("constant", "context", "numeric"),
    )
    nothing: dict[str, list[Any]] = {field.name: [None] * 3 for field in fields[:-1]} | {"constant": [5, 5, 5]}
    context = log_from_frame(changed(**nothing), Schema("film", "viewer", "liked", "seen", fields)).context
    assert np.isnan(context["numeric"].values).all()
    assert context["vector"].values.shape == (3, 0)
    for kind in ("categorical", "multi", "text"):
        assert (context[kind].values == -1).all()
        assert context[kind].names == ()
    assert context["constant"].values.tolist() == [5, 5, 5]


def test_a_schema_keeps_what_it_can_say() -> None:
    fields = (Field("about", "item", "text", encoder="some/encoder", max_values=3), Field("look", "item", "vector"))
    schema = Schema("film", "viewer", fields=fields, clicked_from=3.5)
    assert Schema.from_json(schema.to_json()) == schema
    with pytest.raises(DataError, match=r"field 'page' is categorical and has an encoder; set kind = 'text'"):
        Field("page", "context", encoder="some/encoder")
    with pytest.raises(DataError, match=r"schema.fields\[0\].max_values = 0 cannot be"):
        Schema.from_json({"item": "i", "user": "u", "fields": [{"name": "tags", "role": "user", "max_values": 0}]})


def test_a_schema_without_later_settings_is_written_as_it_always_was() -> None:
    table = SCHEMA.to_json()
    assert set(table) == {"item", "user", "label", "time", "fields"}
    assert {key for field in table["fields"] for key in field} == {
        *("name", "role", "kind", "missing", "unseen", "min_count", "separator")
    }


@pytest.mark.parametrize(
    "given",
    [{"role": "itm"}, {"kind": "number"}, {"missing": "ignore"}, {"unseen": 1}, {"min_count": "a"}, {"max_values": 0}],
)
def test_a_setting_that_a_field_cannot_have_is_refused_at_once(given: dict[str, Any]) -> None:
    """A misspelt role dropped the field without a word, and the store could be saved but not loaded."""
    with pytest.raises(DataError, match=rf"schema: field 'genre'\.{next(iter(given))} = .* cannot be"):
        Field(**{"name": "genre", "role": "item"} | given)
    with pytest.raises(DataError, match=r"schema\.user_missing = 'skip' cannot be"):
        Schema("film", "viewer", user_missing="skip")  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [["\ud800"], ["a", 1, "\ud800"]])
def test_text_that_is_not_unicode_is_refused(values: list[object]) -> None:
    with pytest.raises(DataError, match=r"t: column 'a'.*surrogate"):
        as_series("a", values, "t")
