"""Parsing of the time column: numbers are kept, dates become milliseconds since 1970 in UTC."""

from typing import Literal

import polars as pl

from newcomer.data.canonical import BLANK
from newcomer.data.io.column_parsing import row_number, scalar_values
from newcomer.errors import DataError

TIME_OF_DAY = (
    r"(?:[T ]\s*(?<hour>\d{1,2}):(?<minute>[0-5]\d)(?::(?<second>[0-5]\d)(?:[.,](?<part>\d+))?)?\s*(?<half>[AaPp][Mm])?)?"
    r"\s*(?<zone>Z|z|UTC|utc|GMT|gmt|[+-](?:0?\d|1\d|2[0-3])(?::?[0-5]\d)?)?$"
)
"""Time of day on a 24-hour or 12-hour (AM/PM) clock, and its UTC offset."""

YEAR_FIRST = r"^(?<year>\d{4})(?:-(?<m1>\d{1,2})-(?<d1>\d{1,2})|/(?<m2>\d{1,2})/(?<d2>\d{1,2}))" + TIME_OF_DAY
"""ISO 8601 date or datetime, also with a blank instead of T and one-digit hours."""

YEAR_LAST = r"^(?<one>\d{1,2})[-/.](?<other>\d{1,2})[-/.](?<year>\d{4})" + TIME_OF_DAY
"""Date or datetime with the day or the month first, which is ambiguous."""

DateOrder = Literal["day-first", "month-first"]

DAY, HOUR, MINUTE, SECOND = 86_400_000, 3_600_000, 60_000, 1_000
"""Milliseconds."""

DATED = "dated "
"""Column: whether the times were dates."""

FRACTION = "fraction "
"""Column: fractional part of the times."""


def parse_timestamps(given: pl.Series, where: str, order: DateOrder | None = None) -> pl.Series:
    """Parse times to integers.

    Numbers are truncated; `parse_time_column` also returns their fractional part. Dates are polars dates, ISO 8601, or like
    12/31/2024 in a given `order` of day and month; without a time zone they are UTC.

    >>> parse_timestamps(pl.Series("seen", ["1970-01-02", "1970-01-01 1:00:00.5 +01"]), "a.csv").to_list()
    [86400000, 500]
    >>> parse_timestamps(pl.Series("seen", ["2/1/1970 0:00"]), "a.csv", "day-first").to_list()
    [86400000]

    Raises DataError, with row and value, for other values, and for a mix of numbers and dates.
    """
    return parse_time_column(pl.DataFrame([given]), given.name, where, order)[0]


def parse_time_column(
    frame: pl.DataFrame, column: str, where: str, order: DateOrder | None = None
) -> tuple[pl.Series, pl.Series]:
    """Times of a column as integers, and their fractional parts in the same unit.

    Raises DataError as `parse_timestamps` does.
    """
    given = scalar_values(frame, column, where, "time")
    if given.dtype.is_nested():
        raise DataError(
            f"{where}: time '{given.name}' holds {str(given.dtype).lower()}; write one number or date per row"
        )
    if given.dtype == pl.Boolean:
        raise DataError(f"{where}: time '{given.name}' holds true and false; write one number or date per row")
    if given.dtype == pl.String:
        given = given.str.strip_chars(BLANK)
    found, left = _dates(given, order) if are_dates(given) else _numbers(given)
    if found.null_count():
        raise _invalid_time(frame, given, found, where, order)
    return found, left.fill_null(0.0).alias(FRACTION)


def are_dates(given: pl.Series) -> bool:
    """Whether the column holds dates rather than numbers; text is judged by its first value.

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


def dates_as_numbers(given: pl.Series, order: DateOrder | None = None) -> pl.Series:
    """Dates among numbers as milliseconds since 1970 in text; a column of one kind as it is.

    >>> dates_as_numbers(pl.Series("seen", ["1700000000", "1970-01-02 00:00:00.0005"])).to_list()
    ['1700000000', '86400000.5']
    """
    dated = dates_among_numbers(given)
    if not dated.any():
        return given
    texts = given.str.strip_chars(BLANK)
    found, left = _dates(texts, order)
    numbers = found.cast(pl.String) + left.cast(pl.String).str.strip_prefix("0").replace(".0", "")
    return _where(dated & numbers.is_not_null(), numbers, given).alias(given.name)


def dates_among_numbers(given: pl.Series) -> pl.Series:
    """Which values are dates, in a column of text that holds both; in one of a single kind none.

    >>> dates_among_numbers(pl.Series(["1700000000", "1970-01-02"])).to_list()
    [False, True]
    >>> dates_among_numbers(pl.Series(["1970-01-02"])).to_list()
    [False]
    """
    none = pl.Series([False]).new_from_index(0, len(given))
    if given.dtype != pl.String:
        return none
    texts = given.str.strip_chars(BLANK)
    dated = (texts.str.contains(YEAR_FIRST) | texts.str.contains(YEAR_LAST)).fill_null(False)
    return none if dated.all() else dated


def infer_date_order(given: pl.Series) -> DateOrder | None:
    """Order of day and month if some dates have only one reading; None if all or none are ambiguous.

    >>> infer_date_order(pl.Series(["2/1/2024", "13/1/2024"])), infer_date_order(pl.Series(["2/1/2024"]))
    ('day-first', None)
    """
    if given.dtype != pl.String:
        return None
    parts = given.str.strip_chars(BLANK).str.extract_groups(YEAR_LAST).struct
    one, other = (parts.field(name).cast(pl.Int64, strict=False).max() for name in ("one", "other"))
    late = [n is not None and n > 12 for n in (one, other)]  # type: ignore[operator]
    return None if late[0] == late[1] else "day-first" if late[0] else "month-first"


def _invalid_time(
    frame: pl.DataFrame, given: pl.Series, found: pl.Series, where: str, order: DateOrder | None
) -> DataError:
    at, row = int(found.is_null().arg_true()[0]), row_number(frame, found.is_null())
    others = given.filter(found.is_not_null()).head(1).cast(pl.String).to_list()
    is_empty = given[at] is None or (given.dtype == pl.String and not given[at])
    value = f"{where}: row {row}, time '{given.name}' is {'empty' if is_empty else repr(given[at])}"
    if order is None and given.dtype == pl.String and bool(given[at : at + 1].str.contains(YEAR_LAST)[0]):
        return DataError(
            f"{value}, with the day or the month first; "
            "set time_order = 'day-first' or 'month-first' in the schema, or write 2024-12-31 23:59:59"
        )
    return DataError(
        f"{value}{f', other values are like {others[0]!r}' if others else ''}; "
        "write an increasing integer such as seconds, or a date such as 2024-12-31T23:59:59Z"
    )


def _numbers(given: pl.Series) -> tuple[pl.Series, pl.Series]:
    nothing = pl.Series(FRACTION, [0.0]).new_from_index(0, len(given))
    if given.dtype.is_temporal():
        return pl.Series(given.name, [None], dtype=pl.Int64).new_from_index(0, len(given)), nothing
    whole = given.cast(pl.Int64, strict=False)  # first: a float64 cannot hold nanoseconds
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


def _dates(given: pl.Series, order: DateOrder | None) -> tuple[pl.Series, pl.Series]:
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
        earlier, later = _where(swap, other, one), _where(swap, one, other)
        known = (one > 12) | (other > 12) | (one == other)
        earlier, later = _where(known, earlier, None), _where(known, later, None)
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
    """Days since 1970-01-01; null for an invalid date."""
    text = year + "-" + month.cast(pl.String).str.zfill(2) + "-" + day.cast(pl.String).str.zfill(2)
    return text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Int32).cast(pl.Int64)


def _hours(hour: pl.Series, half: pl.Series) -> pl.Series:
    """Hour on a 24-hour clock; null for an invalid hour."""
    number, after = _whole(hour), half.str.to_lowercase()
    shown = pl.Series(
        "hour", number + 12 * (after == "pm").fill_null(False).cast(pl.Int64) - 12 * (number == 12).cast(pl.Int64)
    )
    right = _where(half.is_null(), number <= 23, (number >= 1) & (number <= 12))
    return _where(right, _where(half.is_null(), number, shown), None)


def _offset(zone: pl.Series) -> pl.Series:
    """UTC offset in milliseconds."""
    parts = zone.str.extract_groups(r"^([+-])(\d{1,2}):?(\d{2})?$").struct
    ahead = _whole(parts.field("2")) * HOUR + _whole(parts.field("3")) * MINUTE
    return ahead * zone.str.starts_with("-").fill_null(False).replace_strict({True: -1, False: 1})


def _whole(digits: pl.Series) -> pl.Series:
    return digits.cast(pl.Int64, strict=False).fill_null(0)


def _where(condition: pl.Series, yes: pl.Series, no: pl.Series | None) -> pl.Series:
    return pl.select(pl.when(condition).then(yes).otherwise(no)).to_series()
