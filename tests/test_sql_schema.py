"""Tables of SQL databases: created in one step or by upgrades they are the same, and what is not understood is refused."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from databases import WHEN_ALL_ARE_READY, SqlDatabase, run_at_once
from newcomer.errors import StoreError
from newcomer.store.migrations import FIRST_TABLES, SCRIPTS, upgrade
from newcomer.store.sql_schema import HEAD, REVISIONS
from newcomer.store.sql_tables import TABLES
from newcomer.store.states import KEPT, Change, Event, ItemHeader, ItemState
from newcomer.store.urls import open_states


@pytest.fixture
def engine(sql_database: SqlDatabase) -> Iterator[sa.Engine]:
    engine = sa.create_engine(sql_database.url, poolclass=sa.NullPool)
    yield engine
    engine.dispose()


def described(engine: sa.Engine) -> dict[str, Any]:
    """Tables with their columns, keys and indexes, and collations as the database has them."""
    seen = sa.inspect(engine)
    return {
        table: (
            sorted((c["name"], str(c["type"]), c["nullable"]) for c in seen.get_columns(table)),
            seen.get_pk_constraint(table)["constrained_columns"],
            [(index["name"], index["column_names"]) for index in seen.get_indexes(table)],
        )
        for table in seen.get_table_names()
    }


def test_upgrades_from_nothing_end_in_the_tables_of_this_version(engine: sa.Engine, sql_database: SqlDatabase) -> None:
    assert [script.revision for script in SCRIPTS.walk_revisions()] == [*reversed(REVISIONS)]
    with engine.begin() as connection:
        upgrade(connection, None)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), TABLES) == []
    upgraded = described(engine)
    assert sql_database.execute("SELECT version_num FROM item_states_version") == [(HEAD,)]
    with engine.begin() as connection:
        TABLES.drop_all(connection)
        TABLES.create_all(connection)
    assert described(engine) == upgraded


WHEN = "2026-01-01T00:00:00.000+00:00"


def write_first_version(engine: sa.Engine, items: dict[str, int]) -> None:
    """A database as it was before there were revisions, with so many events of each item."""
    with engine.begin() as connection:
        FIRST_TABLES.create_all(connection)
        for item, count in items.items():
            state = ItemState(item, 3, "warm", count, b"bytes", WHEN)
            events = [(f"e{n}", n, 7, n % 2, "[1, 2.5]" if n >= count - KEPT else None) for n in range(count)]
            noted = hashlib.sha256(json.dumps([list(row) for row in events[-KEPT:]]).encode()).hexdigest()
            row = ("m", item, 3, "warm", count, b"bytes", state.checksum("m"), WHEN, noted)
            tables = FIRST_TABLES.tables
            connection.execute(sa.insert(tables["item_states"]).values(row))
            connection.execute(
                sa.insert(tables["item_events"]),
                [dict(zip(tables["item_events"].columns.keys(), ("m", item, *event), strict=True)) for event in events],
            )


def test_a_database_of_the_first_version_is_upgraded_when_it_is_opened(
    engine: sa.Engine, sql_database: SqlDatabase
) -> None:
    write_first_version(engine, {"short": 3, "long": KEPT + 5, "damaged": 2})
    sql_database.execute("UPDATE item_events SET label = 1 WHERE item_id = 'damaged' AND event_id = 'e0'")
    states = open_states(sql_database.url)
    assert sql_database.execute("SELECT version_num FROM item_states_version") == [(HEAD,)]
    assert {name: row.parameters for name, row in states.get("m", ["short", "long"]).items()} == {
        "short": b"bytes",
        "long": b"bytes",
    }
    assert states.labels("m", {"long": ["e0", "e1", "e204", "e205"]}) == {"long": {"e0": 0, "e1": 1, "e204": 0}}
    history = states.event_history("m", ["short", "long"])
    assert [event.id for event in history["long"]] == [f"e{n}" for n in range(5, KEPT + 5)]
    assert history["short"] == [Event(f"e{n}", 7, n % 2, [1, 2.5]) for n in range(3)]

    def committed(item: str, before: int) -> set[str]:
        row = ItemState(item, 4, "warm", before + 1, b"new", WHEN)
        return states.commit("m", [Change(row, [Event("new", 8, 1, [3])])])

    assert committed("short", 3) == committed("long", KEPT + 5) == set()
    with pytest.raises(StoreError, match="item 'damaged': one of its latest events is not what was written"):
        committed("damaged", 2)
    assert [event.id for event in states.event_history("m", ["long"])["long"]][-2:] == ["e204", "new"]
    states.close()


OPEN = f"""
import sys
import psycopg, newcomer.store.migrations, newcomer.store.sql_read_only
from newcomer.store.urls import open_states
{WHEN_ALL_ARE_READY}
open_states(sys.argv[1]).close()
"""


@pytest.mark.parametrize("sql_database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True)
def test_several_processes_upgrade_a_database_at_once(engine: sa.Engine, sql_database: SqlDatabase) -> None:
    write_first_version(engine, {f"item {n}": 40 for n in range(20)})
    assert run_at_once(OPEN, [[sql_database.url]] * 6) == [""] * 6
    states = open_states(sql_database.url)
    assert states.headers("m") == {f"item {n}": ItemHeader(3, "warm", 40) for n in range(20)}
    assert len(states.event_history("m", ["item 7"])["item 7"]) == 40
    states.close()


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(
    engine: sa.Engine, sql_database: SqlDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_first_version(engine, {"a": 3})
    before = described(engine)
    script = SCRIPTS.get_revision(HEAD)
    original = script.module.upgrade

    def interrupted() -> None:
        original()
        raise KeyboardInterrupt

    monkeypatch.setattr(script.module, "upgrade", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_states(sql_database.url)
    assert described(engine) == before
    monkeypatch.undo()
    open_states(sql_database.url).close()
    assert "checksum" in {column["name"] for column in sa.inspect(engine).get_columns("item_events")}


def test_an_older_database_that_cannot_be_written_is_refused(engine: sa.Engine, sql_database: SqlDatabase) -> None:
    write_first_version(engine, {"a": 3})
    before = described(engine)
    with pytest.raises(
        StoreError, match=r"has tables of an earlier version of newcomer \(0001\), and cannot be written; open it once"
    ):
        open_states(sql_database.read_only_url())
    assert described(engine) == before


def test_a_database_without_tables_is_refused_where_nothing_can_be_written(sql_database: SqlDatabase) -> None:
    sql_database.execute("CREATE TABLE other (id INTEGER)")
    with pytest.raises(StoreError, match="has no tables yet, and cannot be written; open it once where it can be"):
        open_states(sql_database.read_only_url())


def test_tables_of_another_layout_are_refused_before_any_is_created(sql_database: SqlDatabase) -> None:
    sql_database.execute("CREATE TABLE item_states (model TEXT, item TEXT, events INTEGER)")
    with pytest.raises(StoreError, match=r"table 'item_states' has no column 'item_id'.*give another database"):
        open_states(sql_database.url)
    engine = sa.create_engine(sql_database.url, poolclass=sa.NullPool)
    assert sa.inspect(engine).get_table_names() == ["item_states"]


def test_tables_whose_creation_was_cut_off_are_completed(engine: sa.Engine, sql_database: SqlDatabase) -> None:
    FIRST_TABLES.tables["item_states"].create(engine)  # the first version created one after the other
    states = open_states(sql_database.url)
    states.add("m", [Change(ItemState("a", 0, "cold", 0, b"", WHEN), [])])
    states.close()
    assert set(described(engine)) == set(TABLES.tables)


def test_a_table_that_is_gone_is_an_error_and_not_created_anew(sql_database: SqlDatabase) -> None:
    open_states(sql_database.url).close()
    sql_database.execute("DROP TABLE item_events")
    with pytest.raises(StoreError, match="table 'item_events' is gone; restore the database from a copy"):
        open_states(sql_database.url)


def test_other_tables_of_a_database_are_left_alone(sql_database: SqlDatabase) -> None:
    sql_database.execute("CREATE TABLE alembic_version (version_num TEXT)", "INSERT INTO alembic_version VALUES ('x')")
    open_states(sql_database.url).close()
    assert sql_database.execute("SELECT version_num FROM alembic_version") == [("x",)]


@pytest.mark.parametrize(("table", "column"), [("item_states", "item_id"), ("item_events", "event_id")])
def test_a_database_that_compares_ids_otherwise_than_by_bytes_is_refused(
    table: str, column: str, engine: sa.Engine, sql_database: SqlDatabase
) -> None:
    open_states(sql_database.url).close()
    if engine.dialect.name == "postgresql":
        sql_database.execute(f'ALTER TABLE {table} ALTER COLUMN {column} TYPE text COLLATE "default"')
    else:
        ((created,),) = sql_database.execute(f"SELECT sql FROM sqlite_master WHERE name = '{table}'")
        folded = str(created).replace(f"{column} VARCHAR(255)", f"{column} VARCHAR(255) COLLATE NOCASE")
        assert folded != created
        sql_database.execute(f"DROP TABLE {table}", folded)
    with pytest.raises(
        StoreError,
        match=rf"column '{column}' of table '{table}' compares by collation '(default|NOCASE)' and not by bytes",
    ):
        open_states(sql_database.url)


@pytest.mark.parametrize("url", ["mysql+pymysql://me:secret@host/items", "mssql://me:secret@host/items"])
def test_a_kind_of_database_that_may_merge_ids_is_refused(url: str) -> None:
    with pytest.raises(
        StoreError, match=r"is not known to compare ids by bytes; give the URL of SQLite, PostgreSQL"
    ) as error:
        open_states(url)
    assert "secret" not in str(error.value)
