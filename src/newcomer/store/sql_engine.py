"""Connections to SQLite and PostgreSQL: an engine for each, and their errors as sentences."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from newcomer.errors import StoreError
from newcomer.extras import missing_extra
from newcomer.store.urls import require_clear, without_secrets

DIALECTS = ("sqlite", "postgresql")

ADVICE = {
    "locked": "another process is writing it; try again when it is done",
    "lock timeout": "another process is writing it; try again when it is done",
    "not a database": "restore it from a copy",
    "malformed": "restore it from a copy",
    "readonly": "make the file and its folder writable",
    "read-only transaction": "open it once where it can be written",
    "permission denied": "open it as a user who may write it",
    "unable to open": "give a file in a folder that is there and can be written",
}


def make_engine(
    url: str, wait_seconds: float = 30.0, connect: Callable[[], sqlite3.Connection] | None = None
) -> sa.Engine:
    """The engine of this URL; `connect` makes the one connection of a SQLite database in memory.

    Writing transactions have the execution option `writes`. SQLite files are in WAL mode and every transaction is on the disk when
    it ends (`synchronous=FULL`). Connections to PostgreSQL are tested before they are used again. `wait_seconds`: how long a
    transaction waits for others that write.

    Raises StoreError for a URL that cannot be used, and MissingExtraError without the database's driver.
    """
    require_clear(url)
    shown = without_secrets(url)
    try:
        parsed = sa.make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        backend = parsed.get_backend_name()
        if backend not in DIALECTS:
            parsed.get_dialect()
            raise StoreError(
                f"{shown}: item states are not kept in '{backend}', which is not known to compare ids by bytes; give the URL of "
                "SQLite, PostgreSQL or Valkey"
            )
        return _sqlite(parsed, wait_seconds, connect) if backend == "sqlite" else _postgresql(parsed, wait_seconds)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        if isinstance(error, ModuleNotFoundError) and (missing := missing_extra(error)):
            raise missing from None
        raise StoreError(
            f"{shown}: no database that can be used ({_line(error)}); write a URL such as sqlite:///items.db or "
            "postgresql+psycopg://user@host/items"
        ) from None


def is_read_only(connection: sa.Connection) -> bool:
    """Whether nothing can be written: a SQLite URL that says so, a standby of PostgreSQL, or a user who may only read."""
    if connection.dialect.name == "sqlite":
        query = connection.engine.url.query
        return query.get("mode") == "ro" or query.get("immutable") == "1"
    if connection.exec_driver_sql("SELECT current_setting('transaction_read_only')").scalar() == "on":
        return True
    may_write = "SELECT has_table_privilege(oid, 'UPDATE') FROM pg_class WHERE oid = to_regclass('item_states')"
    return connection.exec_driver_sql(may_write).scalar() is False


def lock(connection: sa.Connection, number: int, shared: bool = False) -> None:
    """Let one transaction at a time past this point, until it ends, or several that are all `shared`.

    On SQLite only one writes anyway.
    """
    if connection.dialect.name == "postgresql":
        take = sa.func.pg_advisory_xact_lock_shared if shared else sa.func.pg_advisory_xact_lock
        connection.execute(sa.select(take(sa.cast(number, sa.BigInteger))))


@contextmanager
def store_errors(shown: str) -> Iterator[None]:
    """Within, errors of the database are StoreErrors, one line with what to do."""
    try:
        yield
    except SQLAlchemyError as error:
        original = error.orig if isinstance(error, DBAPIError) and isinstance(error.orig, Exception) else error
        reason = _line(original)
        then = next(
            (text for part, text in ADVICE.items() if part in reason), "see that it is there and may be written"
        )
        raise StoreError(f"{shown}: the database refused ({reason}); {then}") from None


def _sqlite(url: sa.URL, wait_seconds: float, connect: Callable[[], sqlite3.Connection] | None) -> sa.Engine:
    settings: dict[str, Any] = {"creator": connect} if connect else {"connect_args": {"timeout": wait_seconds}}
    if url.database in (None, "", ":memory:"):  # of one connection, which threads take in turns
        settings |= {"poolclass": sa.QueuePool, "pool_size": 1, "max_overflow": 0}
        settings["connect_args"] = {"check_same_thread": False}
    engine = sa.create_engine(url, **settings)
    sa.event.listen(engine, "connect", _durable)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _durable(connection: Any, _: object) -> None:
    """Concurrent readers (WAL), and durable transactions (synchronous=FULL); transactions begin where SQLAlchemy says so."""
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError as error:
        if "readonly" not in str(error):  # what can only be read stays in its mode
            raise
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    """A writing transaction takes the lock before it reads, so that what it has read is still true when it writes."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _postgresql(url: sa.URL, wait_seconds: float) -> sa.Engine:
    engine = sa.create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": max(2, round(wait_seconds))})
    milliseconds = f"SELECT set_config('lock_timeout', '{round(1000 * wait_seconds)}', true)"

    def begin(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("writes", False):
            connection.exec_driver_sql(milliseconds)

    sa.event.listen(engine, "begin", begin)
    return engine


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
