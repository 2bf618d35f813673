"""Item states in a SQL database by SQLAlchemy URL; `sqlite:///items.db` needs no server. See `sql_tables`."""

import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from newcomer.errors import StoreError
from newcomer.store.sql_statements import (
    CHECKSUM,
    DELETED,
    DROPPED,
    EVENTS_DELETED,
    NO_UNIT,
    NOTED,
    REMEMBERED,
    REPLACED,
    SEEN,
    STAGES,
    UNIT,
    VERSION,
)
from newcomer.store.sql_tables import (
    DELETED_ITEMS,
    EVENTS,
    LATEST,
    MODELS,
    STATES,
    EventRow,
    event_rows,
    events_checksum,
    latest_after,
    make_tables,
    state_row,
)
from newcomer.store.states import KEPT, Change, DamagedItemError, Event, ItemHeader, ItemState, ItemStates, latest

AT_ONCE = 500
"""Names in one query, below every database's limit."""

ATTEMPTS = 10
"""Retries after a conflict with another process."""


class SqlItemStates(ItemStates):
    """The database at this URL; missing tables are created.

    `wait_seconds`: how long a SQLite file that another process is writing is waited for. SQLite files are in WAL mode and every
    transaction is on the disk when it ends (`synchronous=FULL`). `connect`: makes the one connection of a SQLite database.

    Raises StoreError for a URL or a database that cannot be used.
    """

    def __init__(
        self, url: str, *, wait_seconds: float = 30.0, connect: Callable[[], sqlite3.Connection] | None = None
    ) -> None:
        self.where, self.read_only = url, False
        try:
            parsed = sa.make_url(url)
            self.where = parsed.render_as_string(hide_password=True)
            sqlite = parsed.get_backend_name() == "sqlite"
            one = {"creator": connect, "poolclass": sa.pool.StaticPool} if connect else {}
            self._engine = sa.create_engine(parsed, connect_args={"timeout": wait_seconds} if sqlite else {}, **one)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise StoreError(
                f"{self.where}: no database that can be used ({_line(error)}); write a URL such as sqlite:///items.db, "
                "and install the database's driver"
            ) from None
        if sqlite:
            sa.event.listen(self._engine, "connect", _durable)
        self._make_tables()

    def headers(self, model: str, items: Collection[str] | None = None) -> dict[str, ItemHeader]:
        columns = sa.select(STATES.c.item_id, STATES.c.version, STATES.c.phase, STATES.c.event_count)
        rows = self._rows(columns, STATES, model, items)
        return {row.item_id: self._head(row) for row in rows}

    def _head(self, row: Any) -> ItemHeader:
        if type(row.version) is not int or type(row.event_count) is not int or not isinstance(row.phase, str):
            raise DamagedItemError(
                row.item_id,
                f"{self.where}: the state of item '{row.item_id}' is damaged; restore the database from a copy",
            )
        return ItemHeader(row.version, row.phase, row.event_count)

    def get(self, model: str, items: Collection[str]) -> dict[str, ItemState]:
        return {row.item_id: self._sound(model, row) for row in self._rows(sa.select(STATES), STATES, model, items)}

    def add(self, model: str, changes: Sequence[Change]) -> set[str]:
        names = [change.state.item for change in changes]
        for attempt in range(ATTEMPTS):
            there = set(self.headers(model, names))
            new = [change for change in changes if change.state.item not in there]
            last = self._last_versions(model, [change.state.item for change in new])
            try:
                with self._changing() as connection:
                    self._insert_new(connection, model, [_after(change, last) for change in new])
                    if last:
                        connection.execute(REMEMBERED, [{"m": model, "i": item} for item in sorted(last)])
                return there
            except _CollisionError:  # somebody else added one of them just now: look again
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def imported_stages(self, model: str) -> int:
        with self._asking(), self._engine.connect() as connection:
            return int(connection.scalar(sa.select(MODELS.c.imported_stages).where(MODELS.c.model == model)) or 0)

    def import_stages(self, model: str, stages: int, changes: Sequence[Change]) -> None:
        names = [change.state.item for change in changes]
        for attempt in range(ATTEMPTS):
            there = {*self.headers(model, names), *self.forgotten(model, names)}
            try:
                with self._changing() as connection:
                    self._insert_new(connection, model, [c for c in changes if c.state.item not in there])
                    if not connection.execute(STAGES, {"m": model, "s": stages}).rowcount:
                        _insert(connection, MODELS, [{"model": model, "imported_stages": stages}])
                return
            except _CollisionError:  # another process is at the same
                if attempt == ATTEMPTS - 1:
                    raise

    def unit_labels(self, model: str) -> int:
        with self._asking(), self._engine.connect() as connection:
            return int(connection.scalar(sa.select(MODELS.c.unit_interval_labels).where(MODELS.c.model == model)) or 0)

    def commit(self, model: str, changes: Sequence[Change]) -> set[str]:
        late, units = set[str](), dict[bool | None, int]()
        with self._changing() as connection:
            for change in sorted(
                changes, key=lambda change: change.state.item
            ):  # one order in all processes avoids deadlocks
                if not _replace(connection, model, change.state):
                    late.add(change.state.item)
                    continue
                self._note(connection, model, change)
                units[change.unit_interval] = units.get(change.unit_interval, 0) + len(change.events)
            if units.get(False):
                connection.execute(NO_UNIT, {"m": model})
            elif units.get(True):
                connection.execute(UNIT, {"m": model, "n": units[True]})
        return late

    def forget(self, model: str, items: Collection[str]) -> set[str]:
        with self._changing() as connection:
            return {item for item in sorted(set(items)) if self._forget(connection, model, item)}

    def forgotten(self, model: str, items: Collection[str]) -> set[str]:
        return set(self._last_versions(model, items))

    def labels(self, model: str, events: Mapping[str, Collection[str]]) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        with self._asking(), self._engine.connect() as connection:
            for item, ids in events.items():
                asked = ({"m": model, "i": item, "ids": part} for part in _parts(sorted(ids)))
                found[item] = {row.event_id: row.label for part in asked for row in connection.execute(SEEN, part)}
        return found

    def event_history(self, model: str, items: Collection[str]) -> dict[str, list[Event]]:
        found: dict[str, list[Event]] = {item: [] for item in items}
        kept = sa.select(EVENTS).where(EVENTS.c.payload.is_not(None)).order_by(EVENTS.c.item_id, EVENTS.c.position)
        for row in self._rows(kept, EVENTS, model, items):
            try:
                found[row.item_id].append(Event(row.event_id, row.timestamp, row.label, json.loads(row.payload)))
            except ValueError:
                raise self._damaged(row.item_id, f"event '{row.event_id}'") from None
        return {item: events[-KEPT:] for item, events in found.items()}

    def close(self) -> None:
        self._engine.dispose()

    def _make_tables(self) -> None:
        for attempt in range(ATTEMPTS):  # of several processes that find no tables one makes them
            try:
                with self._asking():
                    return make_tables(self._engine)
            except StoreError as error:
                if attempt == ATTEMPTS - 1 or not any(part in str(error) for part in ("exists", "duplicate column")):
                    raise
        return None

    def _rows(
        self, query: "sa.Select[Any]", table: sa.Table, model: str, items: Collection[str] | None
    ) -> list["sa.Row[Any]"]:
        query = query.where(table.c.model == model)
        with self._asking(), self._engine.connect() as connection:
            if items is None:
                return list(connection.execute(query))
            named = query.where(table.c.item_id.in_(sa.bindparam("names", expanding=True)))
            return [row for part in _parts(sorted(items)) for row in connection.execute(named, {"names": part})]

    def _last_versions(self, model: str, items: Collection[str]) -> dict[str, int]:
        """Last versions of deleted items."""
        rows = self._rows(sa.select(DELETED_ITEMS.c.item_id, DELETED_ITEMS.c.version), DELETED_ITEMS, model, items)
        return {row.item_id: row.version for row in rows}

    def _insert_new(self, connection: sa.Connection, model: str, changes: Sequence[Change]) -> None:
        """Insert new items with their events."""
        states, events = [], []
        for change in changes:
            rows = event_rows(model, change)
            noted = events_checksum(latest_after([], change, rows))
            states.append({**state_row(model, change.state), "events_checksum": noted})
            events += rows
        _insert(connection, STATES, states)
        _insert(connection, EVENTS, events)

    def _note(self, connection: sa.Connection, model: str, change: Change) -> None:
        """Insert the events of a replaced state; the item's latest events before must match their checksum."""
        item, rows = change.state.item, event_rows(model, change)
        key = {"m": model, "i": item}
        first = change.state.events - len(change.events) - KEPT
        before: list[EventRow] = [tuple(row) for row in connection.execute(LATEST, {**key, "p": first})]
        noted = connection.scalar(CHECKSUM, key)
        if noted != events_checksum(before):
            raise self._damaged(item, "one of its latest events")
        _insert(connection, EVENTS, rows)
        if change.state.events > KEPT and latest(change.events):
            connection.execute(DROPPED, {**key, "p": change.state.events - KEPT})
        connection.execute(NOTED, {**key, "c": events_checksum(latest_after(before, change, rows))})

    def _forget(self, connection: sa.Connection, model: str, item: str) -> bool:
        """Delete an item except for its last version; returns whether it existed."""
        key = {"m": model, "i": item}
        for _ in range(ATTEMPTS):  # until nobody changes it in between
            version = connection.scalar(VERSION, key)
            if version is None:
                return False
            if connection.execute(DELETED, {**key, "v": version}).rowcount == 1:
                connection.execute(EVENTS_DELETED, key)
                connection.execute(REMEMBERED, key)
                _insert(connection, DELETED_ITEMS, [{"model": model, "item_id": item, "version": version}])
                return True
        raise StoreError(f"{self.where}: item '{item}' was changed by others {ATTEMPTS} times meanwhile; try again")

    def _sound(self, model: str, row: "sa.Row[Any]") -> ItemState:
        parameters = row.parameters if isinstance(row.parameters, bytes) else b""
        state = ItemState(row.item_id, row.version, row.phase, row.event_count, parameters, row.updated_at)
        if state.checksum(model) != row.checksum:
            raise self._damaged(row.item_id, "its row")
        return state

    def _damaged(self, item: str, what: str) -> DamagedItemError:
        return DamagedItemError(
            item,
            f"{self.where}: item '{item}': {what} is not what was written (checksum); restore the database from a copy, or "
            "forget the item (`newcomer forget STORE --item ID`) and add it again",
        )

    @contextmanager
    def _changing(self) -> Iterator[sa.Connection]:
        """A transaction, durable when it ends."""
        with self._asking(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError as error:
            raise _CollisionError(f"{self.where}: {_reason(error)}") from None
        except SQLAlchemyError as error:
            raise StoreError(f"{self.where}: {_reason(error)}") from None


class _CollisionError(StoreError):
    """The row exists already."""


def _replace(connection: sa.Connection, model: str, state: ItemState) -> bool:
    """Replace the previous version; returns False if another process changed it."""
    row = state_row(model, state)
    key = {"m": row.pop("model"), "i": row.pop("item_id"), "v": state.version - 1}
    return connection.execute(REPLACED, row | key).rowcount == 1


def _after(change: Change, last: Mapping[str, int]) -> Change:
    """The change with a version after the last one of a deleted item."""
    item = change.state.item
    return replace(change, state=replace(change.state, version=last[item] + 1)) if item in last else change


def _insert(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        connection.execute(sa.insert(table), rows)


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE))


def _durable(connection: Any, _: object) -> None:
    """SQLite: concurrent readers (WAL), and durable transactions (synchronous=FULL)."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _reason(error: SQLAlchemyError) -> str:
    """The database's message, and what to do."""
    reason = _line(error.orig) if isinstance(error, DBAPIError) and isinstance(error.orig, Exception) else _line(error)
    advice = {
        "locked": "another process is writing it; try again when it is done",
        "not a database": "restore it from a copy",
        "malformed": "restore it from a copy",
        "readonly": "make the file and its folder writable",
        "unable to open": "give a file in a folder that is there and can be written",
    }
    then = next((text for part, text in advice.items() if part in reason), "see that it is there and may be written")
    return f"the database refused ({reason}); {then}"


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return sa.URL.create("sqlite", database=str(path)).render_as_string()
