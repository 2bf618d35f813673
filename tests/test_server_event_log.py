"""The event log: what the service counted can be done again from it, and nothing else comes of it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from films import FILMS, trained
from newcomer.items.serving.service import ItemService
from newcomer.server.app import create_app
from newcomer.server.configuration import ServeConfig
from newcomer.server.event_log import EventLog, LogReader
from newcomer.server.history import HistoryReader, replay

NEW = {"film": "new", "genre": "war", "minutes": 99.0}
CONTEXT: dict[str, Any] = {"page": "home", "price": 0.5}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("films") / "store")


@pytest.fixture
def config(store: Path, tmp_path: Path) -> ServeConfig:
    return ServeConfig(stores=(store,), states=f"sqlite:///{tmp_path / 'items.db'}", folder=tmp_path / "own")


@pytest.fixture
def client(config: ServeConfig) -> Iterator[TestClient]:
    with TestClient(create_app(config), raise_server_exceptions=False) as client:
        yield client


def event(film: str | int = "new", **values: Any) -> dict[str, Any]:
    return {"film": film, "viewer": 3, **CONTEXT, "liked": 1, "seen": 1000, **values}


def contents(service: ItemService) -> dict[tuple[str, str], float]:
    """Number of events, and scores for two viewers, of every item."""
    names = sorted(service.headers())
    rows = [{"film": name, "viewer": viewer, **CONTEXT} for name in names for viewer in (3, 4)]
    found: dict[tuple[str, str], float] = {}
    for row, answer in zip(rows, service.score(rows).iter_rows(named=True), strict=True):
        found |= {(row["film"], "events"): answer["events"], (row["film"], f"score {row['viewer']}"): answer["score"]}
    return found


def live_a_life(client: TestClient) -> None:
    """Items and events of every kind: repeated, refused, corrected, deleted, joined with a request."""
    post = client.post
    post("/events", json={"events": [event("late", event_id="too early")]})
    post("/items", json={"items": [NEW, NEW | {"film": 7}, NEW | {"film": "late"}, NEW | {"film": "gone"}]})
    post("/items", json={"items": [NEW, NEW | {"film": "bad", "minutes": "long"}, NEW | {"genre": "love"}]})
    post("/items", json={"items": [NEW | {"film": "bad"}]})
    score = {"viewer": 4, "context": CONTEXT, "candidates": ["new"]}
    request = post("/score", json=score).json()["request_id"]
    rows = [event(event_id=f"e{n}", liked=n % 2, seen=1000 + n) for n in range(12)]
    rows += [event("7.0", seen=5), event("gone", event_id="g"), event("nobody"), event("bad", liked=None)]
    rows += [{"film": "new", "request_id": request, "event_type": "click", "seen": 1000}, event(FILMS[0], event_id="f")]
    for _ in range(2):
        post("/events", json={"events": rows})
    post("/events", json={"events": [event(event_id="e0", liked=1), event(price="dear", event_id="x")]})
    post(
        "/items",
        json={"items": [NEW | {"film": 7, "genre": "love"}, NEW | {"film": 7}, NEW | {"film": 7, "genre": "love"}]},
    )
    post("/items", json={"items": [NEW | {"film": 7}]})
    post("/items", json={"items": [NEW | {"film": 7, "minutes": 85.0}, NEW | {"film": "7", "minutes": "long"}]})
    post("/items", json={"items": [NEW | {"film": 7, "genre": "love"}], "replace": False})
    post("/events", json={"events": [event(7, event_id=f"after {n}") for n in range(3)]})
    for film in ("gone", FILMS[1]):
        assert client.delete(f"/items/{film}").status_code == 204
    post("/items", json={"items": [NEW | {"film": "gone", "genre": "love"}]})
    post("/events", json={"events": [event("gone", event_id="g", liked=0)]})


def test_a_replay_gives_the_states_of_the_service(
    client: TestClient, config: ServeConfig, store: Path, tmp_path: Path
) -> None:
    live_a_life(client)
    records = LogReader(config.own_folder / "log").read()
    with ItemService.open(store, f"sqlite:///{tmp_path / 'other.db'}") as again:
        reader = HistoryReader(again.learner.schema, again.learner.known)
        replay(again, reader.read(records[: len(records) // 2]))
        replay(again, reader.read(records[len(records) // 2 :]))
        found = contents(again)
        replay(again, HistoryReader(again.learner.schema, again.learner.known).read(records))
        assert contents(again) == pytest.approx(found)  # once more changes nothing
    with ItemService.open(store, config.states) as service:
        assert found == pytest.approx(contents(service), abs=1e-5)
    assert (found["gone", "events"], found["late", "events"], found["new", "events"]) == (1, 0, 13)
    assert (FILMS[1], "events") not in found


def test_records_of_several_processes_are_read_once_in_the_order_of_arrival(tmp_path: Path) -> None:
    one, other, reader = EventLog(tmp_path), EventLog(tmp_path), LogReader(tmp_path)
    for number in range(4):
        (one, other)[number % 2].append("event", [{"n": number}, {"n": number + 0.5}])
    assert [record.content["n"] for record in reader.read()] == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]
    one.append("deletion", ["\udcff"])
    assert [(record.kind, record.content) for record in reader.read()] == [("deletion", "\udcff")]
    assert reader.read() == []
    one.close()
    other.close()


def test_what_a_killed_process_left_incomplete_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = EventLog(tmp_path)
    log.append("event", [{"n": 1}])
    log.close()
    (path,) = tmp_path.glob("*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0\0\n" + json.dumps({"at": 1, "event": ["no row"]}).encode() + b"\n" + whole[:-5])
    assert [record.content for record in LogReader(tmp_path).read()] == [{"n": 1}]


def test_nothing_is_done_that_the_log_does_not_have(config: ServeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle of a record: the request fails, and leaves neither a record nor a state."""
    with TestClient(create_app(config), raise_server_exceptions=False) as client:
        client.post("/items", json={"items": [NEW]})
        before, write = LogReader(config.own_folder / "log").read(), os.write

        def full(file: int, content: bytes) -> int:
            if len(content) < 20:
                raise OSError(28, "No space left on device")
            return write(file, content[:20])

        monkeypatch.setattr("newcomer.server.event_log.os.write", full)
        assert client.post("/items", json={"items": [NEW | {"film": "other"}]}).status_code == 503
        assert client.post("/events", json={"events": [event()]}).status_code == 503
        assert client.delete("/items/new").status_code == 503
        monkeypatch.undo()
        assert client.get("/items/other").status_code == 404
        assert client.get("/items/new").json()["events"] == 0
        assert LogReader(config.own_folder / "log").read() == before
        assert client.post("/events", json={"events": [event()]}).json()["new"] == 1
