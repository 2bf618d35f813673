"""A few rows that disagree with the others are repaired, with their number; many are an error."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from newcomer.data.inference.schema import propose
from newcomer.data.inference.stream import propose_stream, training_share
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.log_reader import log_from_frame, read_log
from newcomer.data.io.log_statistics import LogStatistics
from newcomer.data.io.shuffle import latest_events
from newcomer.data.schema import Field, Schema
from newcomer.errors import DataError, DataWarning
from newcomer.items.encoding.encoder import Encoder
from shell import Shell

SCHEMA = Schema(
    "item",
    "user",
    "click",
    "time",
    (
        Field("genres", "item", "multi"),
        Field("price", "item", "numeric", missing="mark"),
        Field("look", "item", "vector", missing="mark"),
        Field("city", "user", missing="mark"),
    ),
)
ROWS = 1000


def table(**dirt: dict[int, Any]) -> pl.DataFrame:
    """Events of 20 items and 30 users in a mixed order of time; `dirt` says what stands in some rows of a column instead."""
    chance = np.random.default_rng(0)
    item, user = chance.integers(0, 20, ROWS), chance.integers(0, 30, ROWS)
    columns: dict[str, list[Any]] = {
        "item": [f"i{n}" for n in item],
        "user": [f"u{n}" for n in user],
        "click": chance.integers(0, 2, ROWS).tolist(),
        "time": chance.permutation(ROWS).tolist(),
        "genres": ["War|Love" if n % 2 else "Comedy" for n in item],
        "price": [str(n + 0.5) for n in item],
        "look": [f"[{n}, 1]" for n in item],
        "city": [f"c{n % 5}" for n in user],
    }
    for name, values in dirt.items():
        for row, value in values.items():
            columns[name][row] = value
    return pl.DataFrame(columns)


def readings(frame: pl.DataFrame, folder: Path, schema: Schema = SCHEMA) -> list[tuple[Any, list[str]]]:
    """What is fitted, and what was said, in memory and piece by piece in two sizes."""
    frame.write_csv(folder / "log.csv")
    found = []
    ways: list[Callable[[], LogStatistics]] = [
        lambda: LogStatistics(schema).add(read_log(folder / "log.csv", schema)),
        lambda: LogStatistics.of(ChunkedLog(folder / "log.csv", schema, rows=90)),
        lambda: LogStatistics.of(ChunkedLog(folder / "log.csv", schema, rows=17)),
    ]
    for read in ways:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            survey = read()
            encoder = Encoder.fit(survey)
        shown = {
            f.name: [
                (id, table.columns[f.name].values[n].tolist(), table.columns[f.name].names)
                for n, id in enumerate(table.ids)
            ]
            for table, role in ((survey.items, "item"), (survey.users, "user"))
            for f in schema.fields
            if f.role == role
        }
        found.append(
            (
                (repr(shown), [c.to_json().get("names") for c in encoder.codings.values()]),
                [str(w.message) for w in said],
            )
        )
    return found


def test_one_dirty_row_changes_nothing_and_is_warned_of(tmp_path: Path) -> None:
    """A user's log of 6,000 events had one row with another genre: its field became context, and training stopped."""
    frame = table()
    early = int(frame.with_row_index().filter(pl.col("item") == "i3").sort("time")["index"][0])
    clean, dirty = readings(frame, tmp_path), readings(table(genres={early: "Drama"}), tmp_path)
    for (found, said), (expected, nothing) in zip(dirty, clean, strict=True):
        assert found == expected
        assert nothing == []
        (message,) = said
        assert message.startswith(
            "column 'genres': 1 of 1,000 rows show another value than the latest of the same 'item'"
        )
        assert f"'i3' in row {early + 1}: ['Drama']" in message


def test_the_latest_value_counts(tmp_path: Path) -> None:
    """A catalogue was corrected: what the last event shows is right, in memory and in pieces."""
    frame = table()
    late = int(frame.with_row_index().filter(pl.col("item") == "i3").sort("time")["index"][-1])
    of_user = int(frame.with_row_index().filter(pl.col("user") == "u3").sort("time")["index"][-1])
    given = table(genres={late: "Drama"}, price={late: "99"}, look={late: "[9, 9]"}, city={of_user: "c9"})
    one, *others = readings(given, tmp_path)
    assert all(other == one for other in others)
    log = log_from_frame_quietly(given)
    n = log.items.ids.index("i3")
    assert [log.items.columns["genres"].names[v] for v in log.items.columns["genres"].values[n] if v >= 0] == ["Drama"]
    assert (log.items.columns["price"].values[n], log.items.columns["look"].values[n].tolist()) == (99.0, [9.0, 9.0])
    assert log.users.columns["city"].texts()[log.users.ids.index("u3")] == "c9"
    assert len(one[1]) == 4


def log_from_frame_quietly(frame: pl.DataFrame, schema: Schema = SCHEMA) -> Any:
    with pytest.warns(DataWarning):
        return log_from_frame(frame, schema)


def test_a_latest_value_that_is_missing_does_not_count(tmp_path: Path) -> None:
    """An empty cell corrects nothing."""
    frame = table()
    late = int(frame.with_row_index().filter(pl.col("item") == "i3").sort("time")["index"][-1])
    log = log_from_frame_quietly(table(price={late: None}, look={late: ""}))
    n = log.items.ids.index("i3")
    assert (log.items.columns["price"].values[n], log.items.columns["look"].values[n].tolist()) == (3.5, [3.0, 1.0])


def test_values_in_another_order_and_values_that_came_later_are_no_disagreement(tmp_path: Path) -> None:
    """Genres are a set, and older rows of a log lack what was recorded later: such logs were refused, or every row was told."""
    frame = table()
    early = frame.with_row_index().filter(pl.col("time") < 400)
    turned = {row: "Love|War" for row, genres in early.select("index", "genres").rows() if genres == "War|Love"}
    assert len(turned) > 100
    nothing = dict.fromkeys(early["index"].to_list(), "")
    given = table(genres=turned, price=nothing, look=nothing, city=nothing)
    clean = readings(frame, tmp_path)
    assert readings(given, tmp_path) == clean
    assert clean[0][1] == []


def test_training_reads_pieces_with_the_values_that_count(tmp_path: Path) -> None:
    """After the survey every piece, and every window, shows a user's latest value."""
    frame = table()
    rows = frame.with_row_index().filter(pl.col("user") == "u3").sort("time")["index"].to_list()
    table(city={rows[0]: "c9"}).write_csv(tmp_path / "log.csv")
    files = ChunkedLog(tmp_path / "log.csv", SCHEMA, rows=10)
    with pytest.warns(DataWarning, match="column 'city': 1 of 1,000 rows"):
        LogStatistics.of(files)
    for log in [*(files.read(piece) for piece in files.chunks), latest_events(files, ["i1", "i2"], 5)]:
        assert "c9" not in log.users.columns["city"].texts()


@pytest.mark.parametrize("share", [0.01, 0.0, 0.05])
def test_more_rows_than_the_stated_share_are_an_error(tmp_path: Path, share: float) -> None:
    """One in a hundred by default; a schema may say another share, 0 for none. In pieces as in memory."""
    schema = replace(SCHEMA, max_conflict_share=share)
    assert Schema.from_json(schema.to_json()) == schema
    few = int(share * ROWS)
    if few:
        assert readings(table(genres={n: f"g{n}" for n in range(few)}), tmp_path, schema)[0][1]
    table(genres={n: f"g{n}" for n in range(2 * few + 2)}).write_csv(tmp_path / "log.csv")
    for read in (
        lambda: read_log(tmp_path / "log.csv", schema),
        lambda: LogStatistics.of(ChunkedLog(tmp_path / "log.csv", schema, rows=50)),
    ):
        with pytest.raises(
            DataError, match=r"has two values of 'genres', in rows \d+ and \d+; make 'genres' a context field"
        ):
            read()


@pytest.mark.parametrize("dirty", [0, 1, 9])
def test_a_proposal_bears_few_dirty_rows(tmp_path: Path, dirty: int) -> None:
    """`inspect` made a context field of an item's because one row disagrees, so that new items had no features."""
    table(genres={n * 7: "Drama" for n in range(dirty)}).drop("look").write_csv(tmp_path / "log.csv")
    found = propose(tmp_path / "log.csv")
    assert {field.name: field.role for field in found.schema.fields} == {
        "genres": "item",
        "price": "item",
        "city": "user",
    }
    said = f"all but {dirty} of 1,000 rows" if dirty else "all rows"
    assert found.reasons["genres"].startswith(f"one value in {said} of an item")


def test_a_flag_that_is_nearly_always_the_same_is_no_items(tmp_path: Path) -> None:
    """A rare context value disagrees in few rows as well, but as often as chance would have it."""
    frame = table().drop("look", "price").with_columns(sale=pl.Series([int(n % 111 == 5) for n in range(ROWS)]))
    frame.write_csv(tmp_path / "log.csv")
    assert {f.name: f.role for f in propose(tmp_path / "log.csv").schema.fields}["sale"] == "context"


def test_the_command_line_goes_on_and_says_so(shell: Shell) -> None:
    """`train` with a given schema stopped at the first row that disagrees."""
    table(genres={3: "Drama"}).drop("look").write_csv(shell.folder / "log.csv")
    code, _, err = shell.call("inspect", "log.csv", "--write", "mine.toml")
    assert code == 0, err
    settings = ["--set", "width=4", "--set", "pretrain_epochs=1", "--set", "meta_epochs=0"]
    code, _, err = shell.call("train", "shop", "log.csv", "--schema", "mine.toml", *settings)
    assert code == 0, err
    assert "newcomer: column 'genres':" in err
    assert "Traceback" not in err


def test_most_events_are_learned_from_and_the_share_is_said(tmp_path: Path) -> None:
    """`inspect` proposed old items above 200 events, which left 17 % of a real log to learn from, without a word."""
    events = np.array([900] * 20 + [150] * 600 + [30] * 200)
    stream = propose_stream(events)
    assert training_share(events, 200) < 0.2
    assert training_share(events, stream["min_old_events"]) > 0.5
    found = propose_of(events[::40], tmp_path)
    assert found.training_share == training_share(events[::40], found.stream["min_old_events"])


def propose_of(events: Any, folder: Path) -> Any:
    rows = [
        (f"i{n}", f"u{k % 9}", (k * 7 + n) // 3 % 2, k * 50 + n) for n, count in enumerate(events) for k in range(count)
    ]
    pl.DataFrame(rows, schema=["item", "user", "click", "time"], orient="row").write_csv(folder / "events.csv")
    return propose(folder / "events.csv")
