"""A click log: who was shown what, when, and whether they clicked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from newcomer.data.labels import Labels
from newcomer.data.schema import Schema


@dataclass(frozen=True)
class Column:
    """One field of n things.

    `values`: for one value each, its index in the sorted `names`, shape [n]; for several, [n, most] filled up with -1; for
    numbers, the numbers themselves, and no names; for vectors, [n, size] of numbers. -1 and NaN are 'no value'.
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
        """The values by name, for a column of one value each; '' for none."""
        return ["" if value < 0 else self.names[value] for value in self.values]

    def take(self, rows: NDArray[np.integer[Any]]) -> Self:
        return replace(self, values=self.values[rows])


@dataclass(frozen=True)
class Table:
    """Items, or users: their ids, sorted, and the fields that are theirs.

    An item is there once, and so is a user in a log to learn from, but for those without an id, '' (see `Schema.user_missing`).
    In requests and events of known items a user is there once for each combination of his fields that they show.
    """

    ids: tuple[str, ...]
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.integer[Any]]) -> Self:
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        return replace(self, ids=tuple(self.ids[row] for row in rows), columns=columns)


@dataclass(frozen=True)
class Log:
    """Events: one row each. `take` shares the tables, so a part of a log costs no more than its rows' indices.

    >>> from newcomer.data.io.log_reader import log_from_rows
    >>> log = log_from_rows(Schema("film", "viewer"), film=["b", "a"], viewer=[7, 7], label=[0, 1], time=[1, 2])
    >>> [log.items.ids[item] for item in log.item], log.take(log.label == 1).time.tolist()
    (['b', 'a'], [2])
    """

    schema: Schema
    items: Table
    users: Table
    context: Mapping[str, Column]
    """The context fields, row by row."""
    item: NDArray[np.int32]
    """Which of `items` the row is about."""
    user: NDArray[np.int32]
    label: NDArray[np.float32]
    """1 clicked, 0 not; 0 where nobody knows yet."""
    time: NDArray[np.int64]
    row: NDArray[np.int64]
    """Where the row stood in what was read, counted from 0."""
    fraction: NDArray[np.float64] | None = None
    """What is left of each time after its whole number; None where nothing is."""
    labels: Labels | None = None
    """The labels as they were written, where a threshold makes clicks of them: of all rows that were read together."""
    dated: bool = False
    """Whether the times were dates, and are milliseconds."""

    def __len__(self) -> int:
        return len(self.item)

    @property
    def ticks(self) -> NDArray[np.float64]:
        """`fraction`, zeros where nothing is left: what orders events of one time."""
        return np.zeros(len(self)) if self.fraction is None else self.fraction

    def take(self, rows: NDArray[Any]) -> Self:
        """The rows of these indices, in this order, or those where a mask holds."""
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
        )

    def of_items(self, items: NDArray[np.integer[Any]]) -> Self:
        """The rows of these items."""
        chosen = np.zeros(len(self.items), dtype=bool)
        chosen[items] = True
        return self.take(chosen[self.item])
