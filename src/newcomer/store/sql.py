"""Item states in SQLite and PostgreSQL; `sqlite:///items.db` needs no server. See `sql_tables`."""

import hashlib
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from newcomer.store import sql_statements as sql
from newcomer.store.event_rows import (
    EventRow,
    LatestRow,
    event_rows,
    is_sound,
    latest_after,
    latest_checksum,
    latest_row,
    to_events,
    with_erased,
    with_label,
)
from newcomer.store.sql_engine import is_read_only, lock, make_engine, store_errors
from newcomer.store.sql_schema import prepare
from newcomer.store.sql_tables import DELETED_ITEMS, EVENTS, FORGOTTEN_USERS, MODELS, STATES, event_row, state_row
from newcomer.store.states import KEPT, Change, DamagedItemError, Event, ItemHeader, ItemState, ItemStates
from newcomer.store.urls import without_secrets

AT_ONCE = 500
"""Names in one query, below every database's limit."""

USERS = 0x6E657763_75736572
"""Number of the lock that those who commit events share, and those who forget users have alone."""


class SqlItemStates(ItemStates):
    """The database at this URL; missing tables are created, and older ones upgraded.

    `wait_seconds`: how long a transaction waits for others that write. Items are added, imported and deleted by one process at a
    time; states are replaced by all at once, an item's row being locked from reading its version to the end of the transaction.
    `copied`: of a SQLite file that cannot be written, what makes a connection to a copy in memory.

    Raises StoreError for a URL or a database that cannot be used.
    """

    def __init__(
        self, url: str, *, wait_seconds: float = 30.0, copied: Callable[[], sqlite3.Connection] | None = None
    ) -> None:
        self.where = without_secrets(url)
        self._engine = make_engine("sqlite://" if copied else url, wait_seconds, copied)
        try:
            with self._reading() as connection:
                read_only = is_read_only(connection)
            with store_errors(self.where):
                prepare(self._engine, self.where, read_only)
            self.read_only = read_only or copied is not None
        except BaseException:
            self.close()
            raise

    def headers(self, model: str, items: Collection[str] | None = None) -> dict[str, ItemHeader]:
        if items is not None:
            with self._reading() as connection:
                return {row.item_id: self._header(row) for row in _of_items(connection, sql.HEADERS, model, items)}
        with self._reading() as connection:
            return {row.item_id: self._header(row) for row in connection.execute(sql.ALL_HEADERS, {"m": model})}

    def get(self, model: str, items: Collection[str]) -> dict[str, ItemState]:
        if not items:
            return {}
        with self._reading() as connection:
            return {row.item_id: self._state(model, row) for row in _of_items(connection, sql.ITEMS, model, items)}

    def add(self, model: str, changes: Sequence[Change]) -> set[str]:
        names = [change.state.item for change in changes]
        with self._writing(of_all=model) as connection:
            there = {row.item_id for row in _of_items(connection, sql.HEADERS, model, names)}
            new = [change for change in changes if change.state.item not in there]
            last = _last_versions(connection, model, [change.state.item for change in new])
            _insert_new(connection, model, [_after(change, last) for change in new])
            _delete(connection, sql.REMEMBERED, model, last)
        return there

    def imported_stages(self, model: str) -> int:
        with self._reading() as connection:
            return int(connection.scalar(sa.select(MODELS.c.imported_stages).where(MODELS.c.model == model)) or 0)

    def import_stages(self, model: str, stages: int, changes: Sequence[Change]) -> None:
        names = [change.state.item for change in changes]
        with self._writing(of_all=model) as connection:
            there = {row.item_id for row in _of_items(connection, sql.HEADERS, model, names)}
            there |= set(_last_versions(connection, model, names))
            _insert_new(connection, model, [change for change in changes if change.state.item not in there])
            if not connection.execute(sql.STAGES, {"m": model, "s": stages}).rowcount:
                _insert(connection, MODELS, [{"model": model, "imported_stages": stages}])

    def unit_labels(self, model: str) -> int:
        with self._reading() as connection:
            return int(connection.scalar(sa.select(MODELS.c.unit_interval_labels).where(MODELS.c.model == model)) or 0)

    def commit(self, model: str, changes: Sequence[Change]) -> set[str]:
        names = [change.state.item for change in changes]
        users = {event.user for change in changes for event in change.events if event.user is not None}
        with self._writing() as connection:
            if users:
                lock(connection, USERS, shared=True)
                if _forgotten(connection, users):
                    return set(names)
            noted = {row.item_id: row for row in _of_items(connection, sql.LOCKED, model, names)}
            due = [c for c in changes if c.state.item in noted and noted[c.state.item].version == c.state.version - 1]
            latest = _latest(connection, model, [change.state.item for change in due])
            states, events, corrections, dropped = [], [], [], []
            for change in due:
                item, before = change.state.item, latest[change.state.item]
                if noted[item].events_checksum != latest_checksum(before):
                    raise self.damaged(item, "one of its latest events")
                rows = event_rows(model, change)
                corrected = self._corrected(connection, model, change) | self._erased(connection, model, change, before)
                latest_rows = latest_after(before, change, rows, corrected)
                states.append(state_row(model, change.state, latest_checksum(latest_rows)))
                events += [event_row(model, item, row) for row in rows]
                corrections += [_correction(model, item, row) for row in corrected.values()]
                dropped += _dropped(model, change, before)
            if states:
                connection.execute(
                    sql.REPLACED, [row | {"m": row.pop("model"), "i": row.pop("item_id")} for row in states]
                )
            _insert(connection, EVENTS, events)
            if corrections:
                connection.execute(sql.CORRECTED, corrections)
            if dropped:
                connection.execute(sql.DROPPED, dropped)
            _count_units(connection, model, due)
        return set(names) - {change.state.item for change in due}

    def forget(self, model: str, items: Collection[str]) -> set[str]:
        with self._writing(of_all=model) as connection:
            versions = {row.item_id: row.version for row in _of_items(connection, sql.LOCKED, model, items)}
            for statement in (sql.DELETED, sql.EVENTS_DELETED, sql.REMEMBERED):
                _delete(connection, statement, model, versions)
            last = [{"model": model, "item_id": item, "version": version} for item, version in versions.items()]
            _insert(connection, DELETED_ITEMS, last)
        return set(versions)

    def forgotten(self, model: str, items: Collection[str]) -> set[str]:
        with self._reading() as connection:
            return set(_last_versions(connection, model, items))

    def forget_users(self, users: Collection[str]) -> None:
        with self._writing() as connection:
            lock(connection, USERS)
            new = sorted(set(users) - _forgotten(connection, users))
            _insert(connection, FORGOTTEN_USERS, [{"user_digest": user} for user in new])

    def forgotten_users(self, users: Collection[str]) -> set[str]:
        with self._reading() as connection:
            return _forgotten(connection, users)

    def labels(self, model: str, events: Mapping[str, Collection[str]]) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {item: {} for item in events}
        if not events:
            return found
        with self._reading() as connection:
            texts = {item: _texts(connection, events[item]) for item in _texts(connection, events)}
            pairs = [(item, id) for item, ids in texts.items() for id in ids]
            for item, row in _seen(connection, model, pairs):
                if not is_sound(model, item, row):
                    raise self.damaged(item, f"event '{row.id}'")
                found[item][row.id] = row.label
        return found

    def event_history(self, model: str, items: Collection[str]) -> dict[str, list[Event]]:
        found: dict[str, list[Event]] = {item: [] for item in items}
        if not items:
            return found
        latest, noted = defaultdict[str, list[EventRow]](list), dict[str, str | None]()
        with self._reading() as connection:
            found_rows = _of_items(connection, sql.HISTORY[connection.dialect.name], model, items)
            for item, checksum, *of_event in map(tuple, found_rows):
                noted[item] = checksum
                latest[item] += [EventRow._make(of_event)] if of_event[0] is not None else []
        every = [(item, row) for item, rows in latest.items() for row in rows]
        kept = [(item, row) for item, row in every if row.payload is not None or row.payload_checksum is not None]
        for (item, row), event in zip(kept, to_events(model, kept), strict=True):
            if event is None:
                raise self.damaged(item, f"event '{row.id}'")
            found[item].append(event)
        for item, checksum in noted.items():
            if checksum != latest_checksum([*map(latest_row, latest[item])]):
                raise self.damaged(item, "one of its latest events")
        return found

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with store_errors(self.where), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self, of_all: str | None = None) -> Iterator[sa.Connection]:
        """A transaction, durable when it ends; `of_all`: the only one that adds and deletes items of this model meanwhile."""
        with store_errors(self.where), self._engine.execution_options(writes=True).begin() as connection:
            if of_all is not None:
                digest = hashlib.sha256(f"newcomer {of_all}".encode()).digest()
                lock(connection, int.from_bytes(digest[:8], "big", signed=True))
            yield connection

    def _corrected(self, connection: sa.Connection, model: str, change: Change) -> dict[str, EventRow]:
        """Rows of the events whose labels a change corrects, with the new labels, by their former checksums."""
        item, found = change.state.item, dict[str, EventRow]()
        for _, row in _seen(connection, model, [(item, id) for id in _texts(connection, change.labels)]):
            after = with_label(model, item, row, change.labels[row.id])
            if after is None:
                raise self.damaged(item, f"event '{row.id}'")
            found[str(row.checksum)] = after
        if missing := set(change.labels) - {row.id for row in found.values()}:
            raise self.damaged(item, f"event '{min(missing)}'")
        return found

    def _erased(
        self, connection: sa.Connection, model: str, change: Change, before: Sequence[LatestRow]
    ) -> dict[str, EventRow]:
        """Rows of the latest events after those are erased that the change says, by their former checksums."""
        if not change.erased:
            return {}
        item = change.state.item
        found = connection.execute(
            sql.LATEST_ROWS, {"m": model, "i": item, "first": before[0].position if before else 0}
        )
        after = with_erased(model, item, [EventRow._make(row[1:]) for row in found], change.erased)
        if after is None:
            raise self.damaged(item, "one of its latest events")
        return after

    def _header(self, row: Any) -> ItemHeader:
        if type(row.version) is not int or type(row.event_count) is not int or not isinstance(row.phase, str):
            raise DamagedItemError(
                row.item_id,
                f"{self.where}: the state of item '{row.item_id}' is damaged; restore the database from a copy",
            )
        return ItemHeader(row.version, row.phase, row.event_count)

    def _state(self, model: str, row: "sa.Row[Any]") -> ItemState:
        parameters = row.parameters if isinstance(row.parameters, bytes) else b""
        state = ItemState(row.item_id, row.version, row.phase, row.event_count, parameters, row.updated_at)
        if state.checksum(model) != row.checksum:
            raise self.damaged(row.item_id, "its row")
        return state


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return sa.URL.create("sqlite", database=str(path)).render_as_string()


def _of_items(
    connection: sa.Connection, query: "sa.Select[Any]", model: str, items: Collection[str]
) -> Iterator["sa.Row[Any]"]:
    """Rows of these items."""
    for part in _parts(_texts(connection, items)):
        yield from connection.execute(query, {"m": model, "names": part}).all()  # at once: much faster than one by one


def _delete(connection: sa.Connection, statement: sa.Delete, model: str, items: Collection[str]) -> None:
    for part in _parts(_texts(connection, items)):
        connection.execute(statement, {"m": model, "names": part})


def _last_versions(connection: sa.Connection, model: str, items: Collection[str]) -> dict[str, int]:
    """Last versions of deleted items."""
    return {row.item_id: row.version for row in _of_items(connection, sql.LAST_VERSIONS, model, items)}


def _seen(connection: sa.Connection, model: str, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, EventRow]]:
    """Items, and rows of the events that there are with these items and ids."""
    for part in _parts(pairs):
        items, ids = map(list, zip(*part, strict=True))
        asked = {"items": items, "ids": ids} if connection.dialect.name == "postgresql" else {"pairs": part}
        found = connection.execute(sql.SEEN[connection.dialect.name], {"m": model, **asked})
        yield from ((row[0], EventRow._make(row[1:])) for row in found.all())


def _latest(connection: sa.Connection, model: str, items: Collection[str]) -> dict[str, list[LatestRow]]:
    """The latest events of each item."""
    found: dict[str, list[LatestRow]] = defaultdict(list)
    for row in map(tuple, _of_items(connection, sql.LATEST[connection.dialect.name], model, items)):
        found[row[0]] += [LatestRow._make(row[2:])] if row[2] is not None else []
    return found


def _insert_new(connection: sa.Connection, model: str, changes: Sequence[Change]) -> None:
    """Insert new items with their events."""
    states, events = [], []
    for change in changes:
        rows = event_rows(model, change)
        states.append(state_row(model, change.state, latest_checksum(latest_after([], change, rows, {}))))
        events += [event_row(model, change.state.item, row) for row in rows]
    _insert(connection, STATES, states)
    _insert(connection, EVENTS, events)


def _insert(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        connection.execute(sa.insert(table), rows)


def _correction(model: str, item: str, row: EventRow) -> dict[str, Any]:
    """Parameters of `sql.CORRECTED`."""
    columns = event_row(model, item, row)
    return {"m": columns.pop("model"), "i": columns.pop("item_id"), "e": columns.pop("event_id"), **columns}


def _dropped(model: str, change: Change, before: Sequence[LatestRow]) -> list[dict[str, Any]]:
    """The positions of an item whose values are dropped by a change."""
    end = change.state.events - KEPT
    if not any(row.position < end and row.payload_checksum is not None for row in before):
        return []
    return [{"m": model, "i": change.state.item, "first": before[0].position, "end": end}]


def _count_units(connection: sa.Connection, model: str, changes: Sequence[Change]) -> None:
    """Count consecutive labels in [0, 1]; see `Change.unit_interval`."""
    units = [len(change.events) for change in changes if change.unit_interval]
    if any(change.events for change in changes if change.unit_interval is False):
        connection.execute(sql.NO_UNIT, {"m": model})
    elif units:
        connection.execute(sql.UNIT, {"m": model, "n": sum(units)})


def _forgotten(connection: sa.Connection, users: Collection[str]) -> set[str]:
    """Digests among these of forgotten users."""
    parts = _parts(sorted(users))
    return {row.user_digest for part in parts for row in connection.execute(sql.FORGOTTEN, {"names": part})}


def _after(change: Change, last: Mapping[str, int]) -> Change:
    """The change with a version after the last one of a deleted item."""
    item = change.state.item
    return replace(change, state=replace(change.state, version=last[item] + 1)) if item in last else change


def _texts(connection: sa.Connection, names: Collection[str]) -> list[str]:
    """The names in order, without those that PostgreSQL cannot hold and so does not: with a NUL."""
    has_nul = connection.dialect.name != "postgresql"
    return sorted(name for name in names if has_nul or "\0" not in name)


def _parts(names: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE))
