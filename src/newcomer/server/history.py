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
from newcomer.items.serving.service import ItemService
from newcomer.server.event_log import Record
from newcomer.server.event_rows import Row, event_id_column, warm_rows

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
    """Different registrations by item, in order. The service takes the first valid one and refuses the others."""
    events: list[tuple[str, Row]] = field(default_factory=list)
    """Item and row of each event, in the order of arrival. An impression is an event: a click on it corrects it."""

    def rounds(self) -> Iterator[list[Row]]:
        """First registrations of all items, then second ones, and so on."""
        for number in range(max(map(len, self.registrations.values()), default=0)):
            yield [rows[number] for rows in self.registrations.values() if number < len(rows)]


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
                if record.content not in rows:
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

    `report` is called with the number of events that are done, and with that of all. Returns whether an item was deleted.
    """
    gone = history.deleted & set(service.headers())
    id_column = event_id_column(service.learner.schema)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # of what was warned of when it arrived
        for name in gone:
            with suppress(DataError):  # a worker was faster
                service.forget([name])
        for rows in history.rounds():
            for part in batches(rows):
                _add(service, part)
        for number, events in enumerate(batches(history.events)):
            report(number * BATCH, len(history.events))
            for has_id in (True, False):
                if rows := [row for _, row in events if (id_column in row) == has_id]:
                    warm_rows(service, rows, has_id)
    return bool(gone)


def batches(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """The rows, `BATCH` at a time."""
    return (rows[begin : begin + BATCH] for begin in range(0, len(rows), BATCH))


def _add(service: ItemService, rows: Sequence[Row]) -> None:
    try:
        service.add(frame_from_rows(rows, "items"), on_error="report")
    except DataError:
        for row in rows if len(rows) > 1 else ():  # a table that cannot be read as one: each by itself
            _add(service, [row])


def name_of(record: Record, schema: Schema) -> str | None:
    """The item of a record; None if it is no id."""
    try:
        return canonical_name(record.content if record.kind == "deletion" else record.content.get(schema.item))
    except DataError:
        return None
