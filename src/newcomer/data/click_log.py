"""Click log: columnar events (item, user, context, label, time) with tables of items and users."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from newcomer.data.labels import LabelStatistics
from newcomer.data.schema import Schema


@dataclass(frozen=True)
class Column:
    """Values of one field for n rows.

    `values`: single-valued field: index into the sorted `names`, shape [n]; multi-valued: [n, max_values], padded with -1;
    numeric: the numbers, without names; vector: [n, size]. -1 and NaN mean missing.
    """

    names: tuple[str, ...]
    values: NDArray[Any]

    @classmethod
    def of_names(cls, values: Sequence[str | None]) -> Self:
        names = sorted({value for value in values if value is not None})
        index: dict[str | None, int] = {name: n for n, name in enumerate(names)}
        return cls(tuple(names), np.array([index.get(value, -1) for value in values], dtype=np.int32))

    @classmethod
    def of_numbers(cls, values: Sequence[float] | NDArray[Any]) -> Self:
        return cls((), np.asarray(values, dtype=np.float64))

    @property
    def is_vector(self) -> bool:
        return self.values.ndim == 2 and self.values.dtype.kind == "f"

    @classmethod
    def of_vectors(cls, values: Sequence[Sequence[float]] | NDArray[Any]) -> Self:
        return cls((), np.asarray(values, dtype=np.float32).reshape(len(values), -1))

    def texts(self) -> list[str]:
        """Names of a single-valued column; '' if missing."""
        return ["" if value < 0 else self.names[value] for value in self.values]

    def take(self, rows: NDArray[np.integer[Any]]) -> Self:
        return type(self)(self.names, self.values[rows])


@dataclass(frozen=True)
class EntityTable:
    """Items or users: sorted ids and the fields of their role.

    Ids are unique, except the empty id of users without one (see `Schema.user_missing`). In requests and events of known items, a
    user has one row for each distinct combination of its fields.
    """

    ids: tuple[str, ...]
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.integer[Any]]) -> Self:
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        return replace(self, ids=tuple(self.ids[row] for row in rows), columns=columns)


@dataclass(frozen=True)
class ClickLog:
    """Events, one per row. `take` shares the entity tables: a subset costs only its row indices.

    >>> from newcomer.data.io.log_reader import log_from_rows
    >>> log = log_from_rows(Schema("film", "viewer"), film=["b", "a"], viewer=[7, 7], label=[0, 1], time=[1, 2])
    >>> [log.items.ids[item] for item in log.item], log.take(log.label == 1).time.tolist()
    (['b', 'a'], [2])
    """

    schema: Schema
    items: EntityTable
    users: EntityTable
    context: Mapping[str, Column]
    """Context fields, one value per row."""
    item: NDArray[np.int32]
    """Index of each row's item in `items`."""
    user: NDArray[np.int32]
    label: NDArray[np.float32]
    """1 click, 0 no click; 0 in requests, whose label is unknown."""
    time: NDArray[np.int64]
    row: NDArray[np.int64]
    """Row number in the source, from 0."""
    fraction: NDArray[np.float64] | None = None
    """Fractional part of each time; None if all times are whole."""
    labels: LabelStatistics | None = None
    """Statistics of the original labels, if a threshold turns them into clicks: of all rows that were read together."""
    has_dates: bool = False
    """Whether the times were given as dates; they are then milliseconds."""
    weight: NDArray[np.float64] | None = None
    """Number of equal rows that each row stands for; None: 1 each, and in requests. See `data.weights`."""

    def __len__(self) -> int:
        return len(self.item)

    @property
    def fraction_or_zero(self) -> NDArray[np.float64]:
        """`fraction`, or zeros: orders events of equal time."""
        return np.zeros(len(self)) if self.fraction is None else self.fraction

    @property
    def weight_or_one(self) -> NDArray[np.float64]:
        """`weight`, or ones."""
        return np.ones(len(self)) if self.weight is None else self.weight

    def take(self, rows: NDArray[Any]) -> Self:
        """Rows at these indices, in this order, or where a boolean mask is true."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return replace(
            self,
            context={name: column.take(rows) for name, column in self.context.items()},
            item=self.item[rows],
            user=self.user[rows],
            label=self.label[rows],
            time=self.time[rows],
            row=self.row[rows],
            fraction=None if self.fraction is None else self.fraction[rows],
            weight=None if self.weight is None else self.weight[rows],
        )

    def of_items(self, items: NDArray[np.integer[Any]]) -> Self:
        """Rows of these items (indices into `items`)."""
        chosen = np.zeros(len(self.items), dtype=bool)
        chosen[items] = True
        return self.take(chosen[self.item])
