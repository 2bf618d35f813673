"""The time column: whole numbers as they are, dates as milliseconds since the beginning of 1970 in UTC."""

from typing import Literal

import polars as pl

from newcomer.data.canonical import BLANK
from newcomer.data.io.column_parsing import plain, row_of
from newcomer.errors import DataError

CLOCK = (
    r"(?:[T ]\s*(?<hour>\d{1,2}):(?<minute>[0-5]\d)(?::(?<second>[0-5]\d)(?:[.,](?<part>\d+))?)?\s*(?<half>[AaPp][Mm])?)?"
    r"\s*(?<zone>Z|z|UTC|utc|GMT|gmt|[+-](?:0?\d|1\d|2[0-3])(?::?[0-5]\d)?)?$"
)
"""A time of day of 24 hours, or of 12 with AM and PM, and how far its clock is ahead of UTC."""

YEAR_FIRST = r"^(?<year>\d{4})(?:-(?<m1>\d{1,2})-(?<d1>\d{1,2})|/(?<m2>\d{1,2})/(?<d2>\d{1,2}))" + CLOCK
"""A date, or a date and a time of day, of ISO 8601 and as it is often written: a blank for the T, one digit of an hour."""

YEAR_LAST = r"^(?<one>\d{1,2})[-/.](?<other>\d{1,2})[-/.](?<year>\d{4})" + CLOCK
"""The same with the day or the month first: which of the two, its writer knows."""

Order = Literal["day-first", "month-first"]

DAY, HOUR, MINUTE, SECOND = 86_400_000, 3_600_000, 60_000, 1_000
"""In milliseconds."""

DATED = "dated "
"""Name of whether times were dates."""

FRACTION = "fraction "
"""Name of what is left of times after the whole number."""


def moments(given: pl.Series, where: str, order: Order | None = None) -> pl.Series:
    """The times as whole numbers.

    Numbers stay what they are; what is left of them is in `fractions`. Dates are polars' own, ISO 8601, or 12/31/2024 and the
    like in a given `order` of day and month; without a zone they are taken as UTC.

    >>> moments(pl.Series("seen", ["1970-01-02", "1970-01-01 1:00:00.5 +01"]), "a.csv").to_list()
    [86400000, 500]
    >>> moments(pl.Series("seen", ["2/1/1970 0:00"]), "a.csv", "day-first").to_list()
    [86400000]

    Raises DataError, with row and value, for what is neither, and where numbers and dates are mixed.
    """
    return times(pl.DataFrame([given]), given.name, where, order)[0]


def times(frame: pl.DataFrame, column: str, where: str, order: Order | None = None) -> tuple[pl.Series, pl.Series]:
    """The times in this column as whole numbers, and what is left of each after it, in the same unit.

    Raises DataError as `moments` does.
    """
    given = plain(frame[column], where, frame)
    if given.dtype.is_nested():
        raise DataError(
            f"{where}: time '{given.name}' holds {str(given.dtype).lower()}; write one number or date a row"
        )
    if given.dtype == pl.String:
        given = given.str.strip_chars(BLANK)
    found, left = _dates(given, order) if are_dates(given) else _numbers(given)
    if found.null_count():
        raise _none(frame, given, found, where, order)
    return found, left.fill_null(0.0).alias(FRACTION)


def are_dates(given: pl.Series) -> bool:
    """Whether the column says when by dates rather than by numbers; of text the first value tells.

    >>> are_dates(pl.Series(["2024-01-31 08:30"])), are_dates(pl.Series(["1700000000"]))
    (True, False)
    """
    if given.dtype in (pl.Date, pl.Datetime):
        return True
    if given.dtype in (pl.Categorical, pl.Enum):
        return are_dates(given.cast(pl.String))
    if given.dtype != pl.String:
        return False
    first = given.str.strip_chars(BLANK).drop_nulls().head(1)
    return bool((first.str.contains(YEAR_FIRST) | first.str.contains(YEAR_LAST)).any())


def order_of(given: pl.Series) -> Order | None:
    """The order of day and month where some dates can only be meant in one; None where all or none can be meant in both.

    >>> order_of(pl.Series(["2/1/2024", "13/1/2024"])), order_of(pl.Series(["2/1/2024"]))
    ('day-first', None)
    """
    if given.dtype != pl.String:
        return None
    parts = given.str.strip_chars(BLANK).str.extract_groups(YEAR_LAST).struct
    one, other = (parts.field(name).cast(pl.Int64, strict=False).max() for name in ("one", "other"))
    late = [n is not None and n > 12 for n in (one, other)]  # type: ignore[operator]
    return None if late[0] == late[1] else "day-first" if late[0] else "month-first"


def _none(frame: pl.DataFrame, given: pl.Series, found: pl.Series, where: str, order: Order | None) -> DataError:
    at, row = int(found.is_null().arg_true()[0]), row_of(frame, found.is_null())
    others = given.filter(found.is_not_null()).head(1).cast(pl.String).to_list()
    value = f"{where}: row {row}, time '{given.name}' is {given[at]!r}"
    if order is None and given.dtype == pl.String and bool(given[at : at + 1].str.contains(YEAR_LAST)[0]):
        return DataError(
            f"{value}, with the day or the month first; "
            "set time_order = 'day-first' or 'month-first' in the schema, or write 2024-12-31 23:59:59"
        )
    return DataError(
        f"{value}{f', others are like {others[0]!r}' if others else ''}; "
        "write a whole number that grows, such as seconds, or a date such as 2024-12-31T23:59:59Z"
    )


def _numbers(given: pl.Series) -> tuple[pl.Series, pl.Series]:
    nothing = pl.Series(FRACTION, [0.0]).new_from_index(0, len(given))
    if given.dtype.is_temporal():
        return pl.Series(given.name, [None], dtype=pl.Int64).new_from_index(0, len(given)), nothing
    whole = given.cast(pl.Int64, strict=False)  # first, for a float holds no nanoseconds
    if given.dtype.is_integer() or (given.dtype == pl.String and not whole.null_count()):
        return whole, nothing
    if given.dtype != pl.String:
        numbers = given.cast(pl.Float64, strict=False)
        if not (numbers != numbers.round()).fill_null(False).any():
            return whole, nothing
        given = numbers.cast(pl.String).alias(
            given.name
        )  # the digits that were meant, as they would be read from a text
    digits = given.str.extract_groups(r"^([+-]?)(\d+)[.](\d+)$").struct
    cut = digits.field("2").cast(pl.Int64, strict=False)
    left = ("0." + digits.field("3")).cast(pl.Float64, strict=False)
    sign = digits.field("1").replace_strict({"-": -1}, default=1, return_dtype=pl.Int64)
    rough = given.cast(pl.Float64, strict=False).fill_nan(None)
    rest = rough.cast(pl.Int64, strict=False)
    found = given.cast(pl.Int64, strict=False).fill_null(cut * sign).fill_null(rest)
    return found, (left * sign).fill_null(rough - rest.cast(pl.Float64))


def _dates(given: pl.Series, order: Order | None) -> tuple[pl.Series, pl.Series]:
    if given.dtype != pl.String:
        if given.dtype == pl.Date:
            found = given.cast(pl.Datetime("ms")).dt.epoch("ms")
            return found, pl.Series(FRACTION, [0.0]).new_from_index(0, len(given))
        finest: Literal["ns", "us"] = "ns" if getattr(given.dtype, "time_unit", "us") == "ns" else "us"
        unit = 1_000_000 if finest == "ns" else 1_000
        found, exact = given.dt.epoch("ms"), given.dt.epoch(finest)
        left = (exact - found * unit).cast(
            pl.Float64
        ).to_numpy() / unit  # polars multiplies by 1 / unit, which is inexact
        return found, pl.Series(FRACTION, left)
    first, last = given.str.extract_groups(YEAR_FIRST).struct, given.str.extract_groups(YEAR_LAST).struct
    month, day = first.field("m1").fill_null(first.field("m2")), first.field("d1").fill_null(first.field("d2"))
    one, other = last.field("one").cast(pl.Int64), last.field("other").cast(pl.Int64)
    earlier, later = (one, other) if order != "month-first" else (other, one)
    if order is None:  # what can be meant in both ways is none of the two, unless they are the same
        swap = (other > 12) & (one <= 12)
        earlier, later = _either(swap, other, one), _either(swap, one, other)
        known = (one > 12) | (other > 12) | (one == other)
        earlier, later = _either(known, earlier, None), _either(known, later, None)
    days = _days(
        first.field("year").fill_null(last.field("year")),
        month.cast(pl.Int64).fill_null(later),
        day.cast(pl.Int64).fill_null(earlier),
    )
    clock = {
        name: first.field(name).fill_null(last.field(name))
        for name in ("hour", "minute", "second", "part", "half", "zone")
    }
    part = clock["part"].fill_null("").str.pad_end(3, "0")
    time = days * DAY + _hours(clock["hour"], clock["half"]) * HOUR + _whole(clock["minute"]) * MINUTE
    time = time + _whole(clock["second"]) * SECOND + part.str.head(3).cast(pl.Int64) - _offset(clock["zone"])
    return time.alias(given.name), ("0." + part.str.slice(3) + "0").cast(pl.Float64)


def _days(year: pl.Series, month: pl.Series, day: pl.Series) -> pl.Series:
    """Days since the beginning of 1970; null for a day that no calendar has."""
    text = year + "-" + month.cast(pl.String).str.zfill(2) + "-" + day.cast(pl.String).str.zfill(2)
    return text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Int32).cast(pl.Int64)


def _hours(hour: pl.Series, half: pl.Series) -> pl.Series:
    """Of a day of 24; null for an hour that no clock shows."""
    number, after = _whole(hour), half.str.to_lowercase()
    shown = pl.Series(
        "hour", number + 12 * (after == "pm").fill_null(False).cast(pl.Int64) - 12 * (number == 12).cast(pl.Int64)
    )
    right = _either(half.is_null(), number <= 23, (number >= 1) & (number <= 12))
    return _either(right, _either(half.is_null(), number, shown), None)


def _offset(zone: pl.Series) -> pl.Series:
    """Milliseconds that clocks there are ahead of UTC."""
    parts = zone.str.extract_groups(r"^([+-])(\d{1,2}):?(\d{2})?$").struct
    ahead = _whole(parts.field("2")) * HOUR + _whole(parts.field("3")) * MINUTE
    return ahead * zone.str.starts_with("-").fill_null(False).replace_strict({True: -1, False: 1})


def _whole(digits: pl.Series) -> pl.Series:
    return digits.cast(pl.Int64, strict=False).fill_null(0)


def _either(condition: pl.Series, yes: pl.Series, no: pl.Series | None) -> pl.Series:
    return pl.select(pl.when(condition).then(yes).otherwise(no)).to_series()
