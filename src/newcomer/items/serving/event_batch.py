"""A batch of events with their ids."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from newcomer.data.click_log import ClickLog
from newcomer.errors import DataError
from newcomer.items.serving.user_digests import user_digest
from newcomer.settings import Json
from newcomer.store.states import Event


@dataclass(frozen=True)
class EventBatch:
    """Rows of a click log with their event ids, unique within an item."""

    log: ClickLog
    ids: Sequence[str]

    @classmethod
    def of(cls, log: ClickLog, ids: Sequence[str]) -> tuple[Self, Self, list[DataError]]:
        """One event for each item and id, a click if one of its rows is; rows that repeat one; errors of what contradicts one."""
        first: dict[tuple[int, str], int] = {}
        label, wrong, again = log.label.copy(), list[DataError](), list[int]()
        for row, key in enumerate(zip(log.item.tolist(), ids, strict=True)):
            one = first.setdefault(key, row)
            if row != one and not same_values(log, row, one):
                wrong.append(cls(log, ids).other_values(row))
            elif label[row] < label[one]:
                taken_back = [cls(log, ids).not_taken_back(row)] if log.schema.has_grades else []
                wrong += taken_back
                again += [] if taken_back else [row]
            else:
                label[one] = label[row]
                again += [] if row == one else [row]
        merged = cls(replace(log, label=label), ids)
        once = merged.take(np.array(list(first.values()), dtype=np.int64))
        return once, cls(log, ids).take(np.array(again, dtype=np.int64)), wrong

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[Any]) -> Self:
        """Rows by indices or mask."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        if len(rows) == len(self) and (rows == np.arange(len(rows))).all():
            return self
        return type(self)(self.log.take(rows), [self.ids[row] for row in rows.tolist()])

    def in_order_of_time(self) -> Self:
        """Sorted by time, then by id: what follows does not depend on the order of rows."""
        return self.take(np.lexsort((np.array(self.ids), self.log.fraction_or_zero, self.log.time)))

    @property
    def items(self) -> list[str]:
        """Ids of the events' items."""
        return item_names(self.log)

    def by_item(self) -> dict[str, list[int]]:
        """Rows of each item, in order."""
        found: dict[str, list[int]] = {}
        for row, item in enumerate(self.log.item):
            found.setdefault(self.log.items.ids[item], []).append(row)
        return found

    def user(self, row: int) -> str:
        """Id of a row's user."""
        return self.log.users.ids[int(self.log.user[row])]

    def weight(self, row: int) -> float:
        """Weight of a row, in the single precision in which it enters likelihoods."""
        return 1.0 if self.log.weight is None else float(np.float32(self.log.weight[row]))

    def asked(self, items: Collection[str]) -> dict[str, list[str]]:
        """Event ids of these items."""
        return {name: [self.ids[row] for row in rows] for name, rows in self.by_item().items() if name in items}

    def counted(self, seen: Mapping[str, Collection[str]]) -> NDArray[np.bool_]:
        """Mask of the events that are among these ids of their item."""
        names = (self.log.items.ids[item] for item in self.log.item)
        return np.array([id in seen.get(name, ()) for name, id in zip(names, self.ids, strict=True)], dtype=bool)

    def differing(self, seen: Mapping[str, Mapping[str, int]], label: int) -> NDArray[np.bool_]:
        """Mask of the events with this label that were counted with the other one; `seen`: see `ItemStates.labels`."""
        names = (self.log.items.ids[item] for item in self.log.item)
        counted = [seen.get(name, {}).get(id, label) for name, id in zip(names, self.ids, strict=True)]
        mask: NDArray[np.bool_] = (self.log.label == label) & (np.array(counted, dtype=np.int64) != label)
        return mask

    def not_corrected(self, row: int, why: str) -> DataError:
        """The error of a click on an event that counted as no click and cannot be corrected."""
        return DataError(f"{self._named(row)} is a click here, and has counted as no click; {why}")

    def of_forgotten_user(self, row: int) -> DataError:
        """The error of an event of a forgotten user; it does not say of whom."""
        return DataError(f"{self._named(row)} is of a user who was forgotten; leave it out")

    def other_values(self, row: int) -> DataError:
        """The error of an event under the id of another one."""
        values = "user or context" if self.log.weight is None else "user, context or weight"
        return DataError(
            f"{self._named(row)} has another {values} than an event under this id had before; give it an id of its own"
        )

    def refused_before(self, row: int) -> DataError:
        """The error of an event that was refused in an earlier row."""
        return DataError(f"{self._named(row)} was refused in an earlier row")

    def not_taken_back(self, row: int) -> DataError:
        """The error of a grade below the threshold under the id of one above it."""
        return DataError(f"{self._named(row)} is no click here, and has counted as a click, which cannot be taken back")

    def _named(self, row: int) -> str:
        item = self.log.items.ids[self.log.item[row]]
        return f"row {self.log.row[row] + 1}: event '{self.ids[row]}' of item '{item}'"

    def of_users(self, users: Collection[str]) -> NDArray[np.bool_]:
        """Mask of the rows of these users."""
        chosen = np.array([name in users for name in self.log.users.ids], dtype=bool)
        mask: NDArray[np.bool_] = chosen[self.log.user]
        return mask

    def of_items(self, items: Collection[str]) -> NDArray[np.bool_]:
        """Mask of the rows of these items."""
        chosen = np.array([name in items for name in self.log.items.ids], dtype=bool)
        mask: NDArray[np.bool_] = chosen[self.log.item]
        return mask

    def events(self, rows: Sequence[int], values: Sequence[Sequence[Json]] | None) -> list[Event]:
        """Database events of these rows, with their encoded values, if those of all rows are given."""
        log = self.log
        return [
            Event(
                self.ids[n],
                int(log.time[n]),
                int(log.label[n]),
                None if values is None else values[n],
                user_digest(self.user(n)),
                self.weight(n),
            )
            for n in rows
        ]


def same_values(log: ClickLog, one: int, other: int) -> bool:
    """Whether two events have the same user, context and weight."""
    weight = () if log.weight is None else (log.weight,)
    columns = (*weight, *(column.values for column in log.context.values()))
    return bool(log.user[one] == log.user[other]) and all(
        np.array_equal(values[one], values[other], equal_nan=values.dtype.kind == "f") for values in columns
    )


def user_names(log: ClickLog) -> list[str]:
    """Ids of the users in this log."""
    return [log.users.ids[user] for user in np.unique(log.user)]


def item_names(log: ClickLog) -> list[str]:
    """Ids of the items in this log."""
    return [log.items.ids[item] for item in np.unique(log.item)]
