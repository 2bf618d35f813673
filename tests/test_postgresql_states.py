"""Item states in PostgreSQL: connections that break, users who may only read, passwords."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from databases import SqlDatabase
from newcomer.errors import StoreError
from newcomer.store.sql import SqlItemStates
from newcomer.store.states import ItemHeader
from newcomer.store.urls import open_states
from test_states import change, state

DISCONNECT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def test_after_the_server_has_closed_the_connections_the_next_call_works(postgresql: Callable[[], SqlDatabase]) -> None:
    database = postgresql()
    states = open_states(database.url)
    states.add("m", [change("a", 0)])
    assert (True,) in database.execute(DISCONNECT)
    assert states.commit("m", [change("a", 1, "x")]) == set()
    database.execute(DISCONNECT)
    assert states.get("m", ["a"]) == {"a": state("a", 1, 1)}
    states.close()


def test_who_waits_too_long_for_another_writer_is_told_so(postgresql: Callable[[], SqlDatabase]) -> None:
    database = postgresql()
    states = SqlItemStates(database.url, wait_seconds=0.2)
    states.add("m", [change("a", 0)])
    other = sa.create_engine(database.url, poolclass=sa.NullPool)
    with other.connect() as connection:
        connection.exec_driver_sql("SELECT * FROM item_states FOR UPDATE")
        with pytest.raises(StoreError, match=r"lock timeout.*another process is writing it; try again when it is done"):
            states.commit("m", [change("a", 1, "x")])
        assert states.get("m", ["a"]) == {"a": state("a")}
    assert states.commit("m", [change("a", 1, "x")]) == set()
    states.close()


def test_a_user_who_may_only_read_reads(postgresql: Callable[[], SqlDatabase]) -> None:
    database = postgresql()
    states = open_states(database.url)
    states.add("m", [change("a", 0)])
    ((schema,),) = database.execute("SELECT current_schema()")
    name = f"reader_{schema}"
    database.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'secret'",
        f"GRANT USAGE ON SCHEMA {schema} TO {name}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {name}",
    )
    reader = open_states(database.url.replace("//postgres:@", f"//{name}:secret@"))
    assert reader.read_only
    assert reader.headers("m") == {"a": ItemHeader(0, "cold", 0)}
    with pytest.raises(StoreError, match=r"permission denied.*open it as a user who may write it") as error:
        reader.add("m", [change("b", 0)])
    assert "secret" not in str(error.value)
    reader.close()
    states.close()


def test_a_url_without_its_driver_is_understood(postgresql: Callable[[], SqlDatabase]) -> None:
    url = postgresql().url
    states = open_states(url.replace("postgresql+psycopg:", "postgresql:"))
    assert states.add("m", [change("a", 0)]) == set()
    states.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:secret@localhost:1/items",
        "postgresql+psycopg://me:secret@localhost:1/items?sslpassword=secret",
        "postgresql+psycopg://localhost:1/items?user=me&password=secret",
        "postgresql+psycopg://me:sec?ret@localhost:1/items",
        "postgresql+psycopg://me:a@secret@localhost:1/items",
        "postgresql+psycopg://me:sec/ret@localhost:1/items",
        "postgresql+psycopg://localhost:1/items?password=a@secret",
        "postgresql+psycopg//me:secret@localhost/items",
        "postgresql+nosuchdriver://me:secret@here/items",
        "postgresql+psycopg://me:secret@localhost:port/items",
    ],
)
def test_passwords_are_in_no_message(url: str) -> None:
    with pytest.raises(StoreError) as error:
        open_states(url)
    message = str(error.value)
    assert not any(part in message for part in ("secret", "sec?", "sec/", "ret@")), message
    assert "\n" not in message
