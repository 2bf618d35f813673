"""The four columns that every click log has, found by their names and confirmed by what they hold."""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.inference.column_names import ITEM, LABEL, TIME, USER, plain, rank
from newcomer.data.inference.value_types import given, is_whole
from newcomer.data.io.timestamps import Order, are_dates, moments, order_of
from newcomer.data.labels import EPOCHS, grades
from newcomer.errors import DataError

ANSWERS = {"0", "1", "0.0", "1.0", "true", "false"}

GRADES = 101
"""A rating has no more different values than this."""

HOLDS = {
    "item": "names or whole numbers that come again",
    "user": "names or whole numbers that come again",
    "label": "0 and 1, true and false, or ratings",
    "time": "numbers or dates",
}


@dataclass(frozen=True)
class Meaning:
    """A column and why it is this."""

    column: str
    why: str
    clicked_from: float | None = None
    order: Order | None = None
    """For a time: the order of day and month in its dates."""

    def clicks(self, frame: pl.DataFrame) -> NDArray[np.bool_]:
        """For a label: which rows are clicks."""
        return grades(frame[self.column]).to_numpy() >= (1.0 if self.clicked_from is None else self.clicked_from)

    def runs_with(self, frame: pl.DataFrame, column: str) -> bool:
        """For a time: whether the other column is a time as well that never falls while this one rises."""
        times, other = _times(frame[self.column]), _times(frame[column])
        if times is None or other is None or not (are_dates(frame[column]) or _is_epoch(frame[column])):
            return False
        both = pl.DataFrame({"time": times, "other": other}).sort("time", "other")
        return bool((both["other"].diff().drop_nulls() >= 0).all())


def item_of(frame: pl.DataFrame, taken: Collection[str], where: str) -> Meaning:
    """Raises DataError where no column has an item's name and values that come again."""
    return _named(frame, taken, where, "item", ITEM, _is_id)


def user_of(frame: pl.DataFrame, taken: Collection[str], where: str) -> Meaning:
    """Raises DataError where no column has a user's name and more than one value."""
    return _named(frame, taken, where, "user", USER, _is_id)


def label_of(frame: pl.DataFrame, taken: Collection[str], where: str) -> Meaning:
    """Answers come before ratings. Raises DataError where no column has a label's name and such values."""
    binary = [column for column in _candidates(frame, taken, LABEL) if _is_answer(frame[column])]
    found = _named(frame, taken, where, "label", LABEL, _is_answer if binary else _is_grade)
    if binary:
        return found
    steps = grades(frame[found.column]).unique().sort()
    low, high = float(steps[0]), float(steps[-1])
    threshold = float(steps.filter(steps >= low + 0.75 * (high - low))[0])
    return Meaning(
        found.column, f"{found.why}; from {low:g} to {high:g}: {threshold:g} and more count as clicks", threshold
    )


def time_of(frame: pl.DataFrame, taken: Collection[str], where: str) -> Meaning:
    """By its name, or else what holds dates. Raises DataError where there is neither."""
    named = [column for column in _candidates(frame, taken, TIME) if _is_time(frame[column])]
    dated = [
        c
        for c in frame.columns
        if c not in taken and _is_time(frame[c]) and (are_dates(frame[c]) or _is_epoch(frame[c]))
    ]
    if named or not dated:
        found = _named(frame, taken, where, "time", TIME, _is_time)
    else:
        found = Meaning(dated[0], f"holds dates{_others(dated[1:])}")
    return replace(found, why=found.why + _in_order(frame[found.column]), order=order_of(frame[found.column]))


def _in_order(values: pl.Series) -> str:
    """What to say of dates that have the day or the month first."""
    if order := order_of(values):
        return f"; the {order.partition('-')[0]} is first"
    try:
        moments(values, "")
    except DataError:
        return "; the day or the month is first: say which by time_order = 'day-first' or 'month-first'"
    return ""


def _named(
    frame: pl.DataFrame,
    taken: Collection[str],
    where: str,
    key: Literal["item", "user", "label", "time"],
    known: tuple[str, ...],
    fits: Callable[[pl.Series], bool],
) -> Meaning:
    candidates = _candidates(frame, taken, known)
    fitting = [column for column in candidates if fits(frame[column])]
    if not fitting:
        possible = [column for column in frame.columns if column not in taken and fits(frame[column])]
        named = (
            f"{', '.join(candidates)} by the name, but it must hold {HOLDS[key]}" if candidates else "none by the name"
        )
        raise DataError(
            f"{where}: no column for the {key} found; candidates: {named}, {', '.join(possible) or 'none'} by the values; "
            f'say which one it is in a recipe: [data.schema] {key} = "…"'
        )
    distinct = frame[fitting[0]].n_unique()
    why = f"called like {'an item' if key == 'item' else f'a {key}'}, {distinct} values in {len(frame)} rows"
    return Meaning(fitting[0], why + _others(fitting[1:]))


def _candidates(frame: pl.DataFrame, taken: Collection[str], known: tuple[str, ...]) -> list[str]:
    """Columns with such a name, the best first."""
    ranks = {column: rank(column, known) for column in frame.columns if column not in taken}
    return sorted((column for column, place in ranks.items() if place is not None), key=lambda c: ranks[c] or 0)


def _others(columns: list[str]) -> str:
    return f"; {', '.join(repr(column) for column in columns)} would do too" if columns else ""


def _is_id(values: pl.Series) -> bool:
    """Names or whole numbers, more than one, of which some come again."""
    if values.dtype.is_nested() or values.dtype.is_temporal() or values.dtype == pl.Boolean:
        return False
    if values.dtype.is_float() and not is_whole(values):
        return False
    return 1 < given(values).n_unique() < len(values)


def _is_answer(values: pl.Series) -> bool:
    if values.dtype.is_nested() or values.null_count():
        return False
    found = set(values.cast(pl.String).str.strip_chars().str.to_lowercase().unique())
    return len(found) > 1 and found <= ANSWERS


def _is_grade(values: pl.Series) -> bool:
    if values.dtype.is_nested() or values.dtype.is_temporal():
        return False
    found = grades(values)
    return not found.null_count() and bool(found.is_finite().all()) and 1 < found.n_unique() <= GRADES


def _is_time(values: pl.Series) -> bool:
    """Dates, or where the name says no more than that it is the time, any numbers: a dwell time is none."""
    times = _times(values)
    if times is None or times.n_unique() == 1:
        return False
    return plain(values.name) in TIME or are_dates(values) or _is_epoch(values)


def _times(values: pl.Series) -> pl.Series | None:
    if values.dtype.is_nested() or values.dtype == pl.Boolean:
        return None
    orders: tuple[Order | None, ...] = (order_of(values), "month-first")
    for order in orders:  # where both can be meant, either tells whether it is a time
        with suppress(DataError):
            return moments(values, "", order)
    return None


def _is_epoch(values: pl.Series) -> bool:
    if values.dtype.is_nested() or values.dtype.is_temporal() or not is_whole(values):
        return False
    numbers = values.cast(pl.Float64, strict=False)
    low, high = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]
    return any(least <= low and high <= most for least, most in EPOCHS)
