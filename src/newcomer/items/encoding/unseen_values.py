"""Counts of values that were not in the training data, where all of them share one embedding per field; and of numbers by size."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.data.vocabulary import PADDING, UNSEEN, StandardScaler, Vocabulary
from newcomer.errors import DataWarning
from newcomer.items.encoding.encoder import Clicks, Encoder, Values
from newcomer.shapes import Int, Tensor

SIZES = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
"""Bounds of intervals of standardized numbers: stds of training from its mean."""

NEARLY_ALL = 0.9
"""Share of unseen values from which a column is warned about."""

FEW = 10
"""Minimum number of values for a warning."""


@dataclass(frozen=True)
class Counted:
    """Number of values of a column, and how many of them are unseen."""

    values: int = 0
    unseen: int = 0

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(self.values + other.values, self.unseen + other.unseen)


@dataclass(frozen=True)
class Unseen:
    """Unseen values by column, without numeric columns; a user's values count once per user."""

    columns: Mapping[str, Counted] = field(default_factory=dict)
    numbers: Mapping[str, NDArray[np.int64]] = field(default_factory=dict, compare=False)
    """Of numeric columns: how many standardized numbers are in each of the intervals between `SIZES`."""

    def __add__(self, other: "Unseen") -> "Unseen":
        names = dict.fromkeys([*self.columns, *other.columns])
        counts = {name: self.columns.get(name, Counted()) + other.columns.get(name, Counted()) for name in names}
        numbers = {**self.numbers}
        for name, more in other.numbers.items():
            numbers[name] = numbers[name] + more if name in numbers else more
        return Unseen(counts, numbers)

    def to_json(self) -> dict[str, dict[str, int]]:
        """Counts of the non-empty columns."""
        return {
            name: {"values": counted.values, "unseen": counted.unseen}
            for name, counted in self.columns.items()
            if counted.values
        }

    def __str__(self) -> str:
        """The columns with unseen values, such as 'device 3 of 20'; empty if there are none."""
        counted = ((name, counted) for name, counted in self.columns.items() if counted.unseen)
        return ", ".join(f"{name} {of.unseen:,} of {of.values:,}" for name, of in counted)

    def mostly_unseen(self, exclude: Sequence[str] = ()) -> list[str]:
        """Columns whose values are nearly all unseen, without those in `exclude`, where that is expected."""
        return [
            name
            for name, of in self.columns.items()
            if name not in exclude and of.values >= FEW and of.unseen >= NEARLY_ALL * of.values
        ]

    def warn(self, exclude: Sequence[str] = ()) -> None:
        """Issue a DataWarning per column of `mostly_unseen`; the message contains no numbers, so that it is shown once."""
        for name in self.mostly_unseen(exclude):
            warnings.warn(
                f"column '{name}': nearly all values were not there when the model learned, and are read as one and the same; "
                "see that they are written as they were then",
                DataWarning,
                stacklevel=3,
            )


def unseen_of_items(encoder: Encoder, item_features: Values) -> Unseen:
    """Unseen values of item fields."""
    names = [field.name for field in encoder.item_fields]
    return Unseen(dict(_counted(encoder, names, item_features)), dict(_sized(encoder, names, item_features)))


def unseen_of_clicks(encoder: Encoder, clicks: Clicks, rows: NDArray[np.bool_] | None = None) -> Unseen:
    """Unseen values of user and context fields, optionally of the rows of a mask; of users only those that occur."""
    chosen = slice(None) if rows is None else torch.from_numpy(rows).to(clicks.item.device)
    users = torch.unique(clicks.user[chosen])
    values = [values[users] for values in clicks.of_users] + [values[chosen] for values in clicks.of_rows]
    names = [field.name for field in encoder.row_fields]
    return Unseen(dict(_counted(encoder, names, values)), dict(_sized(encoder, names, values)))


def unseen_by_row(encoder: Encoder, clicks: Clicks) -> Int[Tensor, " row"]:
    """Number of unseen values per event, its user's among them."""
    values = clicks.values(torch.arange(len(clicks), device=clicks.item.device))
    # the last values, those of user_history, are the user again
    return _unseen_of_each(encoder, [field.name for field in encoder.row_fields], values, clicks.item)


def unseen_by_item(encoder: Encoder, item_features: Values) -> Int[Tensor, " item"]:
    """Number of unseen values per item. It has at least one field."""
    return _unseen_of_each(encoder, [field.name for field in encoder.item_fields], item_features, item_features[0])


def _unseen_of_each(encoder: Encoder, names: Sequence[str], fields: Values, like: Tensor) -> Int[Tensor, " row"]:
    counts = torch.zeros(len(like), dtype=torch.int64, device=like.device)
    for name, values in zip(names, fields, strict=False):
        if isinstance(encoder.codings[name], Vocabulary):
            hits = (values == UNSEEN).long()
            counts += hits.sum(dim=1) if hits.ndim > 1 else hits
    return counts


def _counted(encoder: Encoder, names: Sequence[str], fields: Values) -> Iterator[tuple[str, Counted]]:
    for name, values in zip(names, fields, strict=False):
        if isinstance(encoder.codings[name], Vocabulary):
            codes = values.cpu().numpy()  # which counts a few numbers faster than torch
            yield name, Counted(int(np.count_nonzero(codes != PADDING)), int(np.count_nonzero(codes == UNSEEN)))


def _sized(encoder: Encoder, names: Sequence[str], fields: Values) -> Iterator[tuple[str, NDArray[np.int64]]]:
    for name, values in zip(names, fields, strict=False):
        if isinstance(encoder.codings[name], StandardScaler):
            numbers = values.cpu().numpy()
            numbers = numbers[~np.isnan(numbers)]
            yield name, np.bincount(np.searchsorted(SIZES, numbers, side="right"), minlength=len(SIZES) + 1)
