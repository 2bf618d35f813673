"""Interface of item-state databases: read and written by many processes, with optimistic versioning.

A state belongs to the pair (model, item); `model` is the fingerprint of the shared weights, so that one database holds the states
of several models and none is ever read with the weights of another. What is behind `ItemStates` is chosen by a URL; see `urls`.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from newcomer.errors import StoreError
from newcomer.settings import Json

KEPT = 200
"""Number of latest events of an item whose values are stored, in the order of arrival; ids are stored for all events."""


class DamagedItemError(StoreError):
    """The database's data of one item, `item`, is damaged."""

    def __init__(self, item: str, message: str) -> None:
        super().__init__(message)
        self.item = item


class ItemHeader(NamedTuple):
    """Version, phase and number of events of an item, read to see whether a cached state is current."""

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
    """Number of events that the state was adapted to."""
    parameters: bytes
    """Safetensors bytes: the item's features and state."""
    updated_at: str

    @property
    def header(self) -> ItemHeader:
        return ItemHeader(self.version, self.phase, self.events)

    def checksum(self, model: str) -> str:
        """SHA-256 of the row and its model."""
        content = [model, self.item, self.version, self.phase, self.events, self.updated_at]
        return hashlib.sha256(json.dumps(content).encode() + b"\n" + self.parameters).hexdigest()


@dataclass(frozen=True)
class Event:
    """A stored event of an item. `values`: its encoded fields, or None if not stored.

    `user`: digest of its user's id, `weight`: how many equal events it counts as; stored with the values and no longer than these.
    """

    id: str
    time: int
    label: int
    values: Sequence[Json] | None = None
    user: str | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Change:
    """An item's next state, one version higher, and the events behind the change."""

    state: ItemState
    events: Sequence[Event]
    unit_interval: bool | None = None
    """Whether all original labels are in [0, 1]; None if that is uninformative."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """New labels of the item's earlier events by id."""
    erased: Collection[str] = ()
    """Ids among the item's latest events whose values are erased, in a change without new events and labels.

    They become the oldest of the latest events, so that their values' places are the next to go and no others are lost for them.
    """


class ItemStates(ABC):
    """Item states and their events. All methods raise StoreError for database errors.

    What two processes do at once comes out as if one had been first: `add` and `commit` say what they left alone.
    """

    where: str = "states"
    """Name of the database in messages."""

    read_only: bool = False
    """Whether changes are not saved."""

    @abstractmethod
    def headers(self, model: str, items: Collection[str] | None = None) -> dict[str, ItemHeader]:
        """Headers of these items, as far as they exist; of all items by default."""

    @abstractmethod
    def get(self, model: str, items: Collection[str]) -> dict[str, ItemState]:
        """States of these items, as far as they exist.

        Raises StoreError, with the item's name, for a row that is not what was written.
        """

    @abstractmethod
    def add(self, model: str, changes: Sequence[Change]) -> set[str]:
        """Insert items with their events, all or none; existing ones are unchanged and returned.

        An item that was forgotten gets the version after its last one, so that no process takes it for what it was.
        """

    @abstractmethod
    def imported_stages(self, model: str) -> int:
        """Number of stages of the model's learner whose items were imported."""

    @abstractmethod
    def import_stages(self, model: str, stages: int, changes: Sequence[Change]) -> None:
        """Import the learner's items of these stages, without existing and deleted ones.

        Whatever is deleted later does not come back: `imported_stages` says from now on that these stages are done with.
        """

    @abstractmethod
    def forget(self, model: str, items: Collection[str]) -> set[str]:
        """Delete items and their events, all or none; returns those that existed."""

    @abstractmethod
    def forgotten(self, model: str, items: Collection[str]) -> set[str]:
        """Items among these that were deleted and not added again."""

    @abstractmethod
    def unit_labels(self, model: str) -> int:
        """Number of consecutive events with labels in [0, 1], see `Change.unit_interval`."""

    @abstractmethod
    def commit(self, model: str, changes: Sequence[Change]) -> set[str]:
        """Replace the previous versions by these states, one an item, insert their events and correct labels, in one transaction.

        Returned are the items that have another version by now: nothing of theirs was changed or noted. If the user of an event is
        forgotten, nothing is changed, and all items are returned.

        Raises StoreError, with the item's name, where its latest events, or one whose label changes, are not those that were noted;
        nothing is changed then.
        """

    @abstractmethod
    def labels(self, model: str, events: Mapping[str, Collection[str]]) -> dict[str, dict[str, int]]:
        """Labels of these event ids by item, as far as they were counted."""

    def seen(self, model: str, events: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
        """Event ids by item that were counted already."""
        return {item: set(labels) for item, labels in self.labels(model, events).items()}

    @abstractmethod
    def event_history(self, model: str, items: Collection[str]) -> dict[str, list[Event]]:
        """Events of these items with stored values, in the order of arrival."""

    @abstractmethod
    def forget_users(self, users: Collection[str]) -> None:
        """Refuse events of the users with these digests from now on, for all models: no `commit` that ends later has one."""

    @abstractmethod
    def forgotten_users(self, users: Collection[str]) -> set[str]:
        """Digests among these whose users are forgotten."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    def damaged(self, item: str, what: str) -> DamagedItemError:
        """The error for data of an item that is not what was written."""
        return DamagedItemError(
            item,
            f"{self.where}: item '{item}': {what} is not what was written (checksum); restore the database from a copy, or "
            "forget the item (`newcomer forget STORE --item ID`) and add it again",
        )


def now() -> str:
    """UTC time in ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
