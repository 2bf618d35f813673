"""What the event log says of items: which are registered, which were deleted, and the events that count; and its replay."""

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from newcomer.data.canonical import canonical_name
from newcomer.data.io.frames import frame_from_rows
from newcomer.data.schema import Schema
from newcomer.errors import DataError, DataWarning
from newcomer.items.serving.results import Added
from newcomer.items.serving.service import ItemService
from newcomer.server.event_log import Record
from newcomer.server.event_rows import Row, by_kind, warm_rows

T = TypeVar("T")

BATCH = 1000
"""Rows replayed at once: few enough that a table of refused rows alone is refused row by row."""


@dataclass
class History:
    """What records say in the end.

    A deletion takes away what was before it, and so does the service: an event counts for an item that was there when it arrived.
    """

    deleted: set[str] = field(default_factory=set)
    registrations: dict[str, list[Row]] = field(default_factory=dict)
    """Registrations by item, in order. The latest valid one counts, or the first where features do not change."""
    events: list[tuple[str, Row]] = field(default_factory=list)
    """Item and row of each event, in the order of arrival. An impression is an event: a click on it corrects it."""

    def rounds(self, replace: bool) -> Iterator[dict[str, Row]]:
        """Registrations that count if they are valid, of all items; then those that count if these are not, and so on.

        `replace`: whether items may get other features (`ItemLearner.from_initial_state`).
        """
        for number in range(max(map(len, self.registrations.values()), default=0)):
            at = -1 - number if replace else number
            yield {name: rows[at] for name, rows in self.registrations.items() if number < len(rows)}


class HistoryReader:
    """Turns records into histories, one after the other. `items`: those that were there before the first record."""

    def __init__(self, schema: Schema, items: Collection[str]) -> None:
        self.schema, self._there = schema, set(items)

    def read(self, records: Sequence[Record]) -> History:
        """The history of these records, which follow those of earlier calls."""
        found = History()
        events: dict[str, list[tuple[int, Row]]] = {}
        for number, record in enumerate(records):
            name = name_of(record, self.schema)
            if name is None:  # was refused
                continue
            if record.kind == "deletion":
                self._there.discard(name)
                found.deleted.add(name)
                found.registrations.pop(name, None)
                events.pop(name, None)
            elif record.kind == "item":
                self._there.add(name)
                rows = found.registrations.setdefault(name, [])
                if record.content not in rows[-1:]:
                    rows.append(record.content)
            elif name in self._there:
                events.setdefault(name, []).append((number, record.content))
        arrived = sorted((number, name, row) for name, rows in events.items() for number, row in rows)
        found.events = [(name, row) for _, name, row in arrived]
        return found


def replay(
    service: ItemService, history: History, report: Callable[[int, int], object] = lambda done, of: None
) -> bool:
    """Do to the service what the history says. What was done before changes nothing; what was refused is refused again.

    `report` is called with the number of events that are done, and with that of all. Returns whether an item was deleted or got
    other features.
    """
    gone = history.deleted & set(service.headers())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # of what was warned of when it arrived
        for name in gone:
            with suppress(DataError):  # a worker was faster
                service.forget([name])
        done, replaced = set[str](), set[str]()
        for registrations in history.rounds(service.learner.from_initial_state):
            for part in batches([row for name, row in registrations.items() if name not in done]):
                for added in _added(service, part):
                    done |= {*added.new, *added.known, *added.replaced}
                    replaced |= {*added.replaced}
        for number, events in enumerate(batches(history.events)):
            report(number * BATCH, len(history.events))
            rows = [row for _, row in events]
            for kind, numbers in by_kind(rows, service.learner.schema).items():
                warm_rows(service, [rows[number] for number in numbers], kind)
    return bool(gone or replaced)


def batches(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """The rows, `BATCH` at a time."""
    return (rows[begin : begin + BATCH] for begin in range(0, len(rows), BATCH))


def _added(service: ItemService, rows: Sequence[Row]) -> list[Added]:
    try:
        return [service.add(frame_from_rows(rows, "items"), on_error="report", replace=True)]
    except DataError:  # a table that cannot be read as one: each by itself
        return [found for row in rows for found in _added(service, [row])] if len(rows) > 1 else []


def name_of(record: Record, schema: Schema) -> str | None:
    """The item of a record; None if it is no id."""
    return name_in({schema.item: record.content} if record.kind == "deletion" else record.content, schema)


def name_in(row: Row, schema: Schema) -> str | None:
    """The item of a row; None if it is no id."""
    try:
        return canonical_name(row.get(schema.item))
    except DataError:
        return None
