"""Units of the time column (seconds, …, nanoseconds, dates), inferred from the size of the values, and conversion between them."""

from collections.abc import Collection
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from newcomer.data.click_log import ClickLog
from newcomer.data.labels import EPOCHS
from newcomer.errors import DataError

TIME_UNITS = ("plain numbers", "seconds", "milliseconds", "microseconds", "nanoseconds", "dates")
"""Plain numbers are outside the ranges of the others since 1970."""

NUMBERS, DATES = 0, 5

PER_SECOND = (0, 1, 10**3, 10**6, 10**9, 10**3)
"""Units per second, 0 for plain numbers; dates are milliseconds."""


def time_units_of(log: ClickLog) -> NDArray[np.int8]:
    """Index into `TIME_UNITS` of each row."""
    found = np.full(len(log), DATES if log.has_dates else NUMBERS, dtype=np.int8)
    for number, (low, high) in enumerate(EPOCHS if not log.has_dates else (), start=1):
        found[(log.time >= low) & (log.time <= high)] = number
    return found


def require_one_unit(units: Collection[str], column: str) -> None:
    """Raises DataError for more than one unit since 1970.

    With plain numbers among them the column may count something else, such as microseconds from 0 on, over all these ranges.

    >>> require_one_unit({"seconds", "milliseconds", "plain numbers"}, "seen")
    """
    known = [unit for unit in TIME_UNITS[1:] if unit in units]
    if len(known) > 1 and TIME_UNITS[NUMBERS] not in units:
        raise DataError(f"time '{column}' is in {known[0]} in some rows and in {known[1]} in others; write one unit")


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
    """Raises DataError, with the row, for a time that cannot be converted: a date where training had plain numbers, or the
    reverse."""
    if unit not in (TIME_UNITS[NUMBERS], TIME_UNITS[DATES]):
        return
    wrong = time_units_of(log) == (DATES if unit == TIME_UNITS[NUMBERS] else NUMBERS)
    if not wrong.any():
        return
    row = int(np.flatnonzero(wrong)[0])
    shown = f"{np.datetime64(int(log.time[row]), 'ms')}" if log.has_dates else f"{log.time[row]}"
    then = "numbers of the same kind" if unit == TIME_UNITS[NUMBERS] else "dates"
    raise DataError(
        f"{where}: row {log.row[row] + 1}, time '{log.schema.time}' is {shown}, but training had {unit}: whether the event was "
        f"counted before is unknown; write {then}, or give every event an id"
    )
