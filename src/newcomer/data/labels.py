"""Labels of a click log: conversion to clicks, and detection of labels on another scale than in training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.canonical import BLANK
from newcomer.data.io.column_parsing import BOOLEANS, row_number, scalar_values, to_numbers
from newcomer.data.schema import Schema
from newcomer.errors import DataError
from newcomer.settings import Json

ORIGINAL_LABEL = "grade "
"""Column of the original labels, if a threshold turns them into clicks."""

EPOCHS = ((5e8, 4e9), (5e11, 4e12), (5e14, 4e15), (5e17, 4e18))
"""Ranges of seconds, milli-, micro- and nanoseconds since 1970 for the years 1985 to 2096."""

BY_CHANCE = math.log(1e6)
"""Labels as improbable as 1 in 10⁶ under the training distribution are taken to be of another scale."""

QUANTILES = 20
"""Number of equal-probability bins that summarize the labels."""

UNKNOWN_SHARE = 0.05
"""Assumed share of ratings in [0, 1] for stores without label statistics."""


@dataclass(frozen=True)
class LabelStatistics:
    """Statistics of the original labels, before the threshold: minimum, maximum, count, and number in [0, 1].

    >>> stars = LabelStatistics(1.0, 5.0, 100, 6)
    >>> stars.mismatch(LabelStatistics(1.0, 1.0, 20, 20)), stars.mismatch(LabelStatistics(1.0, 1.0, 1, 1))
    ('are all from 0 to 1, but only 6 of 100 labels in training were', None)
    """

    lowest: float
    highest: float
    count: int
    unit: int
    """Number of labels in [0, 1]: binary labels and fractions, as opposed to stars or percentages."""
    quantiles: tuple[float, ...] = field(default=(), compare=False)
    """`QUANTILES` + 1 quantiles from minimum to maximum; empty for stores of older versions."""

    @classmethod
    def of(cls, label_numbers: pl.Series) -> Self | None:
        if not len(label_numbers):
            return None
        numbers = label_numbers.to_numpy()
        unit = int(((numbers >= 0) & (numbers <= 1)).sum())
        return cls(float(numbers.min()), float(numbers.max()), len(numbers), unit, _quantiles(numbers))

    @classmethod
    def unknown(cls, threshold: float) -> Self:
        """For stores of older versions without label statistics: any range, few labels in [0, 1] if the threshold is above 1."""
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

    def mismatch(self, given: Self) -> str | None:
        """Why these labels cannot be on the scale of the training labels; None if they can."""
        if (wrong := self.outside(given)) is not None:
            return f"hold {wrong:g}, but were from {self.lowest:g} to {self.highest:g} in training"
        if given.unit == given.count and self.negative_log_probability(given.count) > BY_CHANCE:
            return f"are all from 0 to 1, but only {self.unit:,} of {self.count:,} labels in training were"
        return None

    def outside(self, given: Self) -> float | None:
        """The label that is farthest below, or else above, all labels of training; None if none is."""
        if self.lowest <= given.lowest and given.highest <= self.highest:
            return None
        return given.lowest if given.lowest < self.lowest else given.highest

    def share_outside(self, given: Self) -> float:
        """About which share of these labels is below or above all labels of training."""
        outside = [not self.lowest <= quantile <= self.highest for quantile in given.quantiles]
        return sum(outside) / max(len(outside), 1)

    def range_mismatch(self, given: Self, independent: int) -> str | None:
        """Message if so many independent labels are all below a large share of the training labels, else None.

        `independent` is the number of items or users: bad items have low labels and one user may give only those.
        """
        share = sum(quantile <= given.highest for quantile in self.quantiles) / QUANTILES  # an upper bound
        if not 0 < share < 1 or -independent * math.log(share) <= BY_CHANCE:
            return None
        return f"reach {given.highest:g} at most, where those of training went up to {self.highest:g}"

    def run_mismatch(self, count: int, before: int) -> str | None:
        """Like `mismatch`, for `count` labels in [0, 1] that follow `before` others in earlier calls without one outside."""
        if (
            self.negative_log_probability(count + before) <= 2 * BY_CHANCE
        ):  # a long service has very many runs, and bad items have long ones
            return None
        return (
            f"have all been from 0 to 1 {count + before:,} times in a row, but only {self.unit:,} of {self.count:,} "
            "labels in training were"
        )

    def negative_log_probability(self, count: int) -> float:
        """−log P(`count` labels drawn from the training distribution are all in [0, 1])."""
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
        # older stores counted labels equal to 0 or 1, without fractions
        return cls(lowest, highest, count, count if lowest >= 0 and highest <= 1 else int(table["binary"]))


def _quantiles(numbers: NDArray[np.float64], weights: NDArray[np.int64] | None = None) -> tuple[float, ...]:
    shares = np.linspace(0, 1, QUANTILES + 1)
    return tuple(np.quantile(numbers, shares, method="inverted_cdf", weights=weights).tolist())


def parse_labels(frame: pl.DataFrame, schema: Schema, where: str) -> tuple[pl.Series, pl.Series]:
    """Clicks (0/1) from 0/1 or true/false labels, or from a threshold, and the original labels as numbers.

    Raises DataError, with file and row, for other labels.
    """
    given = scalar_values(frame, schema.label, where, "label")
    if given.dtype.is_nested():
        raise DataError(f"{where}: label '{given.name}' holds {str(given.dtype).lower()}; write one number a row")
    threshold = schema.clicked_from
    if threshold is not None and not 0 < threshold <= 1:
        _require_not_boolean(frame, given, where, threshold)
    numbers = label_numbers(given)
    wanted = "write 1 for a click and 0 for none, or set clicked_from" if threshold is None else "write a number"
    right = numbers.is_in([0.0, 1.0]) if threshold is None else numbers.is_finite()
    if not right.fill_null(False).all():
        wrong = ~right.fill_null(False)
        at = int(wrong.arg_true()[0])
        if given[at] == schema.label:
            wanted = "the header is repeated there; remove the row"
        raise DataError(
            f"{where}: row {row_number(frame, wrong)}, label '{schema.label}' is {_shown(given[at])}; {wanted}"
        )
    if threshold is not None and threshold < EPOCHS[0][0] and are_epochs(numbers):
        raise DataError(
            f"{where}: label '{schema.label}' holds {given[0]!r} and the like, which are times; "
            "correct label and time in the schema"
        )
    clicks = (numbers if threshold is None else numbers >= threshold).cast(pl.Float32)
    return clicks.alias(schema.label), numbers.alias(ORIGINAL_LABEL)


def _shown(value: object) -> str:
    return "empty" if value is None or value == "" or value != value else repr(value)


def label_numbers(given: pl.Series) -> pl.Series:
    """Labels as numbers: true is 1, false is 0, null if not numeric."""
    if given.dtype.is_temporal():
        return pl.Series(given.name, [None], dtype=pl.Float64).new_from_index(0, len(given))
    return to_numbers(given)


def are_epochs(numbers: pl.Series) -> bool:
    """Whether all numbers may be seconds, milli-, micro- or nanoseconds since 1970."""
    known = numbers.to_numpy()
    return bool(len(known)) and any(low <= known.min() and known.max() <= high for low, high in EPOCHS)


def require_both_classes(rows: int, clicks: int, schema: Schema) -> None:
    """Raises DataError if no event or every event is a click: both classes are needed to learn."""
    if not rows or 0 < clicks < rows:
        return
    message = f"none of {rows:,} events is a click" if not clicks else f"all of {rows:,} events are clicks"
    if schema.clicked_from is not None:
        then = f"set clicked_from, which is {schema.clicked_from:g}, so that some but not all labels reach it"
    else:
        then = "add the impressions that were not clicked" if clicks else "add the events that were clicked"
    raise DataError(f"label '{schema.label}': {message}; {then}")


def _require_not_boolean(frame: pl.DataFrame, given: pl.Series, where: str, threshold: float) -> None:
    """Raises DataError for true/false labels if the threshold is outside (0, 1]: none or all would reach it."""
    if given.dtype == pl.Boolean:
        wrong = given.is_not_null()
    elif given.dtype == pl.String:
        wrong = given.str.strip_chars(BLANK).str.to_lowercase().is_in(list(BOOLEANS))
    else:
        return
    if wrong.any():
        at = int(wrong.arg_true()[0])
        raise DataError(
            f"{where}: row {row_number(frame, wrong)}, label '{given.name}' is {given[at]!r}, but clicks are labels from "
            f"{threshold:g} on; write numbers of the same scale as in training"
        )
