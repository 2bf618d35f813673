"""Detection of the item, user, label and time columns by their names, confirmed by their values."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.inference.column_names import ITEM, LABEL, TIME, USER, normalized, rank
from newcomer.data.inference.value_types import is_whole, non_missing
from newcomer.data.io.tables import require_columns
from newcomer.data.io.timestamps import DateOrder, are_dates, infer_date_order, parse_timestamps
from newcomer.data.labels import EPOCHS, label_numbers
from newcomer.data.weights import GREATEST, LEAST
from newcomer.errors import DataError

MainRole = Literal["item", "user", "label", "time", "weight"]
Find = Callable[[pl.DataFrame, Collection[str]], "ColumnRole"]

BOOLEANS = {"0", "1", "0.0", "1.0", "true", "false"}

MAX_RATINGS = 101
"""Maximum number of distinct values of a rating."""

MIN_RATED = 0.01
"""Least share of labels other than 0 and 1 in a column of ratings that has both."""

MAX_LISTED = 10
"""Maximum number of candidates that an error lists."""

EXPECTED_VALUES: dict[MainRole, str] = {
    "item": "repeated names or integers",
    "user": "repeated names or integers",
    "label": "0 and 1, true and false, or ratings",
    "time": "numbers or dates",
    "weight": f"numbers from {LEAST:g} to {GREATEST:g}",
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


def find_columns(
    frame: pl.DataFrame,
    where: str,
    named: Mapping[MainRole, str],
    owned_by: Callable[[str, str], bool],
    parts: Mapping[str, pl.DataFrame],
) -> dict[MainRole, ColumnRole]:
    """The item, user, label and time columns: those that are `named`, the others by their names and values. A weight is named.

    `owned_by(owner, column)`: whether a column belongs to that item or user; it is no time, and a label only if there is no other
    and it is binary and called exactly like one: in a small table labels may depend on the user by chance. `parts`: the frame by
    file.

    Raises DataError for a named column that does not exist or does not fit, and for all roles without a column, with candidates.
    """
    require_columns(frame.columns, named.values(), where)
    found: dict[MainRole, ColumnRole] = {role: _named_column(frame, where, role, name) for role, name in named.items()}
    missing = dict[MainRole, str]()

    def search(role: MainRole, find: Find, excluded: Sequence[str] = ()) -> None:
        if role not in found:
            try:
                found[role] = find(frame, {*named.values(), *(one.column for one in found.values()), *excluded})
            except DataError as error:
                missing[role] = str(error)

    search("item", _find_item)
    search("user", _find_user)
    owners = [found[role].column for role in ("item", "user") if role in found]
    owned = [c for c in frame.columns if c not in owners and any(owned_by(owner, c) for owner in owners)]
    search("time", _find_time, owned)
    search("label", _find_label, owned)
    if missing.pop("label", None):
        search("label", _find_label, [column for column in owned if not _is_certain_label(frame[column])])
    if not missing:
        return found
    if "label" in missing:
        missing["label"] += _empty_labels(parts)
    roles = [role for role in EXPECTED_VALUES if role in missing]
    raise DataError(
        f"{where}: no column found for {'; for '.join(f'the {role} ({missing[role]})' for role in roles)}; name "
        f"{'it' if len(roles) == 1 else 'them'}: {' '.join(f'--column {role}=NAME' for role in roles)} "
        f"(in Python propose(…, {', '.join(f'{role}=NAME' for role in roles)}))"
    )


def _empty_labels(parts: Mapping[str, pl.DataFrame]) -> str:
    """The parts of a log in which a label by its name is empty in all rows."""
    empty = [
        f"'{column}' is empty in {file}"
        for file, part in parts.items()
        for column in part.columns
        if normalized(column) in LABEL and len(part) and not len(non_missing(part[column]))
    ]
    return f"; {_listed(empty)}" if empty else ""


def _named_column(frame: pl.DataFrame, where: str, role: MainRole, column: str) -> ColumnRole:
    """Raises DataError if the values cannot have this role."""
    values, found = frame[column], ColumnRole(column, "as you named it")
    if role == "time":
        times = _times(values)
        fits = times is not None and times.n_unique() > 1
    elif role == "weight":
        fits = is_weight(values)
    elif role == "label":
        fits = _is_binary(values) or _is_rating(values)
    else:
        fits = _is_id(values)
    if not fits:
        raise DataError(f"{where}: column '{column}' is named as the {role}, but it must hold {EXPECTED_VALUES[role]}")
    if role == "time":
        return _dated(frame, found)
    return _thresholded(frame, found) if role == "label" and not _is_binary(values) else found


def _find_item(frame: pl.DataFrame, taken: Collection[str]) -> ColumnRole:
    """Raises DataError, with the candidates, if no column has an item's name and repeated values."""
    return _find_column(frame, taken, "item", ITEM, _is_id)


def _find_user(frame: pl.DataFrame, taken: Collection[str]) -> ColumnRole:
    """Raises DataError, with the candidates, if no column has a user's name and more than one value."""
    return _find_column(frame, taken, "user", USER, _is_id)


def _find_label(frame: pl.DataFrame, taken: Collection[str]) -> ColumnRole:
    """Binary labels are preferred to ratings. Raises DataError, with the candidates, if no column has a label's name and such
    values."""
    binary = [column for column in _candidates(frame, taken, LABEL) if _is_binary(frame[column])]
    found = _find_column(frame, taken, "label", LABEL, _is_binary if binary else _is_rating)
    return found if binary else _thresholded(frame, found)


def _thresholded(frame: pl.DataFrame, found: ColumnRole) -> ColumnRole:
    """A label of ratings, the upper quarter of whose scale counts as clicks.

    Raises DataError where nearly all rows hold 0 or 1: then the others are rather wrong than the top of a scale.
    """
    numbers = label_numbers(frame[found.column])
    others = numbers.filter((numbers != 0) & (numbers != 1))
    if (numbers == 0).any() and (numbers == 1).any() and len(others) < MIN_RATED * len(numbers):
        raise DataError(
            f"column '{found.column}': {len(others):,} of {len(numbers):,} rows hold neither 0 nor 1, such as {others[0]:g}; "
            "correct them, or give a [data.schema] with clicked_from if these are grades"
        )
    steps = numbers.unique().sort()
    low, high = float(steps[0]), float(steps[-1])
    threshold = float(steps.filter(steps >= low + 0.75 * (high - low))[0])
    return ColumnRole(
        found.column, f"{found.reason}; from {low:g} to {high:g}: {threshold:g} and more count as clicks", threshold
    )


def _find_time(frame: pl.DataFrame, taken: Collection[str]) -> ColumnRole:
    """By name, else the first column of dates. Raises DataError, with the candidates, if there is neither."""
    named = [column for column in _candidates(frame, taken, TIME) if _is_time(frame[column])]
    dated = [
        c
        for c in frame.columns
        if c not in taken and _is_time(frame[c]) and (are_dates(frame[c]) or _is_epoch(frame[c]))
    ]
    if named or not dated:
        found = _find_column(frame, taken, "time", TIME, _is_time)
    else:
        found = ColumnRole(dated[0], f"holds dates{_others(dated[1:])}")
    return _dated(frame, found)


def _dated(frame: pl.DataFrame, found: ColumnRole) -> ColumnRole:
    """A time column with the order of day and month in its dates."""
    values = frame[found.column]
    return replace(found, reason=found.reason + _in_order(values), order=infer_date_order(values))


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
    role: MainRole,
    known: tuple[str, ...],
    fits: Callable[[pl.Series], bool],
) -> ColumnRole:
    """Raises DataError, whose message lists the candidates, if no column with such a name has such values."""
    candidates = _candidates(frame, taken, known)
    fitting = [column for column in candidates if fits(frame[column])]
    if not fitting:
        possible = _possible(frame, taken, role)
        wrong = [column for column in candidates if column not in possible]
        exceptions = _few_misfits(frame[wrong[0]]) if wrong and role == "label" else ""
        by_name = (
            f"{_listed(wrong)} by the name, but it must hold {EXPECTED_VALUES[role]}{exceptions}; " if wrong else ""
        )
        raise DataError(f"{by_name}candidates by their values: {_listed(possible)}")
    distinct = frame[fitting[0]].n_unique()
    why = f"by its name the {role}; {distinct:,} values in {len(frame):,} rows"
    return ColumnRole(fitting[0], why + _others(fitting[1:]))


def _possible(frame: pl.DataFrame, taken: Collection[str], role: MainRole) -> list[str]:
    """Columns whose values could have this role, the most likely first; a time is no label, and a fraction is no id."""
    free = [frame[column] for column in frame.columns if column not in taken]
    match role:
        case "time":
            found = [values for values in free if (times := _times(values)) is not None and times.n_unique() > 2]
            return [v.name for v in sorted(found, key=lambda v: not (are_dates(v) or _is_epoch(v)))]
        case "label":
            ratings = [v for v in free if _is_rating(v) and v.n_unique() < len(v) and not _is_time(v)]
            return [v.name for v in sorted(ratings, key=lambda v: not _is_binary(v))]
        case _:
            found = [v for v in free if _is_id(v) and not _is_binary(v) and (is_whole(v) or not _is_number(v))]
            return [v.name for v in sorted(found, key=lambda v: -v.n_unique())]


def _listed(columns: Sequence[str]) -> str:
    return ", ".join([*columns[:MAX_LISTED], *(["…"] if len(columns) > MAX_LISTED else [])]) or "none"


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


def _few_misfits(values: pl.Series) -> str:
    """Remark on a few values that are no labels, in a column in which the others are."""
    if values.dtype.is_nested() or values.dtype.is_temporal():
        return ""
    wrong = values.filter(label_numbers(values).is_null())
    if not 0 < len(wrong) < len(values) / 10:
        return ""
    return f", and {len(wrong):,} of {len(values):,} are not: {'missing' if wrong[0] is None else repr(wrong[0])[:60]}"


def _is_certain_label(values: pl.Series) -> bool:
    return normalized(values.name) in LABEL and _is_binary(values)


def _is_number(values: pl.Series) -> bool:
    """Whether all values are numbers, possibly written as text."""
    return not non_missing(values).cast(pl.Float64, strict=False).null_count()


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


def is_weight(values: pl.Series) -> bool:
    """Whether all values can be weights of rows."""
    if values.dtype.is_nested() or values.dtype.is_temporal() or values.dtype == pl.Boolean:
        return False
    numbers = non_missing(values).cast(pl.Float64, strict=False)
    return len(numbers) == len(values) and bool(numbers.is_between(LEAST, GREATEST).fill_null(False).all())


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
