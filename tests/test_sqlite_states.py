"""Item states in SQLite: durability, locks, and files that are no database."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from databases import SqlDatabase
from newcomer.errors import StoreError
from newcomer.store.folder import Manifest, Store
from newcomer.store.sql import SqlItemStates, sqlite_url
from newcomer.store.urls import open_states
from test_sql_schema import write_first_version
from test_states import change, state


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., SqlItemStates]]:
    """Opens `items.db`, or what is named; closed after the test."""
    every: list[SqlItemStates] = []

    def open_(url: str | None = None, wait_seconds: float = 5.0) -> SqlItemStates:
        every.append(SqlItemStates(url or sqlite_url(tmp_path / "items.db"), wait_seconds=wait_seconds))
        return every[-1]

    yield open_
    for one in every:
        one.close()


@pytest.fixture
def states(opened: Callable[..., SqlItemStates]) -> SqlItemStates:
    return opened()


def test_a_locked_database_is_an_error_after_the_wait_and_then_works(
    opened: Callable[..., SqlItemStates], tmp_path: Path
) -> None:
    states = opened(wait_seconds=0.2)
    states.add("m", [change("a", 0)])
    other = sqlite3.connect(tmp_path / "items.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"locked.*another process is writing it; try again when it is done"):
        states.commit("m", [change("a", 1, "x")])
    assert states.get("m", ["a"]) == {"a": state("a")}
    other.execute("ROLLBACK")
    other.close()
    assert states.commit("m", [change("a", 1, "x")]) == set()


def test_a_file_that_is_no_database_is_an_error(opened: Callable[..., SqlItemStates], tmp_path: Path) -> None:
    (tmp_path / "items.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match=r"items.db: .*file is not a database.*; restore it from a copy"):
        opened()


def test_a_database_whose_pages_are_gone_is_an_error(opened: Callable[..., SqlItemStates], tmp_path: Path) -> None:
    states = opened()
    states.add("m", [change(f"item {n}", 0, *map(str, range(20))) for n in range(200)])
    states.close()
    path = tmp_path / "items.db"
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(len(content) - 4096))
    with pytest.raises(StoreError, match=r"items.db: .*malformed.*; restore it from a copy"):
        opened().get("m", [f"item {n}" for n in range(200)])


def test_a_place_that_cannot_be_written_is_an_error(opened: Callable[..., SqlItemStates], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"unable to open database file.*give a file in a folder that is there"):
        opened(sqlite_url(tmp_path / "nowhere" / "items.db"))
    states = opened()
    states.add("m", [change("a", 0)])
    states.close()
    read_only = opened(f"sqlite:///file:{tmp_path / 'items.db'}?mode=ro&uri=true")
    assert read_only.get("m", ["a"]) == {"a": state("a")}
    with pytest.raises(StoreError, match=r"readonly database.*make the file and its folder writable"):
        read_only.add("m", [change("b", 0)])


def test_what_is_written_is_on_the_disk_when_the_call_returns(states: SqlItemStates) -> None:
    with states._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


def test_a_store_that_cannot_be_written_leaves_the_database_beside_it(
    opened: Callable[..., SqlItemStates], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(store: Store, manifest: Manifest, entries: object) -> None:
        (store.folder / "stage-000.safetensors").write_bytes(b"half")
        opened().add("m", [change("a", 0)])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "_append", full)
    with pytest.raises(StoreError, match="No space left on device"):
        Store(tmp_path).write(Manifest("emerg", {}, {}), [])
    assert not (tmp_path / "stage-000.safetensors").exists()
    assert opened().get("m", ["a"]) == {"a": state("a")}


def test_a_database_in_memory_is_one_for_all_threads(opened: Callable[..., SqlItemStates]) -> None:
    states, names = opened("sqlite://"), [f"item {n}" for n in range(8)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda name: states.add("m", [change(name, 0, "x")]), names)) == [set()] * 8
        assert list(threads.map(lambda name: states.get("m", [name]), names)) == [{n: state(n, 0, 1)} for n in names]
    assert set(states.headers("m")) == set(names)


def test_an_older_file_that_cannot_be_written_is_read_as_an_upgraded_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "items.db"
    engine = sa.create_engine(sqlite_url(file), poolclass=sa.NullPool)
    write_first_version(engine, {"a": 3})
    before = file.read_bytes()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    states = open_states(sqlite_url(file))
    assert states.read_only
    assert len(states.event_history("m", ["a"])["a"]) == 3
    assert file.read_bytes() == before
    states.close()
    SqlDatabase("sqlite", sqlite_url(file)).execute("CREATE TABLE item_states_version (version_num TEXT)")
    with pytest.raises(StoreError, match=r"items.db: its tables are of a later version of newcomer \(None;"):
        open_states(sqlite_url(file))


@pytest.mark.parametrize("url", ["items.db", "nosuch://here", "postgresql+nosuchdriver://me:secret@here/items"])
def test_a_url_that_cannot_be_used_is_an_error(url: str) -> None:
    with pytest.raises(
        StoreError, match=r"no database that can be used .*write a URL such as sqlite:///items.db"
    ) as error:
        open_states(url)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("column", ["payload", "payload_checksum", "checksum"])
def test_a_part_of_an_event_that_is_gone_is_found(column: str, states: SqlItemStates, tmp_path: Path) -> None:
    states.add("m", [change("a", 0, "x", "y")])
    with sqlite3.connect(tmp_path / "items.db") as connection:
        connection.execute(f"UPDATE item_events SET {column} = NULL WHERE event_id = 'x'")
    connection.close()
    with pytest.raises(StoreError, match="item 'a': event 'x' is not what was written"):
        states.event_history("m", ["a"])
