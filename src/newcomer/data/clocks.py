"""Clocks of the time column: what a time is counted in, told by its size, and one event's time put from one clock into another."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from newcomer.data.click_log import Log
from newcomer.data.labels import EPOCHS
from newcomer.errors import DataError

CLOCKS = ("plain numbers", "seconds", "milliseconds", "microseconds", "nanoseconds", "dates")
"""Plain numbers are too small, or too large, to be any of the others since 1970."""

NUMBERS, DATES = 0, 5

PER_SECOND = (0, 1, 10**3, 10**6, 10**9, 10**3)
"""Of each clock but the first, how often it ticks; dates are read as milliseconds."""


def clocks_of(log: Log) -> NDArray[np.int8]:
    """Of each row the number of its clock."""
    found = np.full(len(log), DATES if log.dated else NUMBERS, dtype=np.int8)
    for number, (low, high) in enumerate(EPOCHS if not log.dated else (), start=1):
        found[(log.time >= low) & (log.time <= high)] = number
    return found


def in_clock(log: Log, clock: str | None) -> Log:
    """The log with its times in this clock, to the last digit; those that are in none since 1970 stay as they are.

    >>> from newcomer.data.io.log_reader import log_from_rows
    >>> from newcomer.data.schema import Schema
    >>> log = log_from_rows(Schema("film", "viewer"), film=["b"], viewer=[7], label=[0], time=["2023-11-14T22:13:20.5Z"])
    >>> seconds = in_clock(log, "seconds")
    >>> seconds.time.tolist(), seconds.ticks.tolist()
    ([1700000000], [0.5])
    """
    if clock is None or not (ticks := PER_SECOND[CLOCKS.index(clock)]):
        return log
    before = np.array(PER_SECOND)[clocks_of(log)]
    time, ticked = log.time.copy(), log.ticks.copy()
    for row in np.flatnonzero((before != 0) & (before != ticks)).tolist():
        exact = (int(time[row]) + Fraction(repr(float(ticked[row])))) * Fraction(ticks, int(before[row]))
        if abs(exact) < 2**63:
            time[row], ticked[row] = int(exact), float(exact - int(exact))
    return replace(log, time=time, fraction=ticked if ticked.any() else None)


def require_clock(log: Log, clock: str | None, where: str) -> None:
    """Raises DataError, with its row, for a time that says nothing in this clock: a date for plain numbers, or the reverse."""
    if clock not in (CLOCKS[NUMBERS], CLOCKS[DATES]):
        return
    wrong = clocks_of(log) == (DATES if clock == CLOCKS[NUMBERS] else NUMBERS)
    if not wrong.any():
        return
    row = int(np.flatnonzero(wrong)[0])
    shown = f"{np.datetime64(int(log.time[row]), 'ms')}" if log.dated else f"{log.time[row]}"
    then = "numbers of the same kind" if clock == CLOCKS[NUMBERS] else "dates"
    raise DataError(
        f"{where}: row {log.row[row] + 1}, time '{log.schema.time}' is {shown}, but training had {clock}: whether the event has "
        f"counted cannot be told; write {then}, or give every event an id"
    )
