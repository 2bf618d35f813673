"""What items have of their own, in a database: read by many processes, changed one version at a time.

A state belongs to the pair (model, item); `model` is the fingerprint of the shared weights, so that one database holds the states
of several models and none is ever read with the weights of another. What is behind `ItemStates` is chosen by a URL.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from newcomer.errors import StoreError
from newcomer.settings import Json

KEPT = 200
"""Of an item's events the values of the latest so many are kept, in the order they came in; their ids are kept for ever."""


class DamagedItemError(StoreError):
    """What a database holds of one item, `item`, is not what was written."""

    def __init__(self, item: str, message: str) -> None:
        super().__init__(message)
        self.item = item


class Head(NamedTuple):
    """The part of a state that is read to see whether one knows it already."""

    version: int
    phase: str
    events: int


@dataclass(frozen=True)
class ItemState:
    """One item's row. `version` counts its changes from 0; `updated_at` is UTC, ISO 8601."""

    item: str
    version: int
    phase: str
    events: int
    """How many events it was tuned on so far."""
    parameters: bytes
    """Safetensors: the item's own fields and its state."""
    updated_at: str

    @property
    def head(self) -> Head:
        return Head(self.version, self.phase, self.events)

    def checksum(self, model: str) -> str:
        """SHA-256 over all that the row says, and whose it is."""
        told = [model, self.item, self.version, self.phase, self.events, self.updated_at]
        return hashlib.sha256(json.dumps(told).encode() + b"\n" + self.parameters).hexdigest()


@dataclass(frozen=True)
class Event:
    """One event of an item as it is kept. `values`: the encoded fields; None where they are not kept."""

    id: str
    time: int
    label: int
    values: Sequence[Json] | None = None


@dataclass(frozen=True)
class Change:
    """An item's next state, one version above the one it was made from, and the events that made it."""

    state: ItemState
    events: Sequence[Event]
    unit: bool | None = None
    """Whether all labels, as they were written, came from 0 to 1; None where that tells nothing."""


class ItemStates(ABC):
    """States of items, and which events each has seen. All methods raise StoreError when the database refuses.

    What two processes do at once comes out as if one had been first: `add` and `advance` say what they left alone.
    """

    where: str = "states"
    """What messages call the database."""

    read_only: bool = False
    """Whether nothing that is changed here stays."""

    @abstractmethod
    def heads(self, model: str, items: Collection[str] | None = None) -> dict[str, Head]:
        """Version, phase and number of events of those of these items that are there; of all items by default."""

    @abstractmethod
    def get(self, model: str, items: Collection[str]) -> dict[str, ItemState]:
        """The states of those of these items that are there.

        Raises StoreError, with the item's name, for a row that is not what was written.
        """

    @abstractmethod
    def add(self, model: str, changes: Sequence[Change]) -> set[str]:
        """Take up items with what they have seen, all of them or none; those that were there already stay, and are returned.

        An item that was forgotten gets the version after its last one, so that no process takes it for what it was.
        """

    @abstractmethod
    def imported_stages(self, model: str) -> int:
        """How many stages of the model's learner were looked through for items of its own; 0 before any was."""

    @abstractmethod
    def import_stages(self, model: str, stages: int, changes: Sequence[Change]) -> None:
        """Take up the learner's own items of so many stages: those that are not there and were not forgotten.

        Whatever is deleted later does not come back: `imported_stages` says from now on that these stages are done with.
        """

    @abstractmethod
    def forget(self, model: str, items: Collection[str]) -> set[str]:
        """Delete the states and events of those of these items that are there, which are returned; all of them or none."""

    @abstractmethod
    def forgotten(self, model: str, items: Collection[str]) -> set[str]:
        """Those of these items that were forgotten and are not there again."""

    @abstractmethod
    def unit_labels(self, model: str) -> int:
        """How many events with labels from 0 to 1 have counted since the last change with another, by `Change.unit`."""

    @abstractmethod
    def advance(self, model: str, changes: Sequence[Change]) -> set[str]:
        """Put these states in the place of the version before, together with the events that made them, in one transaction.

        Returned are the items that have another version by now: nothing of theirs was changed or noted.

        Raises StoreError, with the item's name, where its latest events are not those that were noted; nothing is changed then.
        """

    @abstractmethod
    def labels(self, model: str, events: Mapping[str, Collection[str]]) -> dict[str, dict[str, int]]:
        """With which label each of these event ids of each item has counted; those that have not are left out."""

    def seen(self, model: str, events: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
        """Which of these event ids of each item have counted already."""
        return {item: set(labels) for item, labels in self.labels(model, events).items()}

    @abstractmethod
    def past(self, model: str, items: Collection[str]) -> dict[str, list[Event]]:
        """The events of these items whose values are kept, in the order they came in."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held of the database."""


def now() -> str:
    """The time in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def latest(events: Sequence[Event]) -> Mapping[str, Event]:
    """By id, those whose values are to be kept, if they have any."""
    return {event.id: event for event in events[-KEPT:] if event.values is not None}
