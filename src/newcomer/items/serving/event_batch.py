"""A batch of events with their ids."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from newcomer.data.click_log import ClickLog
from newcomer.items.encoding.encoder import Clicks
from newcomer.items.serving.event_serialization import to_values
from newcomer.store.states import Event


@dataclass(frozen=True)
class EventBatch:
    """Rows of a click log with their event ids, unique within an item."""

    log: ClickLog
    ids: Sequence[str]

    @classmethod
    def of(cls, log: ClickLog, ids: Sequence[str]) -> tuple[Self, list[str]]:
        """The first of the rows with the same item and id, and messages about later ones with another label."""
        first: dict[tuple[int, str], int] = {}
        every, conflicts = cls(log, ids), []
        for row, key in enumerate(zip(log.item.tolist(), ids, strict=True)):
            one = first.setdefault(key, row)
            if log.label[one] != log.label[row]:
                conflicts.append(every.conflict(row, int(log.label[one])))
        return every.take(np.array(list(first.values()), dtype=np.int64)), conflicts

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[Any]) -> Self:
        """Rows by indices or mask."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
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

    def asked(self, items: Collection[str]) -> dict[str, list[str]]:
        """Event ids of these items."""
        return {name: [self.ids[row] for row in rows] for name, rows in self.by_item().items() if name in items}

    def without(self, seen: Mapping[str, Collection[str]]) -> Self:
        """Events that are not among these ids of their item."""
        names = (self.log.items.ids[item] for item in self.log.item)
        return self.take(
            np.array([id not in seen.get(name, ()) for name, id in zip(names, self.ids, strict=True)], dtype=bool)
        )

    def conflicts(self, seen: Mapping[str, Mapping[str, int]]) -> list[str]:
        """Messages about events that were counted with another label; `seen`: see `ItemStates.labels`."""
        names = [self.log.items.ids[item] for item in self.log.item]
        labels = [seen.get(name, {}).get(id) for name, id in zip(names, self.ids, strict=True)]
        return [
            self.conflict(row, label)
            for row, label in enumerate(labels)
            if label is not None and label != int(self.log.label[row])
        ]

    def conflict(self, row: int, counted: int) -> str:
        """Message about a row whose event was counted with another label."""
        names = ("no click", "a click")
        return (
            f"row {self.log.row[row] + 1}: event '{self.ids[row]}' of item '{self.log.items.ids[self.log.item[row]]}' is "
            f"{names[int(self.log.label[row])]} here, and has counted as {names[counted]}"
        )

    def of_items(self, items: Collection[str]) -> NDArray[np.bool_]:
        """Mask of the rows of these items."""
        chosen = np.array([name in items for name in self.log.items.ids], dtype=bool)
        mask: NDArray[np.bool_] = chosen[self.log.item]
        return mask

    def events(self, rows: Sequence[int], clicks: Clicks | None) -> list[Event]:
        """Database events of these rows, with their encoded values from `clicks`, if given."""
        log = self.log
        return [
            Event(self.ids[n], int(log.time[n]), int(log.label[n]), None if clicks is None else to_values(clicks, n))
            for n in rows
        ]


def item_names(log: ClickLog) -> list[str]:
    """Ids of the items in this log."""
    return [log.items.ids[item] for item in np.unique(log.item)]
