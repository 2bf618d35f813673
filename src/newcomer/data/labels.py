"""Labels of a click log: which answers are clicks, and whether they are of the kind that a model was taught with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.canonical import BLANK
from newcomer.data.io.column_parsing import ANSWERS, numbers_of, plain, row_of
from newcomer.data.schema import Schema
from newcomer.errors import DataError
from newcomer.settings import Json

GRADE = "grade "
"""Name of the labels as they were written, where a threshold makes clicks of them."""

EPOCHS = ((5e8, 4e9), (5e11, 4e12), (5e14, 4e15), (5e17, 4e18))
"""Seconds, milli-, micro- and nanoseconds since 1970 of the years 1985 to 2096."""

BY_CHANCE = math.log(1e6)
"""Labels that would come by chance once in so many tables are of another kind."""

PARTS = 20
"""Labels are summed up by the borders of so many parts of one size."""

UNKNOWN_SHARE = 0.05
"""How many ratings are taken to be from 0 to 1 where a store from before says nothing of it."""


@dataclass(frozen=True)
class Labels:
    """Labels as they were written, before a threshold: lowest, highest, how many, and how many are from 0 to 1.

    >>> stars = Labels(1.0, 5.0, 100, 6)
    >>> stars.unlike(Labels(1.0, 1.0, 20, 20)), stars.unlike(Labels(1.0, 1.0, 1, 1))
    ('are all from 0 to 1, as of 100 labels in training only 6 were', None)
    """

    lowest: float
    highest: float
    count: int
    unit: int
    """How many are from 0 to 1: answers and fractions, where other labels are stars or percents."""
    quantiles: tuple[float, ...] = field(default=(), compare=False)
    """`PARTS` + 1 of them, the lowest and the highest label first and last; none in a store from before."""

    @classmethod
    def of(cls, grades: pl.Series) -> Self | None:
        if not len(grades):
            return None
        numbers = grades.to_numpy()
        unit = int(((numbers >= 0) & (numbers <= 1)).sum())
        return cls(float(numbers.min()), float(numbers.max()), len(numbers), unit, _quantiles(numbers))

    @classmethod
    def unknown(cls, threshold: float) -> Self:
        """Of a store from before, which says nothing of its labels: any numbers, few of them up to 1 where more is a click."""
        unit = round(100 * UNKNOWN_SHARE) if threshold > 1 else 100
        return cls(-math.inf, math.inf, 100, unit)

    def __add__(self, other: Self) -> Self:
        lowest, highest = min(self.lowest, other.lowest), max(self.highest, other.highest)
        weights = np.repeat([self.count, other.count], [len(self.quantiles), len(other.quantiles)])
        joined = (
            _quantiles(np.array([*self.quantiles, *other.quantiles]), weights)
            if self.quantiles and other.quantiles
            else ()
        )
        return type(self)(lowest, highest, self.count + other.count, self.unit + other.unit, joined)

    def unlike(self, given: Self) -> str | None:
        """Why other labels are of another kind than these of training; None where they may be of the same."""
        if given.lowest < self.lowest or given.highest > self.highest:
            wrong = given.lowest if given.lowest < self.lowest else given.highest
            return f"hold {wrong:g}, but were from {self.lowest:g} to {self.highest:g} in training"
        if given.unit == given.count and self.surprise(given.count) > BY_CHANCE:
            return f"are all from 0 to 1, as of {self.count:,} labels in training only {self.unit:,} were"
        return None

    def beyond(self, given: Self, independent: int) -> str | None:
        """What to say where so many independent labels all stay below what many of training went beyond.

        Bad items have low labels and one user may give no others: `independent` is not how many labels there are.
        """
        share = sum(quantile <= given.highest for quantile in self.quantiles) / PARTS  # at most so many are as low
        if not 0 < share < 1 or -independent * math.log(share) <= BY_CHANCE:
            return None
        return f"reach {given.highest:g} at most, where those of training went up to {self.highest:g}"

    def unlike_run(self, count: int, before: int) -> str | None:
        """The same of so many labels from 0 to 1 that come, after others of a call or more before, with no other among them."""
        if (
            self.surprise(count + before) <= 2 * BY_CHANCE
        ):  # a long service has very many runs, and bad items have long ones
            return None
        return (
            f"have all been from 0 to 1 {count + before:,} times in a row, as of {self.count:,} labels in training only "
            f"{self.unit:,} were"
        )

    def surprise(self, count: int) -> float:
        """Minus the logarithm of the probability that so many labels are all from 0 to 1, drawn as in training."""
        return -count * math.log(max(self.unit, 1) / max(self.count, 1))

    def to_json(self) -> dict[str, Json]:
        table: dict[str, Json] = {
            "lowest": self.lowest,
            "highest": self.highest,
            "count": self.count,
            "unit": self.unit,
            "quantiles": list(self.quantiles),
        }
        return table

    @classmethod
    def from_json(cls, table: Mapping[str, Json]) -> Self:
        lowest, highest, count = float(table["lowest"]), float(table["highest"]), int(table["count"])
        if "unit" in table:
            return cls(lowest, highest, count, int(table["unit"]), tuple(map(float, table.get("quantiles", ()))))
        # a store from before has counted what equals 0 or 1, fractions not
        return cls(lowest, highest, count, count if lowest >= 0 and highest <= 1 else int(table["binary"]))


def _quantiles(numbers: NDArray[np.float64], weights: NDArray[np.int64] | None = None) -> tuple[float, ...]:
    shares = np.linspace(0, 1, PARTS + 1)
    return tuple(np.quantile(numbers, shares, method="inverted_cdf", weights=weights).tolist())


def labels(frame: pl.DataFrame, schema: Schema, where: str) -> tuple[pl.Series, pl.Series]:
    """1 for a click and 0 for none: what is so already, true and false, or where the schema has a threshold what reaches it.

    And the labels as numbers, as they were written. Raises DataError, with file and row, for another label.
    """
    given = plain(frame[schema.label], where, frame)
    if given.dtype.is_nested():
        raise DataError(f"{where}: label '{given.name}' holds {str(given.dtype).lower()}; write one number a row")
    threshold = schema.clicked_from
    if threshold is not None and not 0 < threshold <= 1:
        _require_no_answers(frame, given, where, threshold)
    numbers = grades(given)
    wanted = "write 1 for a click and 0 for none, or set clicked_from" if threshold is None else "write a number"
    right = numbers.is_in([0.0, 1.0]) if threshold is None else numbers.is_finite()
    if not right.fill_null(False).all():
        wrong = ~right.fill_null(False)
        at = int(wrong.arg_true()[0])
        raise DataError(f"{where}: row {row_of(frame, wrong)}, label '{schema.label}' is {given[at]!r}; {wanted}")
    if threshold is not None and threshold < EPOCHS[0][0] and are_epochs(numbers):
        raise DataError(
            f"{where}: label '{schema.label}' holds {given[0]!r} and the like, which are times; "
            "correct label and time in the schema"
        )
    clicks = (numbers if threshold is None else numbers >= threshold).cast(pl.Float32)
    return clicks.alias(schema.label), numbers.alias(GRADE)


def grades(given: pl.Series) -> pl.Series:
    """Labels as numbers: true is 1, false is 0, null what is none."""
    if given.dtype.is_temporal():
        return pl.Series(given.name, [None], dtype=pl.Float64).new_from_index(0, len(given))
    return numbers_of(given)


def are_epochs(numbers: pl.Series) -> bool:
    """Whether all may be seconds, milli-, micro- or nanoseconds since 1970."""
    known = numbers.to_numpy()
    return bool(len(known)) and any(low <= known.min() and known.max() <= high for low, high in EPOCHS)


def require_both(rows: int, clicks: int, schema: Schema) -> None:
    """Raises DataError where no event or every event is a click: nothing can be learned from one answer alone."""
    if not rows or 0 < clicks < rows:
        return
    said = f"none of {rows:,} events is a click" if not clicks else f"all of {rows:,} events are clicks"
    if schema.clicked_from is not None:
        then = f"set clicked_from, which is {schema.clicked_from:g}, so that some labels reach it and others do not"
    else:
        then = (
            "give the events of what was shown and not clicked too"
            if clicks
            else "give the events that were clicked too"
        )
    raise DataError(f"label '{schema.label}': {said}; {then}")


def _require_no_answers(frame: pl.DataFrame, given: pl.Series, where: str, threshold: float) -> None:
    """Raises DataError for true and false where numbers are compared with a threshold that they would never, or always, reach."""
    if given.dtype == pl.Boolean:
        wrong = given.is_not_null()
    elif given.dtype == pl.String:
        wrong = given.str.strip_chars(BLANK).str.to_lowercase().is_in(list(ANSWERS))
    else:
        return
    if wrong.any():
        at = int(wrong.arg_true()[0])
        raise DataError(
            f"{where}: row {row_of(frame, wrong)}, label '{given.name}' is {given[at]!r}, but clicks are labels from "
            f"{threshold:g} on; write numbers of the same scale as in training"
        )
