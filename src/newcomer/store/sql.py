"""Item states in any SQL database that SQLAlchemy knows by its URL; `sqlite:///items.db` needs no server.

    item_states   model, item | version, phase, events, parameters, checksum, updated_at
    item_events   model, item, event | place, time, label, payload

`place` counts an item's events as they came in. `payload` is a JSON list of the event's encoded values, or NULL.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from newcomer.errors import StoreError
from newcomer.store.states import KEPT, Change, Event, Head, ItemState, ItemStates, latest

AT_ONCE = 500
"""Names in one query: below every database's limit."""

ATTEMPTS = 10
"""How often something is tried again that another process was quicker with."""

_tables = sa.MetaData()
_states = sa.Table(
    "item_states",
    _tables,
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("item", sa.String(255), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("phase", sa.String(16), nullable=False),
    sa.Column("events", sa.BigInteger, nullable=False),
    sa.Column("parameters", sa.LargeBinary, nullable=False),
    sa.Column("checksum", sa.String(64), nullable=False),
    sa.Column("updated_at", sa.String(32), nullable=False),
)
_events = sa.Table(
    "item_events",
    _tables,
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("item", sa.String(255), primary_key=True),
    sa.Column("event", sa.String(255), primary_key=True),
    sa.Column("place", sa.BigInteger, nullable=False),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("label", sa.SmallInteger, nullable=False),
    sa.Column("payload", sa.Text),
    sa.Index("item_events_place", "model", "item", "place"),
)


class SqlItemStates(ItemStates):
    """The database at this URL; its tables are made where they are not there yet.

    `wait_seconds`: how long a SQLite file that another process is writing is waited for. SQLite files are in WAL mode and every
    transaction is on the disk when it ends (`synchronous=FULL`).

    Raises StoreError for a URL or a database that cannot be used.
    """

    def __init__(self, url: str, *, wait_seconds: float = 30.0) -> None:
        self.where = url
        try:
            parsed = sa.make_url(url)
            self.where = parsed.render_as_string(hide_password=True)
            sqlite = parsed.get_backend_name() == "sqlite"
            self._engine = sa.create_engine(parsed, connect_args={"timeout": wait_seconds} if sqlite else {})
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise StoreError(
                f"{self.where}: no database that can be used ({_line(error)}); write a URL such as sqlite:///items.db, "
                "and install the database's driver"
            ) from None
        if sqlite:
            sa.event.listen(self._engine, "connect", _durable)
        self._make_tables()

    def heads(self, model: str, items: Collection[str] | None = None) -> dict[str, Head]:
        columns = sa.select(_states.c.item, _states.c.version, _states.c.phase, _states.c.events)
        rows = self._rows(columns, _states, model, items)
        return {row.item: Head(row.version, row.phase, row.events) for row in rows}

    def get(self, model: str, items: Collection[str]) -> dict[str, ItemState]:
        return {row.item: self._sound(model, row) for row in self._rows(sa.select(_states), _states, model, items)}

    def add(self, model: str, changes: Sequence[Change]) -> set[str]:
        names = [change.state.item for change in changes]
        for attempt in range(ATTEMPTS):
            there = set(self.heads(model, names))
            new = [change for change in changes if change.state.item not in there]
            try:
                with self._changing() as connection:
                    _insert(connection, _states, [_state_row(model, change.state) for change in new])
                    _insert(connection, _events, [row for change in new for row in _event_rows(model, change)])
                return there
            except _CollisionError:  # somebody else added one of them just now: look again
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def advance(self, model: str, changes: Sequence[Change]) -> set[str]:
        late: set[str] = set()
        with self._changing() as connection:
            for change in sorted(
                changes, key=lambda change: change.state.item
            ):  # one order for all: nobody waits in a ring
                if not _replace(connection, model, change.state):
                    late.add(change.state.item)
                    continue
                _insert(connection, _events, _event_rows(model, change))
                if change.state.events > KEPT and latest(change.events):
                    connection.execute(_DROPPED, {"m": model, "i": change.state.item, "p": change.state.events - KEPT})
        return late

    def seen(self, model: str, events: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        with self._asking(), self._engine.connect() as connection:
            for item, ids in events.items():
                asked = ({"m": model, "i": item, "ids": part} for part in _parts(sorted(ids)))
                found[item] = {event for part in asked for event in connection.scalars(_SEEN, part)}
        return found

    def past(self, model: str, items: Collection[str]) -> dict[str, list[Event]]:
        found: dict[str, list[Event]] = {item: [] for item in items}
        kept = sa.select(_events).where(_events.c.payload.is_not(None)).order_by(_events.c.item, _events.c.place)
        for row in self._rows(kept, _events, model, items):
            try:
                found[row.item].append(Event(row.event, row.time, row.label, json.loads(row.payload)))
            except ValueError:
                raise self._damaged(row.item, f"event '{row.event}'") from None
        return found

    def close(self) -> None:
        self._engine.dispose()

    def _make_tables(self) -> None:
        for attempt in range(ATTEMPTS):  # of several processes that find no tables one makes them
            try:
                with self._asking():
                    return _tables.create_all(self._engine)
            except StoreError as error:
                if attempt == ATTEMPTS - 1 or "exists" not in str(error):
                    raise
        return None

    def _rows(
        self, query: "sa.Select[Any]", table: sa.Table, model: str, items: Collection[str] | None
    ) -> list["sa.Row[Any]"]:
        query = query.where(table.c.model == model)
        with self._asking(), self._engine.connect() as connection:
            if items is None:
                return list(connection.execute(query))
            named = query.where(table.c.item.in_(sa.bindparam("names", expanding=True)))
            return [row for part in _parts(sorted(items)) for row in connection.execute(named, {"names": part})]

    def _sound(self, model: str, row: "sa.Row[Any]") -> ItemState:
        parameters = row.parameters if isinstance(row.parameters, bytes) else b""
        state = ItemState(row.item, row.version, row.phase, row.events, parameters, row.updated_at)
        if state.checksum(model) != row.checksum:
            raise self._damaged(row.item, "its row")
        return state

    def _damaged(self, item: str, what: str) -> StoreError:
        return StoreError(
            f"{self.where}: item '{item}': {what} is not what was written (checksum); restore the database from a copy, or "
            "delete the item's rows and add it again"
        )

    @contextmanager
    def _changing(self) -> Iterator[sa.Connection]:
        """A transaction: on the disk when it ends, or it never was."""
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
    """A row was there already."""


_SEEN = sa.select(_events.c.event).where(
    _events.c.model == sa.bindparam("m"),
    _events.c.item == sa.bindparam("i"),
    _events.c.event.in_(sa.bindparam("ids", expanding=True)),
)
_DROPPED = (
    sa.update(_events)
    .where(_events.c.model == sa.bindparam("m"), _events.c.item == sa.bindparam("i"))
    .where(_events.c.place < sa.bindparam("p"), _events.c.payload.is_not(None))
    .values(payload=None)
)
_REPLACED = sa.update(_states).where(
    _states.c.model == sa.bindparam("m"), _states.c.item == sa.bindparam("i"), _states.c.version == sa.bindparam("v")
)


def _replace(connection: sa.Connection, model: str, state: ItemState) -> bool:
    """Whether the item still had the version before this one, and has this one now."""
    row = _state_row(model, state)
    key = {"m": row.pop("model"), "i": row.pop("item"), "v": state.version - 1}
    return connection.execute(_REPLACED.values(row), key).rowcount == 1


def _state_row(model: str, state: ItemState) -> dict[str, Any]:
    return {
        "model": model,
        "item": state.item,
        "version": state.version,
        "phase": state.phase,
        "events": state.events,
        "parameters": state.parameters,
        "checksum": state.checksum(model),
        "updated_at": state.updated_at,
    }


def _event_rows(model: str, change: Change) -> list[dict[str, Any]]:
    item, kept = change.state.item, latest(change.events)
    first = change.state.events - len(change.events)
    return [
        {
            "model": model,
            "item": item,
            "event": event.id,
            "place": first + n,
            "time": event.time,
            "label": event.label,
            "payload": json.dumps(event.values) if event.id in kept else None,
        }
        for n, event in enumerate(change.events)
    ]


def _insert(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        connection.execute(sa.insert(table), rows)


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE))


def _durable(connection: Any, _: object) -> None:
    """SQLite: readers beside a writer, and a transaction is on the disk when it ends."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _reason(error: SQLAlchemyError) -> str:
    """What the database said, and what to do."""
    said = _line(error.orig) if isinstance(error, DBAPIError) and isinstance(error.orig, Exception) else _line(error)
    advice = {
        "locked": "another process is writing it; try again when it is done",
        "not a database": "restore it from a copy",
        "malformed": "restore it from a copy",
        "readonly": "make the file and its folder writable",
        "unable to open": "give a file in a folder that is there and can be written",
    }
    then = next((text for part, text in advice.items() if part in said), "see that it is there and may be written")
    return f"the database refused ({said}); {then}"


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return sa.URL.create("sqlite", database=str(path)).render_as_string()
