"""Item-state databases: transactions are complete or absent, with several writers."""

import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newcomer.errors import StoreError
from newcomer.store.folder import Manifest, Store
from newcomer.store.sql import SqlItemStates, sqlite_url
from newcomer.store.states import KEPT, Change, Event, ItemHeader, ItemState

WHEN = "2026-01-01T00:00:00.000+00:00"


def state(item: str, version: int = 0, events: int = 0) -> ItemState:
    return ItemState(item, version, "cold", events, f"{item} {version}".encode(), WHEN)


def change(item: str, version: int, *ids: str, before: int = 0) -> Change:
    events = [Event(id, 7, 1, [3, [4, 5], 0.5, None]) for id in ids]
    return Change(state(item, version, before + len(ids)), events)


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


def test_what_is_added_is_there_for_others_and_stays_what_it_was(opened: Callable[..., SqlItemStates]) -> None:
    states = opened()
    assert states.add("m", [change("a", 0), change("b", 0, "x", "y")]) == set()
    assert states.add("m", [change("b", 0), change("c", 0)]) == {"b"}
    other = opened()
    assert other.get("m", ["a", "b", "z"]) == {"a": state("a"), "b": state("b", events=2)}
    assert other.headers("m") == {
        "a": ItemHeader(0, "cold", 0),
        "b": ItemHeader(0, "cold", 2),
        "c": ItemHeader(0, "cold", 0),
    }
    assert other.headers("m", ["b", "z"]) == {"b": ItemHeader(0, "cold", 2)}
    assert other.seen("m", {"b": ["y", "z"], "a": ["x"]}) == {"b": {"y"}, "a": set()}


def test_two_models_in_one_database_do_not_interfere(states: SqlItemStates) -> None:
    states.add("one", [change("a", 0, "x")])
    assert states.headers("other") == {}
    assert states.get("other", ["a"]) == {}
    assert states.seen("other", {"a": ["x"]}) == {"a": set()}
    states.add("other", [change("a", 0)])
    states.commit("other", [change("a", 1, "x")])
    assert states.get("one", ["a"])["a"].version == 0


def test_of_a_change_with_an_old_version_neither_state_nor_events_are_written(states: SqlItemStates) -> None:
    states.add("m", [change("a", 0), change("b", 0)])
    assert states.commit("m", [change("a", 1, "x")]) == set()
    assert states.commit("m", [change("a", 1, "y"), change("b", 1, "y"), change("none", 1, "y")]) == {"a", "none"}
    assert states.seen("m", {name: ["x", "y"] for name in ("a", "b", "none")}) == {
        "a": {"x"},
        "b": {"y"},
        "none": set(),
    }
    assert states.get("m", ["a", "b"]) == {"a": state("a", 1, 1), "b": state("b", 1, 1)}


def test_a_transaction_that_fails_leaves_nothing(states: SqlItemStates) -> None:
    states.add("m", [change("a", 0), change("b", 0)])
    with pytest.raises(StoreError, match="UNIQUE"):
        states.commit("m", [change("a", 1, "x"), change("b", 1, "twice", "twice")])
    assert states.get("m", ["a", "b"]) == {"a": state("a"), "b": state("b")}
    assert states.seen("m", {"a": ["x"]}) == {"a": set()}


def test_of_past_events_the_latest_are_kept_in_the_order_they_came_and_all_ids(states: SqlItemStates) -> None:
    states.add("m", [change("a", 0), change("b", 0)])
    chance, ids = random.Random(0), [f"{n:04d}" for n in range(3 * KEPT)]
    chance.shuffle(ids)
    for version, start in enumerate(range(0, len(ids), 90), 1):
        states.commit("m", [change("a", version, *ids[start : start + 90], before=start)])
    states.commit("m", [change("b", 1, *ids)])
    kept = states.event_history("m", ["a", "b", "z"])
    assert [event.id for event in kept["a"]] == [event.id for event in kept["b"]] == ids[-KEPT:]
    assert kept["a"][0] == Event(ids[-KEPT], 7, 1, [3, [4, 5], 0.5, None])
    assert kept["z"] == []
    assert states.seen("m", {"a": ids}) == {"a": set(ids)}


def test_events_without_values_leave_only_their_ids(states: SqlItemStates) -> None:
    states.add("m", [Change(state("a", events=1), [Event("x", 1, 0)])])
    assert states.event_history("m", ["a"]) == {"a": []}
    assert states.seen("m", {"a": ["x"]}) == {"a": {"x"}}


class Plain:
    """The slow twin: dictionaries."""

    def __init__(self) -> None:
        self.rows: dict[str, ItemState] = {}
        self.ids: dict[str, list[str]] = {}

    def add(self, change: Change) -> set[str]:
        if change.state.item in self.rows:
            return {change.state.item}
        return self._put(change)

    def commit(self, change: Change) -> set[str]:
        item = change.state.item
        if item not in self.rows or self.rows[item].version != change.state.version - 1:
            return {item}
        return self._put(change)

    def _put(self, change: Change) -> set[str]:
        self.rows[change.state.item] = change.state
        self.ids.setdefault(change.state.item, []).extend(event.id for event in change.events)
        return set()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 3)), max_size=12))
def test_any_sequence_of_changes_comes_out_as_in_plain_dictionaries(steps: list[tuple[bool, str, int, int]]) -> None:
    states, plain = SqlItemStates("sqlite://"), Plain()
    for number, (is_new, item, version, count) in enumerate(steps):
        ids = [f"{number}-{n}" for n in range(count)]
        made = change(item, 0 if is_new else version, *ids, before=len(plain.ids.get(item, ())))
        assert (
            states.add("m", [made]) == plain.add(made) if is_new else states.commit("m", [made]) == plain.commit(made)
        )
    assert states.get("m", "abc") == plain.rows
    assert {
        item: [event.id for event in past] for item, past in states.event_history("m", plain.ids).items()
    } == plain.ids
    states.close()


MANY = """
import sys
from newcomer.store.sql import SqlItemStates
from newcomer.store.states import Change, Event, ItemState
states, me = SqlItemStates(sys.argv[1]), sys.argv[2]
items = [f"item {n}" for n in range(20)]
states.add("m", [Change(ItemState(item, 0, "cold", 0, b"", ""), []) for item in items])
for n in range(10):
    waiting = set(items)
    while waiting:
        heads = states.headers("m", waiting)
        waiting = states.commit("m", [
            Change(ItemState(i, h.version + 1, "warm", h.events + 1, b"", ""), [Event(f"{me} {n}", 0, 0, [n])])
            for i, h in heads.items()
        ])
print("torch" in sys.modules)
"""


def test_several_processes_begin_and_write_one_database_at_once(
    opened: Callable[..., SqlItemStates], tmp_path: Path
) -> None:
    url = sqlite_url(tmp_path / "items.db")
    running = [
        subprocess.Popen(
            [sys.executable, "-c", MANY, url, str(n)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for n in range(4)
    ]
    ended = [process.communicate(timeout=100) for process in running]
    assert ended == [("False\n", "")] * 4
    states = opened()
    assert set(states.headers("m").values()) == {ItemHeader(40, "warm", 40)}
    ids = {f"{me} {n}" for me in range(4) for n in range(10)}
    assert all({event.id for event in past} == ids for past in states.event_history("m", states.headers("m")).values())


def damage(path: Path, statement: str) -> None:
    database = sqlite3.connect(path)
    with database:
        database.execute(statement)
    database.close()


@pytest.mark.parametrize("column", ["version", "phase", "event_count", "parameters", "updated_at", "item_id"])
def test_a_damaged_row_is_an_error_that_names_the_item(column: str, states: SqlItemStates, tmp_path: Path) -> None:
    states.add("m", [change("a", 0), change("b", 0)])
    damage(tmp_path / "items.db", f"UPDATE item_states SET {column} = '9' WHERE item_id = 'a'")
    name = "9" if column == "item_id" else "a"
    with pytest.raises(
        StoreError, match=rf"items.db: item '{name}': its row is not what was written \(checksum\); restore"
    ):
        states.get("m", [name, "b"])
    assert states.get("m", ["b"]) == {"b": state("b")}


def test_damaged_values_of_an_event_are_an_error_that_names_it(states: SqlItemStates, tmp_path: Path) -> None:
    states.add("m", [change("a", 0, "x")])
    damage(tmp_path / "items.db", "UPDATE item_events SET payload = '[1, '")
    with pytest.raises(StoreError, match="item 'a': event 'x' is not what was written"):
        states.event_history("m", ["a"])


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


@pytest.mark.parametrize("url", ["items.db", "nosuch://here", "postgresql+nosuchdriver://me:secret@here/items"])
def test_a_url_that_cannot_be_used_is_an_error_without_the_password(url: str) -> None:
    with pytest.raises(
        StoreError, match=r"no database that can be used .*write a URL such as sqlite:///items.db"
    ) as error:
        SqlItemStates(url)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


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


def test_tables_of_another_layout_are_refused_before_any_is_created(tmp_path: Path) -> None:
    file = tmp_path / "items.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE item_states (model TEXT, item TEXT, events INTEGER)")
    with pytest.raises(StoreError, match=r"table 'item_states' has no column 'item_id'.*give another database"):
        SqlItemStates(sqlite_url(file))
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("item_states",)]
