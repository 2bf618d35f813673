"""Parsing a table row by row when some rows are invalid."""

import re
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.errors import DataError
from newcomer.items.serving.results import OnError

T = TypeVar("T")

MANY = 1000
"""More invalid rows than this are an error of the whole table."""

FEW = 20
"""More rows than this that contradict others are an error of the whole table."""


def readable(
    frame: pl.DataFrame, read: Callable[[pl.DataFrame], T], on_error: OnError, where: str
) -> tuple[T | None, NDArray[np.int64], dict[int, DataError]]:
    """Result of `read` on the valid rows (None without any), their row numbers, and the errors of the invalid rows.

    An error that begins with `where` and then names no row is one of the whole table; one that begins otherwise is about values.

    Invalid are rows that cannot be read alone, and those that an error of all others names. Rows count from 0 here, and from 1 in
    messages. Raises DataError for the first invalid row if `on_error` is 'raise', and for an error of the whole table.

    >>> def read(frame):
    ...     for row, x in enumerate(frame["x"], 1):
    ...         if x < 0:
    ...             raise DataError(f"a: row {row}, column 'x' is {x}")
    ...     return frame["x"].to_list()
    >>> readable(pl.DataFrame({"x": [1, -2, 3, -4]}), read, "report", "a")
    ([1, 3], array([0, 2]), {1: DataError("a: row 2, column 'x' is -2"), 3: DataError("a: row 4, column 'x' is -4")})
    """
    every = np.arange(len(frame))
    try:
        return read(frame), every, {}
    except DataError as error:
        if str(error).startswith(f"{where}: ") and (on_error == "raise" or not _named_row(error, where)):
            raise
        first = error
    wrong: dict[int, DataError] = {}
    _search(frame, every, read, wrong, where)
    if on_error == "raise":
        raise wrong[min(wrong)] if wrong else first
    if len(wrong) > MANY:
        raise DataError(f"{first}; more than {MANY} rows are like it")
    for _ in range(FEW + 1):
        right = np.setdiff1d(every, list(wrong))
        try:
            return (read(frame[right]) if len(right) else None), right, wrong
        except DataError as error:  # each alone can be read: they contradict each other
            named = _named_row(error, where)
            if not named:
                raise
            row = int(right[named - 1])
            wrong[row] = _of_row(error, row, where)
    raise first


def _search(
    frame: pl.DataFrame,
    rows: NDArray[np.int64],
    read: Callable[[pl.DataFrame], T],
    wrong: dict[int, DataError],
    where: str,
) -> None:
    """Find the invalid rows by bisection."""
    if not len(rows) or len(wrong) > MANY:
        return
    try:
        read(frame[rows])
    except DataError as error:
        if len(rows) == 1:
            row = int(rows[0])
            wrong[row] = _of_row(error, row, where)
            return
        for half in np.array_split(rows, 2):
            _search(frame, half, read, wrong, where)


def _of_row(error: DataError, row: int, where: str) -> DataError:
    """The error of this row, which counts from 0."""
    if named := _named_row(error, where):
        return DataError(f"{where}: row {row + 1}{str(error).removeprefix(f'{where}: row {named}')}")
    return DataError(f"{where}: row {row + 1}, {str(error).removeprefix(f'{where}: ')}")


def _named_row(error: DataError, where: str) -> int:
    """The row with which the message begins, from 1; 0 without one. Values in a message may look like rows."""
    found = re.match(rf"{re.escape(where)}: row (\d+)\b", str(error))
    return int(found[1]) if found else 0
