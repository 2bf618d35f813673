"""Statements on item states: each finds its rows by an index, however many others there are."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from databases import SqlDatabase
from newcomer.store.sql import SqlItemStates, sqlite_url
from newcomer.store.states import KEPT, Change, Event
from test_states import VALUES, change, state

ITEMS, EVENTS = 40, 30
BEFORE = KEPT + 100


def statements(states: SqlItemStates) -> Iterator[tuple[sa.Connection, str, Any]]:
    """What is executed to count two more events of an item with many among others, with an open connection."""
    states.add("m", [change(f"item {n}", 0, *map(str, range(EVENTS))) for n in range(ITEMS)])
    states.add("m", [change("hot", 0), change("new", 0)])
    assert states.commit("m", [change("hot", 1, *(f"e{n}" for n in range(BEFORE)))]) == set()
    seen = list[tuple[str, Any]]()

    def notice(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        seen.append((statement, parameters[0] if isinstance(parameters, list) else parameters))

    sa.event.listen(states._engine, "before_cursor_execute", notice)
    names = ["hot", "new"]
    assert states.headers("m", names).keys() == states.get("m", names).keys() == {"hot", "new"}
    assert states.labels("m", {"hot": ["e7", f"e{BEFORE}"]}) == {"hot": {"e7": 1}}
    assert len(states.event_history("m", names)["hot"]) == KEPT
    more = Change(state("hot", 2, BEFORE + 2), [Event(id, 7, 1, VALUES) for id in ("x", "y")], labels={"e250": 0})
    assert states.commit("m", [more]) == set()
    sa.event.remove(states._engine, "before_cursor_execute", notice)
    with states._engine.connect() as connection:
        for statement, parameters in seen:
            if statement.startswith(("SELECT", "UPDATE")) and "item_" in statement:
                yield connection, statement, parameters


def test_sqlite_looks_items_and_events_up(tmp_path: Path) -> None:
    count = ranges = 0
    with closing(SqlItemStates(sqlite_url(tmp_path / "items.db"))) as states:
        for connection, statement, parameters in statements(states):
            plan = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            of_tables = [step for step in plan if "INDEX" in step]
            assert of_tables
            assert all("item_id=?" in step for step in of_tables), (statement, plan)
            assert not any(step.startswith(("SCAN item_", "SCAN found")) for step in plan), (statement, plan)
            if "JOIN item_events ON" in statement:  # no event before the latest is read
                assert any("position>?" in step for step in of_tables), plan
                ranges += 1
            count += 1
    assert count >= 8
    assert ranges == 2


@pytest.mark.parametrize("analyzed", [False, True], ids=["without-statistics", "with-statistics"])
def test_postgresql_reads_no_events_of_other_items(postgresql: Callable[[], SqlDatabase], analyzed: bool) -> None:
    database, visited = postgresql(), list[int]()
    with closing(SqlItemStates(database.url)) as states:
        for connection, statement, parameters in statements(states):
            if analyzed:
                connection.exec_driver_sql("ANALYZE")
            if statement.startswith("SELECT") and "item_events" in statement:
                explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
                plan = connection.exec_driver_sql(explain, parameters).scalar_one()[0]["Plan"]
                visited.append(_events_visited(plan))
    assert len(visited) >= 4
    # without statistics it may look an event up among those of its item
    assert max(visited) <= (KEPT + 2 if analyzed else 2 * (BEFORE + 3)) < ITEMS * EVENTS


def test_postgresql_does_not_compress_states(postgresql: Callable[[], SqlDatabase]) -> None:
    database = postgresql()
    SqlItemStates(database.url).close()
    query = "SELECT attstorage FROM pg_attribute WHERE attrelid = 'item_states'::regclass AND attname = 'parameters'"
    assert database.execute(query) == [("e",)]


def _events_visited(plan: Any) -> int:
    """Rows of `item_events` that a plan's scans read, whether they keep them or not."""
    own = 0
    if plan.get("Relation Name") == "item_events":
        own = round((plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"])
    return own + sum(map(_events_visited, plan.get("Plans", [])))
