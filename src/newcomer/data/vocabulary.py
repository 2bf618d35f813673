"""Encoding of field values for embedding: vocabularies of names, and standardization of numbers and vectors."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from newcomer.data.canonical import canonical_or_same, may_change
from newcomer.data.click_log import Column
from newcomer.data.running_stats import RunningStats
from newcomer.errors import DataError
from newcomer.settings import Json

PADDING, UNSEEN = 0, 1

BOUND = 10.0
"""Standardized numbers are clipped to ± this bound."""


@dataclass(frozen=True)
class Vocabulary:
    """Vocabulary of one field: index 0 is padding and missing, 1 is unseen, the rest are the sorted names.

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
        """Names with at least `min_count` occurrences; row i of the column counts `times[i]`, 1 by default."""
        weights = None if times is None else times[column.values >= 0]
        counts = np.bincount(
            column.values[column.values >= 0].astype(np.int64).ravel(), weights, minlength=len(column.names)
        )
        kept = (name for name, count in zip(column.names, counts, strict=True) if count >= max(min_count, 1))
        return cls(field, tuple(kept), unseen)

    def __len__(self) -> int:
        """Number of indices, including the two special ones."""
        return len(self.names) + 2

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def encode(self, column: Column) -> NDArray[np.int64]:
        """Indices in the shape of the column's values.

        Raises DataError for an unknown value if `unseen` is "error".
        """
        table = np.array([self._known.get(name, UNSEEN) for name in column.names] + [PADDING], dtype=np.int64)
        indices = table[column.values.astype(np.int64)]  # -1, missing, indexes the last entry
        if self.unseen == "error" and (indices == UNSEEN).any():
            name = column.names[int(column.values[indices == UNSEEN][0])]
            raise DataError(
                f"column '{self.field}': value '{name}' did not occur in training; set unseen = 'shared' to allow it"
            )
        return indices

    @cached_property
    def _known(self) -> dict[str, int]:
        """Index of every name and, for a name stored in a non-canonical spelling, of its canonical spelling if that is unique."""
        known = {name: index for index, name in enumerate(self.names, start=2)}
        others: dict[str, list[int]] = {}
        for name, index in known.items():  # not in polars, whose thread pool does not survive a fork
            if may_change(name) and (spelled := canonical_or_same(name)) != name:
                others.setdefault(spelled, []).append(index)
        return {name: indices[0] for name, indices in others.items() if len(indices) == 1} | known

    def to_json(self) -> dict[str, Json]:
        return {"field": self.field, "names": list(self.names), "unseen": self.unseen}


@dataclass(frozen=True)
class HashBuckets:
    """Ids by a hash into `buckets`, whose ids share a row: a table that does not grow with the ids, and knows no unseen one.

    Index 0 is padding and 1 the empty id, all ids if there are no buckets, and those of forgotten users, which begin with a NUL.

    >>> users = HashBuckets.fit("user", ["ann", "bob", "eve"], buckets=2)
    >>> users.encode(Column.of_names(["ann", "bob", "eve", "", "zoe", None])).tolist(), users.ids, users.colliding
    ([3, 2, 2, 1, 3, 0], 3, 2)
    """

    field: str
    buckets: int
    ids: int
    """Number of ids in the training data."""
    colliding: int
    """Number of those that share their bucket with another."""

    @classmethod
    def fit(cls, field: str, ids: Iterable[str], buckets: int) -> Self:
        """`ids`: the distinct ones."""
        codes = np.array([_bucket(id, buckets) for id in ids if id], dtype=np.int64)
        alone = int((np.bincount(codes) == 1).sum()) if buckets else 0
        return cls(field, buckets, len(codes), len(codes) - alone)

    def __len__(self) -> int:
        """Number of indices, including the two special ones."""
        return self.buckets + 2

    def encode(self, column: Column) -> NDArray[np.int64]:
        """Indices in the shape of the column's values."""
        codes = [_bucket(name, self.buckets) if name and name[0] != "\0" else UNSEEN for name in column.names]
        return np.array([*codes, PADDING], dtype=np.int64)[column.values.astype(np.int64)]

    def __str__(self) -> str:
        if not self.buckets:
            return f"left out ({self.ids:,})"
        return f"{self.ids:,} hashed into {self.buckets:,}, {self.colliding:,} share a bucket"

    def to_json(self) -> dict[str, Json]:
        return {"field": self.field, "buckets": self.buckets, "ids": self.ids, "colliding": self.colliding}


def _bucket(name: str, buckets: int) -> int:
    """Index of an id's bucket."""
    if not buckets:
        return UNSEEN
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
    return 2 + int.from_bytes(digest) % buckets


@dataclass(frozen=True)
class StandardScaler:
    """Standardization of a numeric field to mean 0 and standard deviation 1 on the training rows; NaN stays NaN.

    Mean and deviation ignore outliers (see `RunningStats.robust_moments`); results are clipped to ± `bound`.

    >>> StandardScaler.fit("price", Column.of_numbers([1.0, 3.0])).encode(Column.of_numbers([5.0])).tolist()
    [3.0]
    """

    field: str
    mean: float
    deviation: float
    bound: float = BOUND

    @classmethod
    def fit(cls, field: str, column: Column) -> Self:
        return cls.of(field, RunningStats.of(column.values))

    @classmethod
    def of(cls, field: str, stats: RunningStats) -> Self:
        mean, variance = stats.robust_moments()
        return cls(field, float(mean), float(np.sqrt(variance)) or 1.0)

    def encode(self, column: Column) -> NDArray[np.float32]:
        limit = self.bound * self.deviation
        near = np.clip(column.values, self.mean - limit, self.mean + limit)
        scaled: NDArray[np.float32] = ((near - self.mean) / self.deviation).astype(np.float32)
        return scaled.clip(-self.bound, self.bound)

    def to_json(self) -> dict[str, Json]:
        return {"field": self.field, "mean": self.mean, "deviation": self.deviation, "bound": self.bound}


@dataclass(frozen=True)
class VectorScaler:
    """Standardization of a vector field: subtracts the mean and divides all entries by one deviation, which keeps directions.

    NaN stays NaN. Mean and deviation ignore outliers; a vector whose root mean square exceeds `bound` is scaled down to it.

    >>> scale = VectorScaler.fit("look", Column.of_vectors([[0.0, 4.0], [2.0, 4.0]]))
    >>> scale.mean, scale.deviation == 0.5 ** 0.5
    ((1.0, 4.0), True)
    """

    field: str
    mean: tuple[float, ...]
    deviation: float
    """Root mean square of all centred entries."""
    bound: float = BOUND

    @classmethod
    def fit(cls, field: str, column: Column) -> Self:
        return cls.of(field, RunningStats.of(column.values))

    @classmethod
    def of(cls, field: str, stats: RunningStats) -> Self:
        mean, variance = stats.robust_moments()
        deviation = float(np.sqrt(variance.mean())) if stats.count else 1.0
        return cls(field, tuple(mean.tolist()), deviation or 1.0)

    def __len__(self) -> int:
        """Length of the vectors."""
        return len(self.mean)

    def encode(self, column: Column) -> NDArray[np.float32]:
        """Raises DataError for vectors of another length, unless all are missing."""
        vectors = column.values
        if np.isnan(vectors).all():
            return np.full((len(vectors), len(self)), np.nan, dtype=np.float32)
        if vectors.shape[1] != len(self):
            raise DataError(
                f"column '{self.field}': vectors of {vectors.shape[1]} numbers, but there were {len(self)} in training; "
                "use the same source as in training"
            )
        scaled: NDArray[np.float64] = (vectors - np.array(self.mean)) / self.deviation
        outliers = np.flatnonzero(
            ~(np.abs(scaled).max(axis=1, initial=0.0) <= self.bound) & ~np.isnan(scaled).any(axis=1)
        )
        if len(outliers):
            scaled[outliers] *= np.minimum(1.0, self.bound / _root_mean_squares(scaled[outliers]))[:, None]
        return scaled.astype(np.float32)

    def to_json(self) -> dict[str, Json]:
        return {"field": self.field, "mean": list(self.mean), "deviation": self.deviation, "bound": self.bound}

    @classmethod
    def from_json(cls, table: Mapping[str, Json]) -> Self:
        """Inverse of `to_json`; older stores have no bound and get the default."""
        _require_finite(table)
        return cls(table["field"], tuple(table["mean"]), table["deviation"], table.get("bound", BOUND))


def coding_from_json(table: Mapping[str, Json]) -> Vocabulary | HashBuckets | StandardScaler | VectorScaler:
    """Inverse of `to_json` of any encoding."""
    if "buckets" in table:
        return HashBuckets(table["field"], table["buckets"], table["ids"], table["colliding"])
    if "names" in table:
        return Vocabulary(table["field"], tuple(table["names"]), table["unseen"])
    if isinstance(table["mean"], list):
        return VectorScaler.from_json(table)
    _require_finite(table)
    return StandardScaler(table["field"], table["mean"], table["deviation"], table.get("bound", BOUND))


def _root_mean_squares(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square of each vector, without overflow."""
    largest = np.abs(vectors).max(axis=1)
    found: NDArray[np.float64] = largest * np.sqrt(np.square(vectors / largest[:, None]).mean(axis=1))
    return found


def _require_finite(table: Mapping[str, Json]) -> None:
    if not (np.isfinite(table["mean"]).all() and np.isfinite(table["deviation"]) and table["deviation"] > 0):
        raise DataError(
            f"column '{table['field']}': its scale in the store is not finite (deviation {table['deviation']}); "
            "train the model again"
        )
