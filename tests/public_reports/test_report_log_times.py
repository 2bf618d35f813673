"""Times as people write them, to the fraction of a second."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newcomer.data.click_log import ClickLog
from newcomer.data.inference.schema import propose
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.frames import as_frame
from newcomer.data.io.log_reader import log_from_rows, read_log
from newcomer.data.io.log_statistics import LogStatistics
from newcomer.data.io.shuffle import latest_events
from newcomer.data.io.timestamps import infer_date_order, parse_timestamps
from newcomer.data.schema import Schema
from newcomer.errors import DataError, DataWarning

DAY = datetime(2019, 10, 1, tzinfo=UTC)


def log(times: Any, order: Any = None) -> ClickLog:
    count = len(times)
    rows = {"i": ["a"] * count, "u": [1] * count, "label": [0] * count, "time": times}
    return log_from_rows(Schema("i", "u", time_order=order), **rows)


def milliseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


@pytest.mark.parametrize(
    "text",
    [
        "2019-10-01 00:00:00 UTC",
        "2019-10-01 00:00:00 GMT",
        "2019-10-01 00:00:00+00",
        "2019-10-01 00:00:00 +0000",
        "2019-10-01T02:00:00+02",
        "2019-10-01T02:00+2:00",
        "2019-10-01 0:00:00",
        "2019-10-1",
        "2019/10/01 00:00",
        " 2019-10-01 00:00:00 ",
        "2019-10-01 12:00 AM",
        "1/10/2019 0:00",
        "01.10.2019",
        "1-10-2019 00:00:00.000000",
    ],
)
def test_a_moment_is_read_as_it_is_written(text: str) -> None:
    """Times of public shop logs ('2019-10-01 00:00:00 UTC'), of databases ('+00') and of spreadsheets ('0:00:00')."""
    assert log([text], "day-first").time.tolist() == [milliseconds(DAY)]


def test_day_and_month_are_read_in_the_order_that_is_said() -> None:
    """Online Retail writes 12/1/2010 8:26 for the first of December: a guess would be right for some and wrong for others."""
    text = "12/1/2010 8:26"
    assert log([text], "month-first").time.tolist() == [milliseconds(datetime(2010, 12, 1, 8, 26, tzinfo=UTC))]
    assert log([text], "day-first").time.tolist() == [milliseconds(datetime(2010, 1, 12, 8, 26, tzinfo=UTC))]
    with pytest.raises(
        DataError, match=r"row 2, time 'time' is '12/1/2010 8:26', .* set time_order = 'day-first' or 'month-"
    ):
        log(["13/1/2010 8:26", text])
    with pytest.raises(DataError, match="row 1, time 'time' is '13/1/2010'"):
        log(["13/1/2010"], "month-first")
    assert log(["13/1/2010", "5/5/2010"]).time.tolist() == [
        milliseconds(datetime(2010, month, day, tzinfo=UTC)) for day, month in ((13, 1), (5, 5))
    ]


@pytest.mark.parametrize(
    "text", ["2019-02-30", "2019-13-01", "2019-10-01 24:00", "13:00 PM", "2019-10-01 13:00 PM", "31/2/2019"]
)
def test_what_no_calendar_or_clock_shows_is_refused(text: str) -> None:
    """A date that does not exist is a mistake, not another date."""
    with pytest.raises(DataError, match="row 2, time"):
        log(["2019-10-01", text], "day-first")


@settings(deadline=None)
@given(st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1)), st.sampled_from(["day-first", "month-first"]))
def test_a_spreadsheets_date_comes_back(moment: datetime, order: Any) -> None:
    """Any moment as a spreadsheet writes it."""
    first = (moment.day, moment.month) if order == "day-first" else (moment.month, moment.day)
    text = f"{first[0]}/{first[1]}/{moment.year} {moment.hour}:{moment.minute:02d}"
    read = milliseconds(moment.replace(second=0, microsecond=0, tzinfo=UTC))
    assert parse_timestamps(pl.Series("t", [text]), "", order).to_list() == [read]


@pytest.mark.parametrize(
    "times",
    [
        [1800000000.25, 1800000000.75],
        ["1800000000.25", "1800000000.75"],
        [datetime(2027, 1, 1, 0, 0, 0, 250250), datetime(2027, 1, 1, 0, 0, 0, 250750)],
        ["2027-01-01T00:00:00.25025", "2027-01-01T00:00:00.25075"],
    ],
)
def test_fractions_keep_events_apart(times: list[Any]) -> None:
    """Two clicks within one second, or one millisecond, were one event."""
    found = log(times)
    assert found.fraction is not None
    assert found.fraction.tolist() == [0.25, 0.75]
    assert len(set(found.time.tolist())) == 1
    assert found.take(found.time > 0).fraction_or_zero.tolist() == [0.25, 0.75]


def test_whole_times_have_no_fractions() -> None:
    """Logs in whole seconds are what they always were."""
    for times in ([7, 2**60 + 1], ["7", "8"], [1.0, 2.0], ["2024-01-01T00:00:00.5"], [date(2024, 1, 1)]):
        found = log(times)
        assert found.fraction is None
        assert found.fraction_or_zero.tolist() == [0.0] * len(times)


@settings(deadline=None)
@given(st.integers(0, 4_000_000_000), st.integers(1, 999_999))
def test_a_fraction_is_the_same_as_a_number_and_as_a_text(second: int, micro: int) -> None:
    """The same event comes as a number in JSON and as text in CSV; it must not count twice."""
    text = f"{second}.{micro:06d}".rstrip("0")
    one, other = log([float(text)]), log([text])
    assert (one.time[0], one.fraction_or_zero[0]) == (other.time[0], other.fraction_or_zero[0])


def test_the_latest_events_are_the_latest_to_the_fraction(tmp_path: Path) -> None:
    """Windows of the latest events go by fractions too."""
    rows = {"i": ["a"] * 3, "u": ["1", "2", "3"], "label": [0, 1, 0], "time": ["5.5", "5.75", "5.25"]}
    pl.DataFrame(rows).write_csv(tmp_path / "log.csv")
    found = latest_events(ChunkedLog(tmp_path / "log.csv", Schema("i", "u"), rows=1), ["a"], 2)
    assert [found.users.ids[user] for user in found.user] == ["1", "2"]


def test_the_order_of_day_and_month_is_proposed_where_the_log_shows_it(tmp_path: Path) -> None:
    """A proposal knows the order from days above 12, and asks where there is none."""
    rows = [(f"i{n % 20}", f"u{n % 7}", n // 3 % 2, n) for n in range(200)]
    frame = pl.DataFrame(rows, schema=["item", "user", "click", "n"], orient="row")
    for days, order in ((28, "day-first"), (12, None)):
        when = [f"{1 + n * days // 200}/3/2024 {n % 24}:00" for n in range(200)]
        frame.with_columns(time=pl.Series(when)).write_csv(tmp_path / "log.csv")
        found = propose(tmp_path / "log.csv")
        assert (found.schema.time, found.schema.time_order) == ("time", order)
        assert ("the day is first" if order else "set time_order") in found.reasons["time"]
    assert infer_date_order(pl.Series(["1/13/2024"])) == "month-first"


def test_nanoseconds_are_kept_whatever_holds_them() -> None:
    """Times of pandas with a zone, and times one by one, lost their nanoseconds: two events became one."""
    pandas = pytest.importorskip("pandas")
    plain = pandas.Series(pandas.to_datetime([f"2024-01-01T10:00:00.12345678{digit}" for digit in (9, 8, 0)]))
    zoned = plain.dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
    shown = pl.Series(plain.to_numpy()).dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/Berlin")
    times: Any
    for times in (plain, zoned, list(plain), list(zoned), zoned.astype(object), shown, list(plain.to_numpy())):
        found = log_from_rows(Schema("i", "u"), i=[1, 2, 3], u=[1, 1, 1], label=[0, 1, 0], time=times)
        assert found.time.tolist() == [1704103200123] * 3
        assert found.fraction_or_zero.tolist() == [0.456789, 0.456788, 0.45678]
    coarse = [moment.as_unit("s").to_datetime64() for moment in plain]
    assert parse_timestamps(as_frame({"time": coarse})["time"], "table").to_list() == [1704103200000] * 3


def test_a_training_log_in_two_units_is_refused(tmp_path: Path) -> None:
    """One of a log's files was written in milliseconds: its events came last, by some 50,000 years."""
    for name, time in (("a", 1_600_000_000), ("b", 1_600_000_000_000)):
        rows = [{"item": f"i{n % 3}", "user": n, "click": n % 2, "time": time} for n in range(8)]
        pl.DataFrame(rows).write_csv(tmp_path / f"{name}.csv")
    (tmp_path / "c.csv").write_text("item,user,click,time\ni0,1,0,0\n")  # a sentinel does not make one clock of the two
    log = read_log(str(tmp_path / "*.csv"), Schema("item", "user", "click", "time"))
    with pytest.raises(DataError, match=r"^time 'time' is in seconds in some rows and in milliseconds in others"):
        LogStatistics(log.schema).add(log)


def test_a_clock_that_runs_from_zero_over_all_ranges_is_one_unit() -> None:
    """Microseconds since a start pass the ranges of seconds and of milliseconds since 1970."""
    times = pl.int_range(0, 4 * 10**12, 10**10, eager=True).to_list()
    assert LogStatistics(log([0]).schema).add(log(times)).rows == len(times)


@pytest.mark.parametrize(("times", "shown"), [([0, -1], "-1"), ([17 * 10**9], "17000000000")])
def test_a_few_times_far_from_all_others_are_said(times: list[int], shown: str) -> None:
    """0 for an unknown time: such events came first, and with them their items were old ones."""
    every = [*range(1_600_000_000, 1_600_000_010), *times]
    statistics = LogStatistics(log([0]).schema).add(log(every))
    message = (
        rf"time 'time': {len(times)} of {len(every)} rows are no seconds since 1970, such as {shown}, first in row 11"
    )
    assert statistics.times is not None
    with pytest.warns(DataWarning, match=message):
        assert statistics.times.unit("time") == "seconds"


def test_a_date_that_stands_for_none_is_said() -> None:
    statistics = LogStatistics(log([0]).schema).add(log(["2020-05-01", "0001-01-01", "2020-05-02"]))
    assert statistics.times is not None
    with pytest.warns(
        DataWarning, match=r"1 of 3 rows are no dates of this age.*0001-01-01T00:00:00.000, first in row 2"
    ):
        assert statistics.times.unit("time") == "dates"


@pytest.mark.parametrize("step", [10**4, 10**7])
def test_a_clock_from_zero_is_not_taken_for_outliers(step: int) -> None:
    """Milliseconds since a start, over some days and over some years."""
    statistics = LogStatistics(log([0]).schema).add(log(list(range(0, 10**5 * step // 10**2, step))))
    assert statistics.times is not None
    assert statistics.times.unit("time") in (None, "plain numbers")
