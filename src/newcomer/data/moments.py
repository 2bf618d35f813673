"""The time column: whole numbers as they are, dates as milliseconds since the beginning of 1970 in UTC."""

import polars as pl

from newcomer.errors import DataError

ISO = (
    r"^\s*(?<day>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?<hour>[01]\d|2[0-3]):(?<minute>[0-5]\d)(?::(?<second>[0-5]\d)(?:[.,](?<part>\d{1,9}))?)?)?"
    r"\s*(?<zone>Z|z|[+-](?:[01]\d|2[0-3]):?[0-5]\d)?\s*$"
)
"""A date, or a date and a time of day, of ISO 8601; a blank may stand for the T."""

DAY, HOUR, MINUTE, SECOND = 86_400_000, 3_600_000, 60_000, 1_000
"""In milliseconds."""


def moments(given: pl.Series, where: str) -> pl.Series:
    """The times as whole numbers.

    Numbers stay what they are, fractions dropped. Dates are polars' own or ISO 8601; without a zone they are taken as UTC.

    >>> moments(pl.Series("seen", ["1970-01-02", "1970-01-01T01:00:00.5+01:00"]), "a.csv").to_list()
    [86400000, 500]

    Raises DataError, with row and value, for what is neither, and where numbers and dates are mixed.
    """
    if given.dtype.is_nested():
        raise DataError(
            f"{where}: time '{given.name}' holds {str(given.dtype).lower()}; write one number or date a row"
        )
    times = _dates(given) if are_dates(given) else _numbers(given)
    if times.null_count():
        row = int(times.is_null().arg_true()[0])
        others = given.filter(times.is_not_null()).head(1).cast(pl.String).to_list()
        raise DataError(
            f"{where}: row {row + 1}, time '{given.name}' is {given[row]!r}{f', others are like {others[0]!r}' if others else ''}; "
            "write a whole number that grows, such as seconds, or a date such as 2024-12-31T23:59:59Z"
        )
    return times


def are_dates(given: pl.Series) -> bool:
    """Whether the column says when by dates rather than by numbers; of text the first value tells.

    >>> are_dates(pl.Series(["2024-01-31 08:30"])), are_dates(pl.Series(["1700000000"]))
    (True, False)
    """
    if given.dtype in (pl.Date, pl.Datetime):
        return True
    return given.dtype == pl.String and bool(given.drop_nulls().head(1).str.contains(ISO).any())


def _numbers(given: pl.Series) -> pl.Series:
    if given.dtype != pl.String:
        return given.cast(pl.Int64, strict=False)
    whole = given.cast(pl.Int64, strict=False)  # first, for a float holds no nanoseconds
    if not whole.null_count():
        return whole
    return whole.fill_null(given.cast(pl.Float64, strict=False).cast(pl.Int64, strict=False))


def _dates(given: pl.Series) -> pl.Series:
    if given.dtype != pl.String:
        return given.cast(pl.Datetime("ms")).dt.epoch("ms") if given.dtype == pl.Date else given.dt.epoch("ms")
    parts = given.str.extract_groups(ISO).struct
    day = parts.field("day").str.to_date("%Y-%m-%d", strict=False).cast(pl.Int32).cast(pl.Int64) * DAY
    part = parts.field("part").fill_null("").str.pad_end(3, "0").str.head(3).cast(pl.Int64)
    time = day + _whole(parts.field("hour")) * HOUR + _whole(parts.field("minute")) * MINUTE
    return (time + _whole(parts.field("second")) * SECOND + part - _offset(parts.field("zone"))).alias(given.name)


def _offset(zone: pl.Series) -> pl.Series:
    """Milliseconds that clocks there are ahead of UTC."""
    digits = zone.str.replace_all(r"\D", "")
    ahead = _whole(digits.str.head(2)) * HOUR + _whole(digits.str.slice(2)) * MINUTE
    return ahead * zone.str.starts_with("-").fill_null(False).replace_strict({True: -1, False: 1})


def _whole(digits: pl.Series) -> pl.Series:
    return digits.cast(pl.Int64, strict=False).fill_null(0)
