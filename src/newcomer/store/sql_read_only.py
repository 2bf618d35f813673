"""Item states in a read-only SQLite file."""

import os
import sqlite3
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from newcomer.errors import StoreError
from newcomer.store.sql import SqlItemStates


def open_sql_states(url: str) -> SqlItemStates:
    """The database at this URL; of a SQLite file that cannot be written, an upgraded copy in memory that is `read_only`.

    Raises StoreError: see `SqlItemStates`.
    """
    file = _file(url)
    if file is None or not file.parent.exists() or _can_be_written(file):
        return SqlItemStates(url)
    return SqlItemStates(url, copied=lambda: _copied(file))


def _file(url: str) -> Path | None:
    """The file of a plain SQLite URL, else None."""
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        return None
    plain = parsed.get_backend_name() == "sqlite" and not parsed.query and parsed.database not in (None, "", ":memory:")
    return Path(str(parsed.database)) if plain else None


def _can_be_written(file: Path) -> bool:
    return os.access(file.parent, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))


def _copied(file: Path) -> sqlite3.Connection:
    """An in-memory copy of the file, read without locks, which a read-only file system does not allow."""
    copy = sqlite3.connect(":memory:", check_same_thread=False)
    if not file.exists():
        return copy
    log = file.with_name(file.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise StoreError(
            f"{file}: was not closed, and what {log.name} holds cannot be read where nothing can be written; open it once "
            "where it can be, or copy both files there"
        )
    try:
        source = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        with source:
            source.backup(copy)
        source.close()
    except sqlite3.Error as error:
        raise StoreError(f"{file}: the database cannot be read ({error}); restore it from a copy") from None
    return copy
