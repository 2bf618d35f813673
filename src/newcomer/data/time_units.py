"""Units of the time column (seconds, …, nanoseconds, dates), inferred from the size of the values, and conversion between them."""

import warnings
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Self

import numpy as np
from numpy.typing import NDArray

from newcomer.data.click_log import ClickLog
from newcomer.data.labels import EPOCHS
from newcomer.errors import DataError, DataWarning

TIME_UNITS = ("plain numbers", "seconds", "milliseconds", "microseconds", "nanoseconds", "dates")
"""Plain numbers are outside the ranges of the others since 1970; so are dates outside the years of `EPOCHS`."""

NUMBERS, DATES = 0, 5

DATED_RANGE = 3
"""Index of the range of `EDGES` that dates, which are milliseconds, are in."""

PER_SECOND = (0, 1, 10**3, 10**6, 10**9, 10**3)
"""Units per second, 0 for plain numbers; dates are milliseconds."""


EDGES = np.array(EPOCHS).ravel()
"""Bounds of the ranges of `EPOCHS`: times at odd indices of `np.searchsorted` are in one of them."""

GAP = 2.0
"""Plain numbers further than this factor from all times since 1970 do not belong to the same clock."""


@dataclass(frozen=True)
class TimeStatistics:
    """Number, lowest and highest of the times in each range of `EDGES`, and the first row there; of plain numbers and epochs apart
    from those of dates."""

    dated: bool
    count: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    row: NDArray[np.int64]

    @classmethod
    def of(cls, log: ClickLog) -> Self:
        ranges = _range_of(log.time)
        count = np.bincount(ranges, minlength=len(EDGES) + 1)
        bounds = np.iinfo(np.int64)
        low, high, row = (np.full(len(count), fill) for fill in (bounds.max, bounds.min, bounds.max))
        np.minimum.at(low, ranges, log.time)
        np.maximum.at(high, ranges, log.time)
        np.minimum.at(row, ranges, log.row)
        return cls(log.has_dates, count, low, high, row)

    def __add__(self, other: Self) -> Self:
        return replace(
            self,
            dated=self.dated or other.dated,
            count=self.count + other.count,
            low=np.minimum(self.low, other.low),
            high=np.maximum(self.high, other.high),
            row=np.minimum(self.row, other.row),
        )

    def unit(self, column: str) -> str | None:
        """The unit of nearly all times; None if there are several.

        Plain numbers in minority and far from all other times are outliers, such as 0 for an unknown time: a DataWarning. Other
        plain numbers among times since 1970 may count something else, such as microseconds from 0 on, over several of these ranges.
        """
        plain, known = self._ranges(plain=True), self._ranges(plain=False)
        if not len(known):
            return None if self.dated else TIME_UNITS[NUMBERS]
        if len(known) > 1 or not self._outliers(plain, int(known[0])):
            return None
        unit = self._names[0]
        if len(plain):
            self._warn(plain, unit, column)
        return unit

    def require_one_unit(self, column: str) -> None:
        """Raises DataError for several units since 1970, unless plain numbers lie between them, as with one clock from 0 on."""
        plain, known, names = self._ranges(plain=True), self._ranges(plain=False), self._names
        if len(names) > 1 and not ((plain > known[0]) & (plain < known[-1])).any():
            raise DataError(
                f"time '{column}' is in {names[0]} in some rows and in {names[1]} in others; write one unit"
            )

    @property
    def _names(self) -> list[str]:
        """Units of the times since 1970."""
        return [TIME_UNITS[DATES if self.dated else (n + 1) // 2] for n in self._ranges(plain=False).tolist()]

    def _ranges(self, *, plain: bool) -> NDArray[np.int64]:
        """Ranges with times, of plain numbers or of the others."""
        ranges = np.arange(len(self.count))
        is_plain = ranges != DATED_RANGE if self.dated else ranges % 2 == 0
        return np.flatnonzero((is_plain == plain) & (self.count > 0))

    def _outliers(self, plain: NDArray[np.int64], known: int) -> bool:
        """Whether all plain numbers are far from the times in range `known`, and fewer."""
        below, above = self.high[plain] < self.low[known] / GAP, self.low[plain] > self.high[known] * GAP
        return bool((below | above).all() and self.count[plain].sum() < self.count[known])

    def _warn(self, outliers: NDArray[np.int64], unit: str, column: str) -> None:
        first = outliers[np.argmin(self.row[outliers])]
        shown, wanted = _shown(int(self.low[first]), self.dated), _training_unit(unit) + " of this age" * self.dated
        warnings.warn(
            f"time '{column}': {self.count[outliers].sum():,} of {self.count.sum():,} rows are no {wanted}, such as {shown}, first "
            f"in row {self.row[first] + 1}; they are ordered before or after all others: correct them, or leave them out",
            DataWarning,
            stacklevel=3,
        )


def time_units_of(log: ClickLog) -> NDArray[np.int8]:
    """Index into `TIME_UNITS` of each row."""
    ranges = _range_of(log.time)
    units = np.where(ranges % 2, (ranges + 1) // 2, NUMBERS)
    if log.has_dates:
        units = np.where(ranges == DATED_RANGE, DATES, NUMBERS)
    return units.astype(np.int8)


def to_time_unit(log: ClickLog, unit: str | None) -> ClickLog:
    """Convert the times to a unit, exactly; times whose unit is unknown stay as they are.

    >>> from newcomer.data.io.log_reader import log_from_rows
    >>> from newcomer.data.schema import Schema
    >>> log = log_from_rows(Schema("film", "viewer"), film=["b"], viewer=[7], label=[0], time=["2023-11-14T22:13:20.5Z"])
    >>> seconds = to_time_unit(log, "seconds")
    >>> seconds.time.tolist(), seconds.fraction_or_zero.tolist()
    ([1700000000], [0.5])
    """
    if unit is None or not (target := PER_SECOND[TIME_UNITS.index(unit)]):
        return log
    source = np.array(PER_SECOND)[time_units_of(log)]
    time, fraction = log.time.copy(), log.fraction_or_zero.copy()
    for row in np.flatnonzero((source != 0) & (source != target)).tolist():
        exact = (int(time[row]) + Fraction(repr(float(fraction[row])))) * Fraction(target, int(source[row]))
        if abs(exact) < 2**63:
            time[row], fraction[row] = int(exact), float(exact - int(exact))
    return replace(log, time=time, fraction=fraction if fraction.any() else None)


def require_time_unit(log: ClickLog, unit: str | None, where: str) -> None:
    """Raises DataError, with the row, for a time that cannot be converted to the unit of training; see `_other_unit`."""
    wrong = _other_unit(log, unit)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        shown = _shown(int(log.time[row]), log.has_dates)
        raise DataError(
            f"{where}: row {log.row[row] + 1}, time '{log.schema.time}' is {shown}, but training had {_training_unit(unit)}: "
            f"whether the event was counted before is unknown; write {_wanted(unit)}, or give every event an id"
        )


def other_unit_note(log: ClickLog, unit: str | None, where: str) -> str | None:
    """What to say of times that cannot be converted, of events that have ids: their order is unknown. None without any."""
    wrong = np.flatnonzero(_other_unit(log, unit))
    if not len(wrong):
        return None
    shown = _shown(int(log.time[wrong[0]]), log.has_dates)
    return (
        f"{where}: row {log.row[wrong[0]] + 1}, time '{log.schema.time}' is {shown}, and {len(wrong):,} of {len(log):,} events are "
        f"like it, but training had {_training_unit(unit)}: they count, but which are the latest is unknown; write {_wanted(unit)}"
    )


def _other_unit(log: ClickLog, unit: str | None) -> NDArray[np.bool_]:
    """Mask of dates where training had plain numbers, and of plain numbers where it had times since 1970."""
    if unit is None:
        return np.zeros(len(log), dtype=bool)
    units = time_units_of(log)
    wrong: NDArray[np.bool_] = units == NUMBERS
    return np.full(len(log), log.has_dates) if unit == TIME_UNITS[NUMBERS] else wrong


def _range_of(time: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of each time's range between `EDGES`; both bounds of a range since 1970 belong to it."""
    found: NDArray[np.int64] = np.searchsorted(EDGES, time, side="left").astype(np.int64)
    return found + np.isin(time, EDGES[::2])


def _training_unit(unit: str | None) -> str:
    return str(unit) if unit in (TIME_UNITS[NUMBERS], TIME_UNITS[DATES]) else f"{unit} since 1970"


def _wanted(unit: str | None) -> str:
    return {TIME_UNITS[NUMBERS]: "numbers of the same kind", TIME_UNITS[DATES]: "dates"}.get(
        str(unit), f"{unit} or dates"
    )


def _shown(time: int, dated: bool) -> str:
    return f"{np.datetime64(time, 'ms')}" if dated else f"{time}"
