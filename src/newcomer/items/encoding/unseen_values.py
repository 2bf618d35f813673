"""How much of what a model is given it has never seen: read as one value, it is answered alike, whoever and whatever it is."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.data.vocabulary import PADDING, UNSEEN, Vocabulary
from newcomer.errors import DataWarning
from newcomer.items.encoding.encoder import Clicks, Encoder, Values
from newcomer.shapes import Int, Tensor

NEARLY_ALL = 0.9
"""From this share on a column is warned of."""

FEW = 10
"""Fewer values than this are no reason for a warning: a new user alone is nothing strange."""


@dataclass(frozen=True)
class Counted:
    """Of a column's values how many there were, and how many of them the model has never seen."""

    values: int = 0
    unseen: int = 0

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(self.values + other.values, self.unseen + other.unseen)


@dataclass(frozen=True)
class Unseen:
    """By column; a user's values count once a user. Columns of numbers are none of it."""

    columns: Mapping[str, Counted] = field(default_factory=dict)

    def __add__(self, other: "Unseen") -> "Unseen":
        names = dict.fromkeys([*self.columns, *other.columns])
        found = {name: self.columns.get(name, Counted()) + other.columns.get(name, Counted()) for name in names}
        return Unseen(found)

    def to_json(self) -> dict[str, dict[str, int]]:
        """Columns that hold anything."""
        return {
            name: {"values": counted.values, "unseen": counted.unseen}
            for name, counted in self.columns.items()
            if counted.values
        }

    def __str__(self) -> str:
        """The columns with something never seen, such as 'device 3 of 20'; empty where all is known."""
        counted = ((name, counted) for name, counted in self.columns.items() if counted.unseen)
        return ", ".join(f"{name} {of.unseen:,} of {of.values:,}" for name, of in counted)

    def suspects(self, but: Sequence[str] = ()) -> list[str]:
        """Columns of which nearly all is unseen; `but` these, where that is to be expected."""
        return [
            name
            for name, of in self.columns.items()
            if name not in but and of.values >= FEW and of.unseen >= NEARLY_ALL * of.values
        ]

    def warn(self, but: Sequence[str] = ()) -> None:
        """An DataWarning for each of `suspects`; what it says does not depend on the numbers, so that it comes once."""
        for name in self.suspects(but):
            warnings.warn(
                f"column '{name}': nearly all values were not there when the model learned, and are read as one and the same; "
                "see that they are written as they were then",
                DataWarning,
                stacklevel=3,
            )


def unseen_of_items(encoder: Encoder, own: Values) -> Unseen:
    """In the fields of items."""
    return Unseen(dict(_counted(encoder, [field.name for field in encoder.item_fields], own)))


def unseen_of_clicks(encoder: Encoder, clicks: Clicks, rows: NDArray[np.bool_] | None = None) -> Unseen:
    """In the fields of events, or of those where a mask holds; of users only those that occur."""
    chosen = slice(None) if rows is None else torch.from_numpy(rows).to(clicks.item.device)
    users = torch.unique(clicks.user[chosen])
    values = [values[users] for values in clicks.of_users] + [values[chosen] for values in clicks.of_rows]
    return Unseen(dict(_counted(encoder, [field.name for field in encoder.row_fields], values)))


def unseen_by_row(encoder: Encoder, clicks: Clicks) -> Int[Tensor, " row"]:
    """How many values each event has that were never seen, its user's among them."""
    found = torch.zeros(len(clicks), dtype=torch.int64, device=clicks.item.device)
    all_values = clicks.values(torch.arange(len(clicks), device=clicks.item.device))
    for one, values in zip(encoder.row_fields, all_values, strict=False):  # tastes, the last, are the user once more
        if isinstance(encoder.codings[one.name], Vocabulary):
            hits = (values == UNSEEN).long()
            found += hits.sum(dim=1) if hits.ndim > 1 else hits
    return found


def _counted(encoder: Encoder, names: Sequence[str], fields: Values) -> Iterator[tuple[str, Counted]]:
    for name, values in zip(names, fields, strict=False):
        if isinstance(encoder.codings[name], Vocabulary):
            yield name, Counted(int((values != PADDING).sum()), int((values == UNSEEN).sum()))
