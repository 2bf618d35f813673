"""Detection of the item, user, label and time columns by their names, confirmed by their values."""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.inference.column_names import ITEM, LABEL, TIME, USER, normalized, rank
from newcomer.data.inference.value_types import is_whole, non_missing
from newcomer.data.io.timestamps import DateOrder, are_dates, infer_date_order, parse_timestamps
from newcomer.data.labels import EPOCHS, label_numbers
from newcomer.errors import DataError

BOOLEANS = {"0", "1", "0.0", "1.0", "true", "false"}

MAX_RATINGS = 101
"""Maximum number of distinct values of a rating."""

EXPECTED_VALUES = {
    "item": "repeated names or integers",
    "user": "repeated names or integers",
    "label": "0 and 1, true and false, or ratings",
    "time": "numbers or dates",
}


@dataclass(frozen=True)
class ColumnRole:
    """A column with a role, and the reason."""

    column: str
    reason: str
    clicked_from: float | None = None
    order: DateOrder | None = None
    """For the time column: order of day and month in its dates."""

    def clicks(self, frame: pl.DataFrame) -> NDArray[np.bool_]:
        """For the label column: mask of clicks."""
        return label_numbers(frame[self.column]).to_numpy() >= (1.0 if self.clicked_from is None else self.clicked_from)

    def runs_with(self, frame: pl.DataFrame, column: str) -> bool:
        """For the time column: whether the other column is a time that never decreases while this one increases."""
        times, other = _times(frame[self.column]), _times(frame[column])
        if times is None or other is None or not (are_dates(frame[column]) or _is_epoch(frame[column])):
            return False
        both = pl.DataFrame({"time": times, "other": other}).sort("time", "other")
        return bool((both["other"].diff().drop_nulls() >= 0).all())


def find_item_column(frame: pl.DataFrame, taken: Collection[str], where: str) -> ColumnRole:
    """Raises DataError if no column has an item's name and repeated values."""
    return _find_column(frame, taken, where, "item", ITEM, _is_id)


def find_user_column(frame: pl.DataFrame, taken: Collection[str], where: str) -> ColumnRole:
    """Raises DataError if no column has a user's name and more than one value."""
    return _find_column(frame, taken, where, "user", USER, _is_id)


def find_label_column(frame: pl.DataFrame, taken: Collection[str], where: str) -> ColumnRole:
    """Binary labels are preferred to ratings. Raises DataError if no column has a label's name and such values."""
    binary = [column for column in _candidates(frame, taken, LABEL) if _is_binary(frame[column])]
    found = _find_column(frame, taken, where, "label", LABEL, _is_binary if binary else _is_rating)
    if binary:
        return found
    steps = label_numbers(frame[found.column]).unique().sort()
    low, high = float(steps[0]), float(steps[-1])
    threshold = float(steps.filter(steps >= low + 0.75 * (high - low))[0])
    return ColumnRole(
        found.column, f"{found.reason}; from {low:g} to {high:g}: {threshold:g} and more count as clicks", threshold
    )


def find_time_column(frame: pl.DataFrame, taken: Collection[str], where: str) -> ColumnRole:
    """By name, else the first column of dates. Raises DataError if there is neither."""
    named = [column for column in _candidates(frame, taken, TIME) if _is_time(frame[column])]
    dated = [
        c
        for c in frame.columns
        if c not in taken and _is_time(frame[c]) and (are_dates(frame[c]) or _is_epoch(frame[c]))
    ]
    if named or not dated:
        found = _find_column(frame, taken, where, "time", TIME, _is_time)
    else:
        found = ColumnRole(dated[0], f"holds dates{_others(dated[1:])}")
    return replace(
        found, reason=found.reason + _in_order(frame[found.column]), order=infer_date_order(frame[found.column])
    )


def _in_order(values: pl.Series) -> str:
    """Remark on dates with the day or the month first."""
    if order := infer_date_order(values):
        return f"; the {order.partition('-')[0]} is first"
    try:
        parse_timestamps(values, "")
    except DataError:
        return "; the day or the month is first: set time_order = 'day-first' or 'month-first'"
    return ""


def _find_column(
    frame: pl.DataFrame,
    taken: Collection[str],
    where: str,
    key: Literal["item", "user", "label", "time"],
    known: tuple[str, ...],
    fits: Callable[[pl.Series], bool],
) -> ColumnRole:
    candidates = _candidates(frame, taken, known)
    fitting = [column for column in candidates if fits(frame[column])]
    if not fitting:
        possible = [column for column in frame.columns if column not in taken and fits(frame[column])]
        named = (
            f"{', '.join(candidates)} by the name, but it must hold {EXPECTED_VALUES[key]}"
            if candidates
            else "none by the name"
        )
        raise DataError(
            f"{where}: no column for the {key} found; candidates: {named}, {', '.join(possible) or 'none'} by the values; "
            f'set it in a recipe: [data.schema] {key} = "…"'
        )
    distinct = frame[fitting[0]].n_unique()
    why = f"called like {'an item' if key == 'item' else f'a {key}'}, {distinct} values in {len(frame)} rows"
    return ColumnRole(fitting[0], why + _others(fitting[1:]))


def _candidates(frame: pl.DataFrame, taken: Collection[str], known: tuple[str, ...]) -> list[str]:
    """Columns with a known name, the best first."""
    ranks = {column: rank(column, known) for column in frame.columns if column not in taken}
    return sorted((column for column, position in ranks.items() if position is not None), key=lambda c: ranks[c] or 0)


def _others(columns: list[str]) -> str:
    return f"; other candidates: {', '.join(repr(column) for column in columns)}" if columns else ""


def _is_id(values: pl.Series) -> bool:
    """Repeated names or integers, more than one."""
    if values.dtype.is_nested() or values.dtype.is_temporal() or values.dtype == pl.Boolean:
        return False
    if values.dtype.is_float() and not is_whole(values):
        return False
    return 1 < non_missing(values).n_unique() < len(values)


def _is_binary(values: pl.Series) -> bool:
    if values.dtype.is_nested() or values.null_count():
        return False
    found = set(values.cast(pl.String).str.strip_chars().str.to_lowercase().unique())
    return len(found) > 1 and found <= BOOLEANS


def _is_rating(values: pl.Series) -> bool:
    if values.dtype.is_nested() or values.dtype.is_temporal():
        return False
    found = label_numbers(values)
    return not found.null_count() and bool(found.is_finite().all()) and 1 < found.n_unique() <= MAX_RATINGS


def _is_time(values: pl.Series) -> bool:
    """Dates, epochs, or, with a generic time name, any numbers; a dwell time is not a time."""
    times = _times(values)
    if times is None or times.n_unique() == 1:
        return False
    return normalized(values.name) in TIME or are_dates(values) or _is_epoch(values)


def _times(values: pl.Series) -> pl.Series | None:
    if values.dtype.is_nested() or values.dtype == pl.Boolean:
        return None
    orders: tuple[DateOrder | None, ...] = (infer_date_order(values), "month-first")
    for order in orders:  # if ambiguous, either order shows whether it is a time
        with suppress(DataError):
            return parse_timestamps(values, "", order)
    return None


def _is_epoch(values: pl.Series) -> bool:
    if values.dtype.is_nested() or values.dtype.is_temporal() or not is_whole(values):
        return False
    numbers = values.cast(pl.Float64, strict=False)
    low, high = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]
    return any(least <= low and high <= most for least, most in EPOCHS)
