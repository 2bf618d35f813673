"""Item-state databases: transactions are complete or absent, with several writers."""

import itertools
import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from databases import WHEN_ALL_ARE_READY, Database, run_at_once
from newcomer.errors import StoreError
from newcomer.store.states import KEPT, Change, DamagedItemError, Event, ItemHeader, ItemState, ItemStates
from newcomer.store.urls import open_states

WHEN = "2026-01-01T00:00:00.000+00:00"
VALUES = [3, [4, 5], 0.5, None]

Open = Callable[..., ItemStates]


def state(item: str, version: int = 0, events: int = 0) -> ItemState:
    return ItemState(item, version, "cold", events, f"{item} {version}".encode(), WHEN)


def change(item: str, version: int, *ids: str, before: int = 0) -> Change:
    return Change(state(item, version, before + len(ids)), [Event(id, 7, 1, VALUES) for id in ids])


@pytest.fixture
def opened(database: Database) -> Iterator[Open]:
    """Opens the database of this test, or what is named; closed after the test."""
    every: list[ItemStates] = []

    def open_(url: str | None = None) -> ItemStates:
        every.append(open_states(url or database.url))
        return every[-1]

    yield open_
    for one in every:
        one.close()


@pytest.fixture
def states(opened: Open) -> ItemStates:
    return opened()


def test_what_is_added_is_there_for_others_and_stays_what_it_was(opened: Open) -> None:
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
    assert other.labels("m", {"b": ["x"]}) == {"b": {"x": 1}}


def test_two_models_in_one_database_do_not_interfere(states: ItemStates) -> None:
    states.add("one", [change("a", 0, "x")])
    assert states.headers("other") == {}
    assert states.get("other", ["a"]) == {}
    assert states.seen("other", {"a": ["x"]}) == {"a": set()}
    states.add("other", [change("a", 0)])
    states.commit("other", [change("a", 1, "x")])
    assert states.get("one", ["a"])["a"].version == 0
    states.forget("other", ["a"])
    assert states.forgotten("one", ["a"]) == set()
    states.import_stages("one", 2, [])
    assert (states.imported_stages("one"), states.imported_stages("other")) == (2, 0)


IDS = [
    "Case",
    "case",
    "CASE",
    "strasse",
    "straße",
    "é",
    "e",
    "e\u0301",
    "a b",
    "a  b",
    "a:b",
    "{a}",
    "a\tb",
    "'",
    '"',
    "%",
    "日本",
]


def test_ids_that_differ_in_one_byte_are_different(states: ItemStates) -> None:
    states.add("m", [change(item, 0, *IDS) for item in IDS])
    assert set(states.headers("m")) == set(IDS)
    assert states.get("m", IDS) == {item: state(item, events=len(IDS)) for item in IDS}
    assert states.seen("m", {item: [*IDS, "cASE"] for item in [*IDS, "cASE"]}) == {
        **{item: set(IDS) for item in IDS},
        "cASE": set(),
    }
    assert states.commit("m", [change("case", 1, "new", before=len(IDS))]) == set()
    assert states.headers("m", ["Case", "case"]) == {
        "Case": ItemHeader(0, "cold", len(IDS)),
        "case": ItemHeader(1, "cold", len(IDS) + 1),
    }
    assert states.forget("m", ["CASE"]) == {"CASE"}
    assert set(states.headers("m")) == {*IDS} - {"CASE"}


def test_an_id_with_a_nul_is_not_there(states: ItemStates) -> None:
    states.add("m", [change("a", 0, "x")])
    assert states.headers("m", ["a", "a\0"]) == {"a": ItemHeader(0, "cold", 1)}
    assert states.get("m", ["a\0"]) == {}
    assert states.labels("m", {"a": ["x", "x\0"], "a\0": ["x"]}) == {"a": {"x": 1}, "a\0": {}}
    assert states.event_history("m", ["a\0"]) == {"a\0": []}
    assert states.forget("m", ["a\0"]) == set()


def test_of_a_change_with_an_old_version_neither_state_nor_events_are_written(states: ItemStates) -> None:
    states.add("m", [change("a", 0), change("b", 0)])
    assert states.commit("m", [change("a", 1, "x")]) == set()
    assert states.commit("m", [change("a", 1, "y"), change("b", 1, "y"), change("none", 1, "y")]) == {"a", "none"}
    assert states.seen("m", {name: ["x", "y"] for name in ("a", "b", "none")}) == {
        "a": {"x"},
        "b": {"y"},
        "none": set(),
    }
    assert states.get("m", ["a", "b"]) == {"a": state("a", 1, 1), "b": state("b", 1, 1)}


def test_a_transaction_that_fails_leaves_nothing(states: ItemStates) -> None:
    states.add("m", [change("a", 0), change("b", 0)])
    with pytest.raises(StoreError, match=r"UNIQUE|unique|twice"):
        states.commit("m", [change("a", 1, "x"), change("b", 1, "twice", "twice")])
    assert states.get("m", ["a", "b"]) == {"a": state("a"), "b": state("b")}
    assert states.seen("m", {"a": ["x"]}) == {"a": set()}
    assert states.event_history("m", ["a", "b"]) == {"a": [], "b": []}


def test_of_past_events_the_latest_are_kept_in_the_order_they_came_and_all_ids(states: ItemStates) -> None:
    states.add("m", [change("a", 0), change("b", 0)])
    chance, ids = random.Random(0), [f"{n:04d}" for n in range(3 * KEPT)]
    chance.shuffle(ids)
    for version, start in enumerate(range(0, len(ids), 90), 1):
        states.commit("m", [change("a", version, *ids[start : start + 90], before=start)])
    states.commit("m", [change("b", 1, *ids)])
    kept = states.event_history("m", ["a", "b", "z"])
    assert [event.id for event in kept["a"]] == [event.id for event in kept["b"]] == ids[-KEPT:]
    assert kept["a"][0] == Event(ids[-KEPT], 7, 1, VALUES)
    assert kept["z"] == []
    assert states.seen("m", {"a": ids}) == {"a": set(ids)}


def test_a_label_is_corrected_with_the_state_that_follows_from_it(opened: Open) -> None:
    states, ids = opened(), [f"{n:03d}" for n in range(KEPT + 2)]
    shown = [Event(id, 7, 0, VALUES) for id in ids]
    states.add("m", [change("a", 0), change("b", 0, "002")])
    states.commit("m", [Change(state("a", 1, len(ids) - 1), shown[:-1])])
    corrections = {"000": 1, "002": 1}  # of the first no values are there any more, nor of "001" after this change
    assert states.commit("m", [Change(state("a", 2, len(ids)), shown[-1:], labels=corrections)]) == set()
    assert states.commit("m", [Change(state("a", 2, len(ids)), [], labels={"003": 1})]) == {"a"}
    other = opened()
    assert other.labels("m", {"a": ids}) == {"a": {id: corrections.get(id, 0) for id in ids}}
    assert other.event_history("m", ["a"])["a"] == [Event(id, 7, corrections.get(id, 0), VALUES) for id in ids[2:]]
    assert states.commit("m", [Change(state("a", 3, len(ids)), [], labels={"002": 0, "001": 1})]) == set()
    assert states.commit("m", [change("a", 4, "next", before=len(ids))]) == set()
    assert other.labels("m", {"a": ["001", "002"], "b": ["002"]}) == {"a": {"001": 1, "002": 0}, "b": {"002": 1}}


def test_a_label_that_is_dropped_in_the_same_change_is_corrected(states: ItemStates) -> None:
    states.add("m", [change("a", 0)])
    states.commit("m", [change("a", 1, *map(str, range(KEPT)))])
    made = change("a", 2, "x", before=KEPT)
    assert states.commit("m", [Change(made.state, made.events, labels={"0": 0})]) == set()
    assert states.labels("m", {"a": ["0", "1"]}) == {"a": {"0": 0, "1": 1}}
    assert [event.id for event in states.event_history("m", ["a"])["a"]] == [*map(str, range(1, KEPT)), "x"]
    assert states.commit("m", [change("a", 3, "y", before=KEPT + 1)]) == set()


@pytest.mark.parametrize("column", ["label", "payload"])
def test_an_event_that_is_damaged_or_not_there_is_not_corrected(
    column: str, states: ItemStates, database: Database
) -> None:
    states.add("m", [change("a", 0, "x", "y"), change("b", 0, "z")])
    database.damage_event("x", column, "0")
    for item, id, events in (("a", "x", 2), ("b", "none", 1)):
        with pytest.raises(DamagedItemError, match=f"item '{item}': event '{id}' is not what was written"):
            states.commit("m", [Change(state(item, 1, events), [], labels={id: 0})])
    assert {name: header.version for name, header in states.headers("m").items()} == {"a": 0, "b": 0}


def of_user(id: str, user: str | None) -> Event:
    return Event(id, 7, 1, VALUES, user)


def test_events_of_a_forgotten_user_are_committed_by_nobody(opened: Open) -> None:
    states, other = opened(), opened()
    states.add("m", [change("a", 0), change("b", 0)])
    assert states.commit("m", [Change(state("a", 1, 1), [of_user("x", "ann")])]) == set()
    assert other.event_history("m", ["a"])["a"] == [of_user("x", "ann")]
    states.forget_users(["ann", "eve"])
    states.forget_users(["ann"])
    states.forget_users([])
    assert other.forgotten_users(["ann", "bob", "eve"]) == {"ann", "eve"}
    assert other.forgotten_users([]) == set()
    both = [Change(state("a", 2, 2), [of_user("y", "bob")]), Change(state("b", 1, 1), [of_user("y", "ann")])]
    assert other.commit("m", both) == {"a", "b"}
    assert other.headers("m") == {"a": ItemHeader(1, "cold", 1), "b": ItemHeader(0, "cold", 0)}
    assert other.commit("m", both[:1]) == set()
    assert opened().forgotten_users(["ann", "bob"]) == {"ann"}


def test_erased_values_are_gone_and_no_others_are_lost_in_their_place(opened: Open) -> None:
    states, ids = opened(), [f"{n:03d}" for n in range(KEPT + 5)]
    states.add("m", [change("a", 0), change("b", 0, *ids[:3])])
    states.commit("m", [Change(state("a", 1, len(ids)), [of_user(id, "ann") for id in ids])])
    erased = {"007", "100", "204"}
    assert states.commit("m", [Change(state("a", 1, len(ids)), [], erased=erased)]) == {"a"}
    assert states.commit("m", [Change(state("a", 2, len(ids)), [], erased=erased)]) == set()
    other, left = opened(), [id for id in ids[5:] if id not in erased]
    assert other.event_history("m", ["a"])["a"] == [of_user(id, "ann") for id in left]
    assert other.labels("m", {"a": ids}) == {"a": dict.fromkeys(ids, 1)}
    assert other.commit("m", [change("a", 3, "x", "y", "z", before=len(ids))]) == set()
    assert [event.id for event in states.event_history("m", ["a"])["a"]] == [*left, "x", "y", "z"]
    assert states.commit("m", [change("a", 4, "last", before=len(ids) + 3)]) == set()
    assert [event.id for event in other.event_history("m", ["a"])["a"]] == [*left[1:], "x", "y", "z", "last"]
    every = {event.id for event in other.event_history("m", ["a"])["a"]}
    assert other.commit("m", [Change(state("a", 5, len(ids) + 4), [], erased=every)]) == set()
    assert other.event_history("m", ["a", "b"]) == {"a": [], "b": [Event(id, 7, 1, VALUES) for id in ids[:3]]}
    assert other.commit("m", [change("a", 6, "new", before=len(ids) + 4)]) == set()


@pytest.mark.parametrize("column", ["label", "payload"])
def test_nothing_is_erased_beside_a_damaged_event(column: str, states: ItemStates, database: Database) -> None:
    states.add("m", [change("a", 0, "x", "y")])
    database.damage_event("x", column, "0")
    with pytest.raises(DamagedItemError, match="item 'a': one of its latest events is not what was written"):
        states.commit("m", [Change(state("a", 1, 2), [], erased={"y"})])
    assert states.headers("m")["a"].version == 0


FORGETTING = f"""
import sys
import psycopg, newcomer.store.sql_read_only, newcomer.store.valkey_states
from newcomer.store.states import Change, Event, ItemState
from newcomer.store.urls import open_states
url, me = sys.argv[1:]
states = open_states(url)
{WHEN_ALL_ARE_READY}
if me == "forgets":
    while not states.headers("m")["item 0"].events:
        pass
    states.forget_users(["ann"])
    print({{item: head.events for item, head in sorted(states.headers("m").items())}})
else:
    item, count = f"item {{me}}", 0
    while not states.commit("m", [
        Change(ItemState(item, count + 1, "warm", count + 1, b"", ""), [Event(str(count), 0, 0, [1], "ann")])
    ]):
        count += 1
    print(count)
states.close()
"""


def test_who_has_forgotten_a_user_sees_all_that_was_ever_committed(opened: Open, database: Database) -> None:
    opened().add("m", [change(f"item {n}", 0) for n in range(3)])
    seen, *counts = run_at_once(FORGETTING, [[database.url, me] for me in ("forgets", "0", "1", "2")])
    assert seen == f"{ {f'item {n}': int(count) for n, count in enumerate(counts)} }\n"
    assert int(counts[0]) > 0


def test_events_without_values_leave_only_their_ids(states: ItemStates) -> None:
    states.add("m", [Change(state("a", events=1), [Event("x", 1, 0)])])
    assert states.event_history("m", ["a"]) == {"a": []}
    assert states.seen("m", {"a": ["x"]}) == {"a": {"x"}}


def test_more_items_and_events_than_one_query_takes(states: ItemStates) -> None:
    names = [f"item {n}" for n in range(1234)]
    states.add("m", [change(name, 0, "x", name) for name in names])
    assert states.commit("m", [change(name, 1, "y", before=2) for name in names]) == set()
    assert len(states.get("m", names)) == 1234
    assert states.labels("m", {name: ["x", "y", name, "z"] for name in names}) == {
        name: {"x": 1, "y": 1, name: 1} for name in names
    }
    assert [event.id for event in states.event_history("m", names)["item 7"]] == ["x", "item 7", "y"]
    assert states.forget("m", [*names, "none"]) == set(names)
    assert states.headers("m") == {}


def test_an_item_that_was_forgotten_begins_after_its_last_version(states: ItemStates) -> None:
    states.add("m", [change("a", 0, "x"), change("b", 0)])
    states.commit("m", [change("a", 1, "y", before=1)])
    assert states.forget("m", ["a", "none"]) == {"a"}
    assert states.forgotten("m", ["a", "b", "none"]) == {"a"}
    assert states.get("m", ["a"]) == {}
    assert states.seen("m", {"a": ["x", "y"]}) == {"a": set()}
    states.import_stages("m", 1, [change("a", 0), change("c", 0)])
    assert set(states.headers("m")) == {"b", "c"}
    assert states.add("m", [change("a", 0)]) == set()
    assert states.headers("m", ["a"]) == {"a": ItemHeader(2, "cold", 0)}
    assert states.forgotten("m", ["a"]) == set()
    assert states.event_history("m", ["a"]) == {"a": []}
    assert states.commit("m", [change("a", 2, "x")]) == {"a"}
    assert states.commit("m", [change("a", 3, "x")]) == set()


def test_stages_are_imported_beside_what_is_there(states: ItemStates) -> None:
    states.add("m", [change("a", 0, "x")])
    assert states.imported_stages("m") == 0
    states.import_stages("m", 2, [change("a", 0), change("b", 0, "before 0")])
    states.import_stages("m", 3, [change("c", 0)])
    assert states.imported_stages("m") == 3
    assert {name: header.events for name, header in states.headers("m").items()} == {"a": 1, "b": 1, "c": 0}


def test_labels_in_the_unit_interval_are_counted_until_another_comes(states: ItemStates) -> None:
    states.import_stages("m", 1, [change("a", 0), change("b", 0)])

    def commit(item: str, version: int, unit: bool | None) -> int:
        made = change(item, version, f"{version} 0", f"{version} 1", before=2 * version - 2)
        assert states.commit("m", [Change(made.state, made.events, unit)]) == set()
        return states.unit_labels("m")

    assert [commit("a", n, unit) for n, unit in enumerate((True, None, True, False, True), 1)] == [2, 2, 4, 0, 2]
    assert states.commit("m", [Change(state("a", 1, 2), [Event("late", 1, 1)], True)]) == {"a"}
    assert states.unit_labels("m") == 2


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


MODELS = itertools.count()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 3)), max_size=12))
def test_any_sequence_of_changes_comes_out_as_in_plain_dictionaries(
    states: ItemStates, steps: list[tuple[bool, str, int, int]]
) -> None:
    model, plain = f"model {next(MODELS)}", Plain()  # the database has the models of the examples before
    for number, (is_new, item, version, count) in enumerate(steps):
        ids = [f"{number}-{n}" for n in range(count)]
        made = change(item, 0 if is_new else version, *ids, before=len(plain.ids.get(item, ())))
        if is_new:
            assert states.add(model, [made]) == plain.add(made)
        else:
            assert states.commit(model, [made]) == plain.commit(made)
    assert states.get(model, "abc") == plain.rows
    history = states.event_history(model, plain.ids)
    assert {item: [event.id for event in past] for item, past in history.items()} == plain.ids


MANY = f"""
import sys
import psycopg, newcomer.store.sql_read_only, newcomer.store.valkey_states
from newcomer.store.states import Change, Event, ItemState
from newcomer.store.urls import open_states
url, me, count, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
{WHEN_ALL_ARE_READY}
states = open_states(url)
items = [f"item {{n}}" for n in range(count)]
states.add("m", [Change(ItemState(item, 0, "cold", 0, b"", ""), []) for item in items])
for n in range(rounds):
    waiting = set(items)
    while waiting:
        heads = states.headers("m", waiting)
        waiting = states.commit("m", [
            Change(ItemState(i, h.version + 1, "warm", h.events + 1, b"", ""), [Event(f"{{me}} {{n}}", 0, 0, [n])])
            for i, h in heads.items()
        ])
states.close()
print("torch" in sys.modules, "alembic" in sys.modules)
"""


def at_once(url: str, processes: int, items: int, rounds: int) -> None:
    """Processes that open the database, add the same items and change each of them."""
    arguments = [[url, str(me), str(items), str(rounds)] for me in range(processes)]
    assert run_at_once(MANY, arguments) == ["False False\n"] * processes


def test_several_processes_write_one_database_at_once(opened: Open, database: Database) -> None:
    at_once(database.url, processes=4, items=20, rounds=10)
    states = opened()
    assert set(states.headers("m").values()) == {ItemHeader(40, "warm", 40)}
    ids = {f"{me} {n}" for me in range(4) for n in range(10)}
    assert all({event.id for event in past} == ids for past in states.event_history("m", states.headers("m")).values())


@pytest.mark.slow  # four of them do it in the test above
def test_sixteen_processes_create_the_tables_at_once(opened: Open, database: Database) -> None:
    at_once(database.url, processes=16, items=2, rounds=1)
    states = opened()
    assert states.headers("m") == {f"item {n}": ItemHeader(16, "warm", 16) for n in range(2)}
    assert states.seen("m", {"item 0": [f"{me} 0" for me in range(16)]}) == {"item 0": {f"{me} 0" for me in range(16)}}


@pytest.mark.parametrize("column", ["version", "phase", "event_count", "parameters", "updated_at"])
def test_a_damaged_row_is_an_error_that_names_the_item(column: str, states: ItemStates, database: Database) -> None:
    states.add("m", [change("a", 0), change("b", 0)])
    database.damage_state("a", column, "9")
    with pytest.raises(
        DamagedItemError, match=r"item 'a': its row is not what was written \(checksum\); restore"
    ) as caught:
        states.get("m", ["a", "b"])
    assert caught.value.item == "a"
    assert states.get("m", ["b"]) == {"b": state("b")}


@pytest.mark.parametrize("value", ["0", "-1"])
def test_an_event_that_is_moved_out_of_the_latest_is_missed(value: str, states: ItemStates, database: Database) -> None:
    ids = [f"e{n}" for n in range(KEPT + 5)]
    states.add("m", [change("a", 0, *ids), change("b", 0, "z")])
    database.damage_event(ids[-1], "position", value)
    database.damage_event("z", "position", "-300")
    for item in ("a", "b"):
        with pytest.raises(DamagedItemError, match=f"item '{item}': .* is not what was written"):
            states.event_history("m", [item])


@pytest.mark.parametrize(("column", "value"), [("label", "0"), ("position", "5"), ("timestamp", "8")])
def test_a_damaged_row_of_an_event_is_an_error_that_names_it(
    column: str, value: str, states: ItemStates, database: Database
) -> None:
    states.add("m", [change("a", 0, "x", "y"), change("b", 0, "z")])
    states.commit("m", [change("b", 1, *map(str, range(KEPT)), before=1)])
    database.damage_event("x", column, value)
    database.damage_event("z", column, value)  # beyond the latest, whose values are kept
    for item, event in (("a", "x"), ("b", "z")):
        with pytest.raises(DamagedItemError, match=f"item '{item}': event '{event}' is not what was written") as caught:
            states.labels("m", {item: [event]})
        assert caught.value.item == item
    with pytest.raises(DamagedItemError, match="item 'a': event 'x' is not what was written"):
        states.event_history("m", ["a"])
    assert states.labels("m", {"a": ["y"]}) == {"a": {"y": 1}}


@pytest.mark.parametrize("value", ["[1, ", "[3, [4, 5], 0.25, null]"])
def test_damaged_values_of_an_event_are_an_error_that_names_it(
    value: str, states: ItemStates, database: Database
) -> None:
    states.add("m", [change("a", 0, "x"), change("b", 0, "y")])
    database.damage_event("x", "payload", value)
    with pytest.raises(DamagedItemError, match="item 'a': event 'x' is not what was written"):
        states.event_history("m", ["a", "b"])
    assert states.labels("m", {"a": ["x"]}) == {"a": {"x": 1}}
    assert [event.id for event in states.event_history("m", ["b"])["b"]] == ["y"]


def test_an_event_that_is_gone_is_found_at_the_next_change_of_its_item(states: ItemStates, database: Database) -> None:
    states.add("m", [change("a", 0, "x", "y"), change("b", 0)])
    database.delete_event("x")
    with pytest.raises(DamagedItemError, match="item 'a': one of its latest events is not what was written") as caught:
        states.commit("m", [change("a", 1, "z", before=2), change("b", 1, "z")])
    assert caught.value.item == "a"
    assert states.get("m", ["a", "b"]) == {"a": state("a", events=2), "b": state("b")}
    assert states.seen("m", {"b": ["z"]}) == {"b": set()}
    assert states.forget("m", ["a"]) == {"a"}


def test_who_cannot_write_can_read(opened: Open, database: Database) -> None:
    states = opened()
    states.add("m", [change("a", 0, "x")])
    states.import_stages("m", 1, [])
    assert not states.read_only
    reader = opened(database.read_only_url())
    assert reader.read_only
    assert reader.get("m", ["a"]) == {"a": state("a", events=1)}
    assert reader.headers("m") == {"a": ItemHeader(0, "cold", 1)}
    assert reader.labels("m", {"a": ["x"]}) == {"a": {"x": 1}}
    assert [event.id for event in reader.event_history("m", ["a"])["a"]] == ["x"]
    assert reader.imported_stages("m") == 1
    for write in (
        lambda: reader.add("m", [change("b", 0)]),
        lambda: reader.commit("m", [change("a", 1, "y", before=1)]),
        lambda: reader.forget("m", ["a"]),
        lambda: reader.import_stages("m", 2, []),
    ):
        with pytest.raises(StoreError, match=r"refused \(.*read.?only.*\); (make the file|open it once where)"):
            write()
    assert states.headers("m") == {"a": ItemHeader(0, "cold", 1)}


def test_a_database_of_a_later_version_is_refused_and_stays_as_it_is(opened: Open, database: Database) -> None:
    opened().add("m", [change("a", 0)])
    database.set_revision("9999")
    with pytest.raises(
        StoreError, match=r"of a later version of newcomer \(9999; this one knows \d+\); update newcomer"
    ):
        opened()
