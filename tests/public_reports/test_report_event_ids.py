"""Event ids: every event counts once, and a click on one that counted as no click corrects it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from films import FILMS, QUICK, SCHEMA, events, features, log, trained
from newcomer.data.io.log_reader import log_from_rows
from newcomer.data.schema import Field, Schema
from newcomer.errors import DataError, DataWarning
from newcomer.items.encoding.encoder import Encoder
from newcomer.items.methods.emerg import EmerG
from newcomer.items.serving.event_ids import digests
from newcomer.items.serving.service import ItemService
from shell import Shell


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("films") / "store")


@pytest.fixture
def live(store: Path, tmp_path: Path) -> Iterator[ItemService]:
    live = ItemService.open(store, f"sqlite:///{tmp_path / 'items.db'}")
    live.add(features("new"))
    yield live
    live.close()


@pytest.mark.parametrize("role", ["item", "user", "context"])
def test_a_column_that_means_something_else_is_no_id_of_events(role: str, tmp_path: Path) -> None:
    """A shop of tickets whose items' own column is called `event_id`: of each item only the first event ever counted."""
    names = {"item": "film", "user": "viewer", "context": "page"}
    column = names[role]
    fields = (Field("genre", "item"), Field("event_id" if role == "context" else "page", "context"))
    schema = Schema(
        "event_id" if role == "item" else "film", "event_id" if role == "user" else "viewer", "liked", "seen", fields
    )
    EmerG(schema, **QUICK).learn(log().rename({column: "event_id"})).save(tmp_path / "store")
    live = ItemService.open(tmp_path / "store")
    table = events("film 1", 30).drop("event_id").rename({column: "event_id"})
    assert live.warm(table).new == 30
    assert live.warm(table).new == 0
    with pytest.raises(DataError, match=rf"column 'event_id' is the schema's .*{role}.*name a column of ids of events"):
        live.warm(table, event_id="event_id")
    live.close()


def labels(live: ItemService, count: int) -> list[int]:
    ids = [f"e{1000 + n}" for n in range(count)]
    found = live.states.labels(live.model, {"new": ids})["new"]
    return [found[id] for id in ids]


def test_a_click_under_the_id_of_an_impression_corrects_it(live: ItemService) -> None:
    """A tracker that sends an impression first, and the click on it later under the same id: the click was dropped silently."""
    shown = events("new", 4).with_columns(liked=pl.lit(0))
    clicked = shown.with_columns(liked=pl.Series([0, 1, 0, 1]), seen=pl.col("seen") + 30)
    assert live.warm(shown).new == 4
    for corrected in (2, 0):  # sent again nothing changes
        done = live.warm(clicked)
        assert (done.new, done.known, done.corrected, done.left_out) == (0, 4 - corrected, corrected, [])
    assert labels(live, 4) == [0, 1, 0, 1]
    assert live.look_up("new")[0].events == 4


def test_a_click_stays_one_whatever_comes_after_it(live: ItemService) -> None:
    """The tracker's impressions arrive after the clicks."""
    clicked = events("new", 4).with_columns(liked=pl.lit(1))
    assert live.warm(clicked).new == 4
    done = live.warm(clicked.with_columns(liked=pl.lit(0)))
    assert (done.new, done.known, done.corrected, done.left_out) == (0, 4, 0, [])
    assert labels(live, 4) == [1] * 4


@pytest.mark.parametrize("reverse", [False, True])
def test_both_in_one_table_are_one_click(reverse: bool, live: ItemService) -> None:
    """The same where the tracker sends both in one file."""
    shown = events("new", 3).with_columns(liked=pl.lit(0))
    both = pl.concat([shown, shown.head(1).with_columns(liked=pl.lit(1)), shown.tail(1)])
    done = live.warm(both.reverse() if reverse else both)
    assert (done.new, done.known, done.corrected) == (3, 2, 0)
    assert labels(live, 3) == [1, 0, 0]
    done = live.warm(both)
    assert (done.new, done.known, done.corrected) == (0, 5, 0)


@pytest.mark.parametrize("column", ["viewer", "page", "price"])
def test_a_click_with_other_values_is_another_event_and_is_refused(column: str, live: ItemService) -> None:
    """Two programs that number their events from 1: a click would have corrected somebody else's impression."""
    shown = events("new", 2).with_columns(liked=pl.lit(0))
    other = {"viewer": 5, "page": "list", "price": 0.25}[column]
    clicked = shown.with_columns(pl.lit(other).alias(column), liked=pl.lit(1))
    refused = r"row 1: event 'e1000' of item 'new' has another user or context than an event under this id had before; give it"
    for table in (pl.concat([shown, clicked]), clicked):
        live.warm(shown)
        before = live.look_up("new")[0]
        with pytest.raises(DataError, match=refused.replace("row 1", r"row \d")):
            live.warm(table)
        done = live.warm(table, on_error="report")
        assert (done.new, done.corrected, len(done.left_out)) == (0, 0, 2)
        assert live.look_up("new")[0] == before


def test_a_grade_is_not_taken_back(tmp_path: Path) -> None:
    """Stars under one id: five, then one. That is no impression of what was clicked."""
    schema = replace(SCHEMA, clicked_from=4)
    stars = log().with_columns(liked=1 + 4 * pl.col("liked"))
    EmerG(schema, **QUICK).learn(stars).save(tmp_path / "store")
    with ItemService.open(tmp_path / "store") as live:
        table = events("film 1", 6).with_columns(liked=pl.Series([5, 1, 3, 4, 5, 2]))
        assert live.warm(table).new == 6
        done = live.warm(table.with_columns(liked=pl.Series([1, 5, 2, 5, 5, 2])), on_error="report")
        assert (done.new, done.known, done.corrected) == (0, 4, 1)
        assert done.left_out == [
            "row 1: event 'e1000' of item 'film 1' is no click here, and has counted as a click, which cannot be taken back"
        ]


@pytest.mark.parametrize("settings", [{"adaptation": "adam"}, {"warmup_events": "new"}])
def test_a_model_that_cannot_go_back_refuses_corrections(settings: dict[str, Any], tmp_path: Path) -> None:
    with ItemService.open(trained(tmp_path / "store", **settings)) as live:
        shown = events("film 1", 3).with_columns(liked=pl.lit(0))
        live.warm(shown)
        before = live.look_up("film 1")[0]
        done = live.warm(shown.with_columns(liked=pl.lit(1)), on_error="report")
        assert (done.new, done.known, done.corrected, len(done.left_out)) == (0, 0, 0, 3)
        assert done.left_out[0].startswith(
            "row 1: event 'e1000' of item 'film 1' is a click here, and has counted as no click; this model cannot correct"
        )
        assert live.look_up("film 1")[0] == before


def test_ids_are_of_one_item_each(live: ItemService) -> None:
    """An id that stands beside two items is two events."""
    assert live.warm(pl.concat([events("new", 3), events("film 1", 3)])).new == 6


@pytest.mark.parametrize("ids", [[1, 2, 3], [1.0, 2.0, 3.0], ["1", " 2", "3.0"]])
def test_ids_are_the_same_however_they_are_written(ids: list[object], live: ItemService) -> None:
    """tfx #819: a pandas column with a gap makes floats of whole numbers; events sent again counted again."""
    table = events("new", 3)
    assert live.warm(table.with_columns(event_id=pl.Series(["1", "2", "3"]))).new == 3
    assert live.warm(table.with_columns(event_id=pl.Series(ids))).known == 3


def timed(folder: Path, begin: float) -> ItemService:
    """A model whose events are numbered from here."""
    EmerG(SCHEMA, **QUICK).learn(log().with_columns(pl.col("seen") + begin)).save(folder / "store")
    live = ItemService.open(folder / "store")
    live.add(features("new"))
    return live


def test_two_moments_of_one_second_are_two_events(tmp_path: Path) -> None:
    """Two clicks of one user within a second, told apart by the fractions of their times alone."""
    live = timed(tmp_path, 1.7e9)
    alike = events("new", 2).drop("event_id").with_columns(liked=pl.lit(1))
    for times in ([1.8e9 + 0.25, 1.8e9 + 0.75], ["2027-01-01T00:00:00.2501", "2027-01-01T00:00:00.2502"]):
        table = alike.with_columns(seen=pl.Series(times))
        assert live.warm(table).new == 2
        assert live.warm(table).new == 0


def test_the_command_reports_what_was_corrected(store: Path, shell: Shell) -> None:
    """The tracker's two files on the command line."""
    url = f"sqlite:///{shell.folder / 'items.db'}"
    shown = events(FILMS[2], 3).with_columns(liked=pl.lit(0))
    shown.write_csv(shell.folder / "shown.csv")
    shown.with_columns(liked=pl.lit(1)).write_csv(shell.folder / "clicked.csv")
    assert "3 new events of 1 item," in shell.call("warm", str(store), "shown.csv", "--states", url)[1]
    code, out, err = shell.call("warm", str(store), "clicked.csv", "--states", url)
    assert (code, err) == (0, "")
    assert "0 new events of 1 item, 0 known already, 3 clicks on what had counted as no click" in out
    result = json.loads(shell.call("warm", str(store), "clicked.csv", "--states", url, "--json")[1])
    assert (result["new"], result["known"], result["corrected"], result["left_out"]) == (0, 3, 0, [])


def test_a_number_is_one_however_many_bits_it_has(live: ItemService) -> None:
    """Prices came as floats of 64 bits from one program and of 32 from another: the events counted twice."""
    table = events("new", 4, price=[0.1, 2.5, 16777217.0, 1e-40]).drop("event_id")
    assert live.warm(table).new == 4
    short = table.with_columns(pl.col("price").cast(pl.Float32))[[0, 1, 3]]
    spelled = table.with_columns(pl.Series("price", ["0.10000000149", "2.50", "16777217", "1e-40"]))
    assert [live.warm(again).new for again in (short, spelled, table)] == [0, 0, 0]


def test_numbers_of_few_digits_are_called_what_they_were() -> None:
    """An event that an older version has counted does not count again."""
    schema = Schema("i", "u", "liked", "seen", (Field("price", "context", "numeric"),))
    made = log_from_rows(schema, i=["a"] * 3, u=["b"] * 3, liked=[1] * 3, seen=[1] * 3, price=[0.1, 19.99, 1234.5])
    result = [["a", "b", 1, 1, {"price": price}] for price in (0.1, 19.99, 1234.5)]
    assert digests(made) == [hashlib.sha256(json.dumps(row).encode()).hexdigest()[:32] for row in result]


SPELLED: list[list[Any]] = [
    [1700000000.123, 1700000001],
    ["1700000000.123", "1700000001.0"],
    [1700000000123, 1700000001000],
    [1700000000123000, 1700000001000000],
    [1700000000123000000, 1700000001000000000],
    ["2023-11-14T22:13:20.123Z", "2023-11-14 23:13:21 +01"],
    [datetime(2023, 11, 14, 22, 13, 20, 123000), datetime(2023, 11, 14, 22, 13, 21)],
]
"""Two moments in the clocks that programs have; their first in milliseconds has no fraction."""


@pytest.mark.parametrize("begin", [1.7e9, 1.7e12, 1.7e15, 1.7e18])
def test_an_event_counts_once_whatever_clock_its_time_comes_from(begin: float, tmp_path: Path) -> None:
    """A service sent 1700000000, and its replay 2023-11-14T22:13:20Z: every event counted twice."""
    live, alike = timed(tmp_path, begin), events("new", 2).drop("event_id")
    counted = [live.warm(alike.with_columns(pl.Series("seen", times, strict=False))).new for times in SPELLED]
    assert counted == [2, *[0] * 6]
    mixed = alike.with_columns(pl.Series("seen", ["1700000000123", "1700000001"]))
    assert live.warm(mixed).known == 2  # each row by itself
    live.close()


def test_an_event_of_a_model_of_dates_counts_once(tmp_path: Path) -> None:
    """The same of a model whose own events had dates; a number that is no moment is refused by its row."""
    dates = (pl.col("seen").cast(pl.Int64) + 1_600_000_000_000).cast(pl.Datetime("ms"))
    EmerG(SCHEMA, **QUICK).learn(log().with_columns(dates)).save(tmp_path / "store")
    live, alike = ItemService.open(tmp_path / "store"), events("film 1", 2)
    bare = alike.drop("event_id")
    assert [live.warm(bare.with_columns(pl.Series("seen", times, strict=False))).new for times in SPELLED] == [
        2,
        *[0] * 6,
    ]
    number = bare.with_columns(pl.Series("seen", [1700000000.123, 7]))
    with pytest.raises(
        DataError, match=r"row 2, time 'seen' is 7, but training had dates: .*; write dates, or give every"
    ):
        live.warm(number)
    done = live.warm(number, on_error="report")
    assert (done.new, done.known, len(done.left_out)) == (0, 1, 1)
    with pytest.warns(
        DataWarning, match=r"row 1, time 'seen' is \d+, and 2 of 2 events are like it, but training had dates: they"
    ):
        assert live.warm(alike).new == 2  # ids of their own tell events apart
    live.close()


def test_dates_for_a_model_of_plain_numbers_are_refused_by_row(live: ItemService, store: Path) -> None:
    """No rule makes 2024 of the numbers from 0 on; a store that does not say what it counted in takes both."""
    dated = events("new", 2).with_columns(seen=pl.lit("2024-05-01 00:00:00"))
    message = (
        "row 1, time 'seen' is 2024-05-01T00:00:00.000, but training had plain numbers: .*write numbers of the same"
    )
    with pytest.raises(DataError, match=message):
        live.warm(dated.drop("event_id"))
    with pytest.warns(
        DataWarning, match=r"row 1, time 'seen' is 2024-05-01T00:00:00.000, and .* but training had plain numbers"
    ):
        assert live.warm(dated).new == 2
    live.learner.encoder = Encoder.from_json(
        live.learner.schema, [part for part in live.learner.encoder.to_json() if "clock" not in part]
    )
    assert live.learner.encoder.clock is None
    assert live.warm(dated.drop("event_id")[:1]).new == 1


@pytest.mark.parametrize("time", [20200924, 44100.5, -1.0, 0, 16e9, 1.7e10])
def test_a_time_that_no_clock_shows_is_refused_by_row(time: float, tmp_path: Path) -> None:
    """A day as a number (20200924), a spreadsheet's serial number (44100.5), a sentinel (0, -1), a digit too many: they counted."""
    live, alike = timed(tmp_path, 1.7e9), events("new", 3, start=1_700_000_000).drop("event_id")
    wrong = alike.with_columns(seen=pl.Series([1.7e9, time, 1.7e9 + 1]))
    with pytest.raises(
        DataError, match=r"row 2, time 'seen' is .*, but training had seconds since 1970: .*write seconds or dates"
    ):
        live.warm(wrong)
    done = live.warm(wrong, on_error="report")
    assert (done.new, len(done.left_out)) == (2, 1)
    assert "row 2, time 'seen'" in done.left_out[0]
    live.close()


def test_truth_values_are_no_times(live: ItemService) -> None:
    """True counted as an event of time 1."""
    with pytest.raises(DataError, match=r"time 'seen' holds true and false"):
        live.warm(events("new", 2).with_columns(seen=pl.lit(True)))


@pytest.mark.parametrize("begin", [1.7e9, 1.7e12])
def test_dates_and_numbers_of_one_call_are_read_row_by_row(begin: float, tmp_path: Path) -> None:
    """Two clients wrote times in two ways: the whole call was refused, and not the row that has no time."""
    live, alike = timed(tmp_path, begin), events("new", 4).drop("event_id")
    seen = ["1700000000", "2023-11-14T22:13:21.5Z", "soon", 1700000002]
    rows = [row | {"seen": time} for row, time in zip(alike.drop("seen").to_dicts(), seen, strict=True)]
    done = live.warm(rows, on_error="report")
    assert (done.new, len(done.left_out)) == (3, 1)
    assert "row 3, time 'seen' is 'soon'" in done.left_out[0]
    numbers = [1700000000000, 1700000001500, 1700000002000]
    assert live.warm(alike[[0, 1, 3]].with_columns(pl.Series("seen", numbers))).known == 3
    live.close()
