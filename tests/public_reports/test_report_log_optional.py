"""Optional values, columns, users and lines may be missing; the advice of messages can be followed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from newcomer.data.inference.schema import propose
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.log_reader import items_from_frame, log_from_frame, read_log
from newcomer.data.io.log_statistics import LogStatistics
from newcomer.data.schema import Field, Schema
from newcomer.errors import DataError, DataWarning
from newcomer.items.encoding.encoder import Encoder

SCHEMA = Schema(
    "item",
    "user",
    "click",
    "time",
    (
        Field("brand", "item", missing="mark"),
        Field("city", "user", missing="mark"),
        Field("device", "context", missing="mark"),
        Field("bid", "context", "numeric", missing="mark"),
    ),
)
ANONYMOUS = Schema("item", "user", "click", "time", SCHEMA.fields, user_missing="mark")


def table(**columns: list[Any]) -> pl.DataFrame:
    rows: dict[str, Any] = {"item": ["a", "b", "a", "b"], "user": ["1", "2", "1", "3"], "click": [1, 0, 0, 1]}
    rows |= {"time": [1, 2, 3, 4], "brand": ["x", "y", "x", "y"], "city": ["p", "q", "p", "r"]}
    return pl.DataFrame(rows | {"device": ["tv", "pc", "tv", "pc"], "bid": ["1", "2", "3", "4"]} | columns)


def test_a_request_without_an_optional_column_is_read() -> None:
    """A single request as JSON names what it knows; the missing column was an error although missing values are marked."""
    frame = pl.DataFrame({"item": ["a"], "user": ["1"]})
    log = log_from_frame(frame, SCHEMA, items=False, labels=False)
    assert log.context["device"].texts() == [""]
    assert np.isnan(log.context["bid"].values).all()
    items = items_from_frame(pl.DataFrame({"item": ["new"]}), SCHEMA)
    assert items.columns["brand"].texts() == [""]


@pytest.mark.parametrize("rows", [None, 1])
def test_older_files_lack_a_newer_column(tmp_path: Path, rows: int | None) -> None:
    """Files from before a column was logged are read with the newer ones."""
    table().drop("device", "brand").write_csv(tmp_path / "2019.csv")
    table().write_csv(tmp_path / "2020.csv")
    source = [tmp_path / "2019.csv", tmp_path / "2020.csv"]
    schema = Schema("item", "user", "click", "time", (Field("device", "context", missing="mark"),))
    log = read_log(source, schema) if rows is None else (files := ChunkedLog(source, schema, rows)).read(*files.chunks)
    assert log.context["device"].texts() == ["", "", "", "", "tv", "pc", "tv", "pc"]


def test_a_column_that_no_file_has_is_a_mistake(tmp_path: Path) -> None:
    """A schema with a misspelled column must not learn from nothing."""
    table().rename({"device": "devise"}).write_csv(tmp_path / "log.csv")
    ways: list[Callable[[], Any]] = [
        lambda: read_log(tmp_path / "log.csv", SCHEMA),
        lambda: (files := ChunkedLog(tmp_path / "log.csv", SCHEMA, 2)).read(*files.chunks),
        lambda: log_from_frame(pl.read_csv(tmp_path / "log.csv"), SCHEMA),
    ]
    for read in ways:
        with pytest.raises(DataError, match="no column 'device'; did you mean 'devise'"):
            read()


def test_a_misspelled_optional_column_of_a_request_is_warned_of() -> None:
    """A request may lack the column, but probably does not mean to."""
    with pytest.warns(
        DataWarning, match="requests: no column 'device', which is read as missing; did you mean 'devise'"
    ):
        log_from_frame(table().rename({"device": "devise"}), SCHEMA, items=False, labels=False, where="requests")


def test_anonymous_users_are_users_where_the_schema_says_so(tmp_path: Path) -> None:
    """Shops log visitors who have not signed in; the advice to mark them could not be followed for an id."""
    given = table(user=[None, "2", "", "3"], city=["p", "q", "r", "r"])
    with pytest.raises(
        DataError, match=r"row 1, column 'user' is empty; fill it, or set user_missing = 'mark' in the schema"
    ):
        log_from_frame(given, SCHEMA)
    given.write_csv(tmp_path / "log.csv")
    whole = read_log(tmp_path / "log.csv", ANONYMOUS)
    assert [whole.users.ids[user] for user in whole.user] == ["", "2", "", "3"]
    assert [whole.users.columns["city"].texts()[user] for user in whole.user] == ["p", "q", "r", "r"]
    survey = LogStatistics.of(files := ChunkedLog(tmp_path / "log.csv", ANONYMOUS, rows=1))
    for encoder in (Encoder.fit(whole), Encoder.fit(survey)):
        clicks = encoder.clicks(whole, whole.item)
        codes = clicks.of_users[0][clicks.user].tolist()
        assert codes[0] == codes[2] >= 2
        assert len(set(codes)) == 3
    assert [files.read(piece).users.ids for piece in files.chunks] == [("",), ("2",), ("",), ("3",)]
    assert Schema.from_json(ANONYMOUS.to_json()) == ANONYMOUS


def test_an_anonymous_user_is_no_value_where_training_had_none() -> None:
    """A model that learned from known users reads an unknown one as 'not known'."""
    encoder = Encoder.fit(log_from_frame(table(), ANONYMOUS))
    asked = log_from_frame(
        pl.DataFrame({"item": ["a", "a"], "user": [None, "9"]}), ANONYMOUS, items=False, labels=False
    )
    clicks = encoder.clicks(asked, asked.item)
    assert clicks.of_users[0][clicks.user].tolist() == [0, 1]


@pytest.mark.parametrize("missing", ["NULL", "\\N", "NA", " NULL "])
def test_other_words_for_nothing_are_missing_by_a_setting(tmp_path: Path, missing: str) -> None:
    """Exports of databases write NULL, \\N or NA."""
    schema = Schema(
        "item", "user", "click", "time", SCHEMA.fields, user_missing="mark", missing_values=("NULL", "\\N", "NA")
    )
    given = table(
        device=["tv", missing, "tv", "pc"],
        bid=["1", "2", missing, "4"],
        user=["1", "2", "1", missing],
        city=["p", missing, "p", "r"],
    )
    given.write_csv(tmp_path / "log.csv")
    for log in (
        read_log(tmp_path / "log.csv", schema),
        (files := ChunkedLog(tmp_path / "log.csv", schema, 3)).read(*files.chunks),
    ):
        assert log.context["device"].texts() == ["tv", "", "tv", "pc"]
        assert np.isnan(log.context["bid"].values).tolist() == [False, False, True, False]
        assert log.users.ids == ("", "1", "2")
        assert log.users.columns["city"].texts() == ["r", "p", ""]
    with pytest.raises(DataError, match="is not a number"):
        log_from_frame(given, SCHEMA)
    assert Schema.from_json(schema.to_json()) == schema


def test_a_proposal_knows_words_for_nothing(tmp_path: Path) -> None:
    """Such a log is proposed as what it is, not as one whose prices are categories."""
    chance = np.random.default_rng(0)
    n = 400
    item = chance.integers(0, 20, n)
    frame = pl.DataFrame(
        {
            "item": item,
            "user": [None if k % 9 == 0 else f"u{k % 7}" for k in range(n)],
            "click": chance.integers(0, 2, n),
            "time": range(n),
            "price": [f"{k / 8:.3f}" if k else "\\N" for k in item],
        }
    )
    frame.write_csv(tmp_path / "log.csv")
    found = propose(tmp_path / "log.csv").schema
    assert (found.missing_values, found.user_missing) == (("\\N",), "mark")
    assert [(field.name, field.kind, field.missing) for field in found.fields] == [("price", "numeric", "mark")]
    assert len(read_log(tmp_path / "log.csv", found)) == n


@pytest.mark.parametrize("blank", ["\n", "\n\n\n", ",,,\n", ' , ,"",\n'])
def test_blank_lines_are_no_events(tmp_path: Path, blank: str) -> None:
    """Spreadsheets leave empty lines in the middle and at the end; rows keep the numbers that they have in the file."""
    schema = Schema("item", "user", "click", "time")
    (tmp_path / "log.csv").write_text(f"item,user,click,time\na,1,1,1\n{blank}b,2,0,2\n{blank}")
    whole = read_log(tmp_path / "log.csv", schema)
    files = ChunkedLog(tmp_path / "log.csv", schema, rows=1)
    pieced = files.read(*files.chunks)
    for log in (whole, pieced):
        assert log.items.ids == ("a", "b")
        assert log.row.tolist() == [0, 1 + blank.count("\n")]
    assert LogStatistics.of(files).rows == 2
    (tmp_path / "log.csv").write_text(f"item,user,click,time\na,1,1,1\n{blank}b,,0,2\n")
    with pytest.raises(DataError, match=f"row {2 + blank.count(chr(10))}, column 'user' is empty"):
        read_log(tmp_path / "log.csv", schema)


def test_advice_about_an_items_id_can_be_followed() -> None:
    """An item without an id is no item: the message says what can be done."""
    with pytest.raises(DataError, match=r"row 2, column 'item' is empty; fill it, or leave the row out"):
        log_from_frame(table(item=["a", None, "a", "b"]), SCHEMA)


def test_users_of_requests_may_differ_from_row_to_row() -> None:
    """Two requests of one user from two cities were an error; each is answered by its own row."""
    rows = {"item": ["a", "a", "b"], "user": ["1", "1", "2"], "city": ["p", "q", "p"]}
    for labels in (False, True):
        more = {"click": [1, 0, 1], "time": [1, 2, 3]} if labels else {}
        log = log_from_frame(pl.DataFrame(rows | more), SCHEMA, items=False, labels=labels)
        assert [log.users.ids[user] for user in log.user] == rows["user"]
        assert [log.users.columns["city"].texts()[user] for user in log.user] == rows["city"]
    with pytest.raises(DataError, match="two values of 'city'"):
        log_from_frame(table(city=["p", "q", "z", "r"]), SCHEMA)


def test_a_word_that_stands_for_no_user_is_said() -> None:
    """Half of the users were 'undefined', and learned as one user without a word."""
    users = ["undefined"] * 5 + [f"u{n}" for n in range(5)]
    rows = {"item": ["a", "b"] * 5, "user": users, "click": [1, 0] * 5, "time": list(range(10))}
    plain = Schema("item", "user", "click", "time")
    with pytest.warns(
        DataWarning, match=r"column 'user': 'undefined' is in 5 of 10 rows, .*add it to missing_values in the schema"
    ):
        LogStatistics(plain).add(log_from_frame(pl.DataFrame(rows), plain)).warn_of_placeholders()
    told = Schema("item", "user", "click", "time", missing_values=("undefined",), user_missing="mark")
    LogStatistics(told).add(log_from_frame(pl.DataFrame(rows), told)).warn_of_placeholders()
