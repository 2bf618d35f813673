"""From values to numbers that a model can embed: which values it knows, and how a number is scaled."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from newcomer.data.canonical import maybe_respelled, respelled
from newcomer.data.click_log import Column
from newcomer.data.running_stats import Spread
from newcomer.errors import DataError
from newcomer.settings import Json

PADDING, UNSEEN = 0, 1

BOUND = 10.0
"""Standardised numbers end here, on either side of 0: what is further out is read as this."""


@dataclass(frozen=True)
class Vocabulary:
    """The values of one field that a model knows: index 0 is padding and 'no value', 1 is 'unseen', the rest are sorted names.

    >>> colours = Vocabulary.fit("colour", Column.of_names(["red", "blue", "red", None]))
    >>> colours.names, colours.encode(Column.of_names(["red", None, "green", "blue"])).tolist()
    (('blue', 'red'), [3, 0, 1, 2])
    """

    field: str
    names: tuple[str, ...]
    unseen: Literal["shared", "error"] = "shared"

    @classmethod
    def fit(
        cls,
        field: str,
        column: Column,
        unseen: Literal["shared", "error"] = "shared",
        min_count: int = 1,
        times: NDArray[np.int64] | None = None,
    ) -> Self:
        """The names that occur at least `min_count` times in the column, whose rows stand for so many `times`, or for one each."""
        weights = None if times is None else times[column.values >= 0]
        counts = np.bincount(
            column.values[column.values >= 0].astype(np.int64).ravel(), weights, minlength=len(column.names)
        )
        kept = (name for name, count in zip(column.names, counts, strict=True) if count >= max(min_count, 1))
        return cls(field, tuple(kept), unseen)

    def __len__(self) -> int:
        """Number of indices, the two special ones included."""
        return len(self.names) + 2

    def encode(self, column: Column) -> NDArray[np.int64]:
        """Indices in the shape of the column's values.

        Raises DataError for a value that is not known, where the policy is `error`.
        """
        table = np.array([self._known.get(name, UNSEEN) for name in column.names] + [PADDING], dtype=np.int64)
        indices = table[column.values.astype(np.int64)]  # -1, 'no value', reads the last entry
        if self.unseen == "error" and (indices == UNSEEN).any():
            name = column.names[int(column.values[indices == UNSEEN][0])]
            raise DataError(
                f"column '{self.field}': value '{name}' was not there in training; set unseen = 'shared' to allow it"
            )
        return indices

    @cached_property
    def _known(self) -> dict[str, int]:
        """Every name, and for one that was kept in another spelling the canonical one, where only one name has it."""
        known = {name: index for index, name in enumerate(self.names, start=2)}
        others: dict[str, list[int]] = {}
        for name, index in known.items():  # in Python: a process that was forked cannot wait for polars' threads
            if maybe_respelled(name) and (spelled := respelled(name)) != name:
                others.setdefault(spelled, []).append(index)
        return {name: indices[0] for name, indices in others.items() if len(indices) == 1} | known

    def to_json(self) -> dict[str, Json]:
        return {"field": self.field, "names": list(self.names), "unseen": self.unseen}


@dataclass(frozen=True)
class Scale:
    """A numeric field brought to mean 0 and standard deviation 1 of the rows it was fitted on; NaN, 'not known', stays NaN.

    Numbers far out (see `usual`) count for neither, and no number is further from 0 than `bound`.

    >>> Scale.fit("price", Column.of_numbers([1.0, 3.0])).encode(Column.of_numbers([5.0])).tolist()
    [3.0]
    """

    field: str
    mean: float
    deviation: float
    bound: float = BOUND

    @classmethod
    def fit(cls, field: str, column: Column) -> Self:
        return cls.of(field, Spread.of(column.values))

    @classmethod
    def of(cls, field: str, spread: Spread) -> Self:
        mean, variance = spread.usual()
        return cls(field, float(mean), float(np.sqrt(variance)) or 1.0)

    def encode(self, column: Column) -> NDArray[np.float32]:
        away = self.bound * self.deviation
        near = np.clip(column.values, self.mean - away, self.mean + away)
        scaled: NDArray[np.float32] = ((near - self.mean) / self.deviation).astype(np.float32)
        return scaled.clip(-self.bound, self.bound)

    def to_json(self) -> dict[str, Json]:
        return {"field": self.field, "mean": self.mean, "deviation": self.deviation, "bound": self.bound}


@dataclass(frozen=True)
class VectorScale:
    """A field of vectors with the mean taken off and all numbers divided by one deviation, so that directions stay what they are.

    NaN, 'not known', stays NaN. Vectors far out count for neither (see `usual`); one whose numbers have a root mean square above
    `bound` is shortened to it.

    >>> scale = VectorScale.fit("look", Column.of_vectors([[0.0, 4.0], [2.0, 4.0]]))
    >>> scale.mean, scale.deviation == 0.5 ** 0.5
    ((1.0, 4.0), True)
    """

    field: str
    mean: tuple[float, ...]
    deviation: float
    """The root of the mean square of all numbers that are left without the mean."""
    bound: float = BOUND

    @classmethod
    def fit(cls, field: str, column: Column) -> Self:
        return cls.of(field, Spread.of(column.values))

    @classmethod
    def of(cls, field: str, spread: Spread) -> Self:
        mean, variance = spread.usual()
        deviation = float(np.sqrt(variance.mean())) if spread.count else 1.0
        return cls(field, tuple(mean.tolist()), deviation or 1.0)

    def __len__(self) -> int:
        """Numbers in a vector."""
        return len(self.mean)

    def encode(self, column: Column) -> NDArray[np.float32]:
        """Raises DataError for vectors of another length, unless none is known."""
        vectors = column.values
        if np.isnan(vectors).all():
            return np.full((len(vectors), len(self)), np.nan, dtype=np.float32)
        if vectors.shape[1] != len(self):
            raise DataError(
                f"column '{self.field}': vectors of {vectors.shape[1]} numbers, but there were {len(self)} in training; "
                "give those of the same source"
            )
        scaled: NDArray[np.float64] = (vectors - np.array(self.mean)) / self.deviation
        far = np.flatnonzero(~(np.abs(scaled).max(axis=1, initial=0.0) <= self.bound) & ~np.isnan(scaled).any(axis=1))
        if len(far):
            scaled[far] *= np.minimum(1.0, self.bound / _root_mean_squares(scaled[far]))[:, None]
        return scaled.astype(np.float32)

    def to_json(self) -> dict[str, Json]:
        return {"field": self.field, "mean": list(self.mean), "deviation": self.deviation, "bound": self.bound}

    @classmethod
    def from_json(cls, table: Mapping[str, Json]) -> Self:
        """What `to_json` wrote; stores from before had no bound, and have this one."""
        _require_finite(table)
        return cls(table["field"], tuple(table["mean"]), table["deviation"], table.get("bound", BOUND))


def coding_from_json(table: Mapping[str, Json]) -> Vocabulary | Scale | VectorScale:
    """What `to_json` of any of them wrote."""
    if "names" in table:
        return Vocabulary(table["field"], tuple(table["names"]), table["unseen"])
    if isinstance(table["mean"], list):
        return VectorScale.from_json(table)
    _require_finite(table)
    return Scale(table["field"], table["mean"], table["deviation"], table.get("bound", BOUND))


def _root_mean_squares(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each vector, without an overflow on the way."""
    largest = np.abs(vectors).max(axis=1)
    found: NDArray[np.float64] = largest * np.sqrt(np.square(vectors / largest[:, None]).mean(axis=1))
    return found


def _require_finite(table: Mapping[str, Json]) -> None:
    if not (np.isfinite(table["mean"]).all() and np.isfinite(table["deviation"]) and table["deviation"] > 0):
        raise DataError(
            f"column '{table['field']}': was scaled with numbers that overflowed (deviation {table['deviation']}); "
            "train the model anew"
        )
