"""Impressions that wait for a click: at the end of the window each counts once, as what it became."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from films import FILMS, SCHEMA, trained
from newcomer.errors import StoreError
from newcomer.items.serving.service import ItemService
from newcomer.server.app import create_app
from newcomer.server.click_versions import ClickVersions
from newcomer.server.configuration import ServeConfig
from newcomer.server.event_log import LogReader
from newcomer.server.history import HistoryReader, replay
from newcomer.server.impressions import NOTE_SECONDS, POSITION, Impressions, WaitingImpressions
from newcomer.server.models import ModelsFile
from shell import Shell

NEW = {"film": "new", "genre": "war", "minutes": 99.0}
CONTEXT: dict[str, Any] = {"page": "home", "price": 0.5}
WINDOW = 1800.0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("films") / "store")


@pytest.fixture
def config(store: Path, tmp_path: Path) -> ServeConfig:
    return ServeConfig(
        stores=(store,), states=f"sqlite:///{tmp_path / 'items.db'}", folder=tmp_path / "own", impression_window=WINDOW
    )


@pytest.fixture
def client(config: ServeConfig) -> Iterator[TestClient]:
    with TestClient(create_app(config), raise_server_exceptions=False) as client:
        client.post("/items", json={"items": [NEW, NEW | {"film": "gone"}]})
        yield client


@pytest.fixture
def versions(config: ServeConfig, store: Path) -> Iterator[ClickVersions]:
    versions = ClickVersions(config, store, ModelsFile(config.own_folder))
    yield versions
    versions.close()


def event(number: int, kind: str = "impression", film: str = "new", **values: Any) -> dict[str, Any]:
    row = {"film": film, "viewer": 3, **CONTEXT, "seen": 1000 + number, "event_id": f"e{number}", "event_type": kind}
    return {**row, **values}


def send(client: TestClient, *events: dict[str, Any]) -> dict[str, int]:
    answer = client.post("/events", json={"events": list(events)}).json()
    return {key: answer[key] for key in ("new", "known", "corrected", "pending", "refused") if answer[key]}


def labels(config: ServeConfig, store: Path, film: str = "new", count: int = 10) -> dict[str, int]:
    with ItemService.open(store, config.states) as service:
        return service.states.labels(service.model, {film: [f"e{n}" for n in range(count)]})[film]


def after(seconds: float) -> int:
    return time.time_ns() + round(seconds * 1e9)


def test_an_impression_is_a_click_or_none_at_the_end_of_its_window(
    client: TestClient, config: ServeConfig, store: Path, versions: ClickVersions
) -> None:
    impressions = Impressions(versions, config.own_folder, WINDOW)
    assert send(client, *map(event, range(4))) == {"pending": 4}
    assert impressions.settle(time.time_ns()) == 0
    assert client.get("/items/new").json()["events"] == 0
    assert send(client, event(1, "click")) == {"new": 1}
    assert labels(config, store) == {"e1": 1}
    assert impressions.settle(after(WINDOW)) == 4
    assert labels(config, store) == {"e0": 0, "e1": 1, "e2": 0, "e3": 0}
    assert send(client, event(2, "click")) == {"corrected": 1}  # later than the window: the click is not lost
    assert impressions.settle(after(2 * WINDOW)) == 0
    assert client.get("/items/new").json()["events"] == 4


def test_a_value_that_the_model_refuses_takes_no_other_impression_with_it(tmp_path: Path) -> None:
    """Of a field with `unseen = "error"`, one unseen value lost all that counted with it, after the window and by replay."""
    fields = [replace(field, unseen="error") if field.name == "page" else field for field in SCHEMA.fields]
    store = trained(tmp_path / "store", replace(SCHEMA, fields=tuple(fields)))
    states, own = f"sqlite:///{tmp_path / 'items.db'}", tmp_path / "own"
    config = ServeConfig(stores=(store,), states=states, folder=own, impression_window=WINDOW)
    with TestClient(create_app(config)) as client:
        client.post("/items", json={"items": [NEW]})
        assert send(client, event(0), event(1, page="?"), event(2)) == {"pending": 2, "refused": 1}
        assert send(client, event(3, "click"), event(4, "click", page="?"), event(5, "click")) == {
            "new": 2,
            "refused": 1,
        }
        versions = ClickVersions(config, store, ModelsFile(own))
        assert Impressions(versions, own, WINDOW).settle(after(WINDOW)) == 2
        versions.close()
        assert client.get("/items/new").json()["events"] == 4
    with ItemService.open(store, f"sqlite:///{tmp_path / 'again.db'}") as again:
        replay(again, HistoryReader(again.learner.schema, again.learner.known).read(LogReader(own / "log").read()))
        assert again.headers()["new"].events == 4


def test_an_impression_that_has_counted_is_known(
    client: TestClient, config: ServeConfig, versions: ClickVersions
) -> None:
    send(client, event(0), event(1, "click"))
    assert send(client, event(0), event(1), event(2)) == {"known": 1, "pending": 2}  # e0 waits, e1 was clicked
    assert Impressions(versions, config.own_folder, WINDOW).settle(after(WINDOW)) == 3
    assert send(client, event(0), event(1), event(2), event(3, film="nobody")) == {"known": 3, "refused": 1}
    records = LogReader(config.own_folder / "log").read()
    assert [record.content["event_id"] for record in records if record.kind == "impression"] == ["e0", "e0", "e2"]
    assert client.get("/items/new").json()["events"] == 3


def test_the_state_is_that_of_the_events_as_they_became(
    client: TestClient, config: ServeConfig, store: Path, versions: ClickVersions, tmp_path: Path
) -> None:
    send(client, *map(event, range(9)), *[event(n, "click") for n in (2, 5)])
    Impressions(versions, config.own_folder, WINDOW).settle(after(WINDOW))
    request = {"viewer": 4, **CONTEXT, "film": "new"}
    with ItemService.open(store, f"sqlite:///{tmp_path / 'right.db'}") as right:
        right.add([NEW])
        rows = [{key: value for key, value in event(n).items() if key != "event_type"} for n in range(9)]
        right.warm([row | {"liked": int(n in (2, 5))} for n, row in enumerate(rows)])
        wanted = right.score([request])["logit"][0]
    with ItemService.open(store, config.states) as live:
        assert live.score([request])["logit"][0] == pytest.approx(wanted, abs=1e-4)
    with ItemService.open(store, f"sqlite:///{tmp_path / 'again.db'}") as again:
        records = LogReader(config.own_folder / "log").read()
        replay(again, HistoryReader(again.learner.schema, again.learner.known).read(records))
        assert again.score([request])["logit"][0] == pytest.approx(wanted, abs=1e-4)
        assert again.headers()["new"].events == 9


def test_nothing_is_lost_or_counted_twice_by_a_restart_or_by_several_that_count(
    client: TestClient, config: ServeConfig, store: Path, versions: ClickVersions
) -> None:
    first = Impressions(versions, config.own_folder, WINDOW)
    send(client, *map(event, range(3)))
    first.settle(time.time_ns())  # is killed here
    second, third = (Impressions(versions, config.own_folder, WINDOW) for _ in range(2))
    for impressions in (second, third, first):
        assert impressions.settle(after(WINDOW)) == 3
    assert client.get("/items/new").json()["events"] == 3
    assert second.settle(after(WINDOW + 2 * NOTE_SECONDS)) == 0
    assert second.settle(after(WINDOW + 4 * NOTE_SECONDS)) == 0
    assert (config.own_folder / POSITION).exists()
    send(client, event(3))
    fourth = Impressions(versions, config.own_folder, WINDOW)
    assert fourth.settle(after(WINDOW)) == 1  # those before are not read again
    assert client.get("/items/new").json()["events"] == 4


def test_a_database_that_fails_loses_no_impression(
    client: TestClient, config: ServeConfig, versions: ClickVersions, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(client, *map(event, range(3)))

    def broken(*_: object) -> None:
        raise StoreError("the database refused")

    with monkeypatch.context() as failing:
        failing.setattr(versions.latest().live.states, "commit", broken)
        with pytest.raises(StoreError):
            Impressions(versions, config.own_folder, WINDOW).settle(after(WINDOW))
    assert client.get("/items/new").json()["events"] == 0
    assert Impressions(versions, config.own_folder, WINDOW).settle(after(WINDOW)) == 3
    assert client.get("/items/new").json()["events"] == 3


def test_an_impression_of_an_item_that_was_deleted_meanwhile_does_not_count_for_a_new_one(
    client: TestClient, config: ServeConfig, versions: ClickVersions
) -> None:
    send(client, event(0, film="gone"), event(1))
    client.delete("/items/gone")
    client.post("/items", json={"items": [NEW | {"film": "gone"}]})
    send(client, event(2, film="gone"))
    assert Impressions(versions, config.own_folder, WINDOW).settle(after(WINDOW)) == 2
    assert client.get("/items/gone").json()["events"] == 1


def test_an_impression_that_would_not_count_is_refused_when_it_comes(client: TestClient, config: ServeConfig) -> None:
    rows = [event(0), event(1, film="nobody"), event(2, price="dear"), event(3, "click")]
    answer = client.post("/events", json={"events": rows}).json()
    assert [answer[key] for key in ("new", "pending", "refused")] == [1, 1, 2]
    assert sorted(error["pointer"] for error in answer["errors"]) == ["/events/1/film", "/events/2/price"]
    kinds = [record.kind for record in LogReader(config.own_folder / "log").read()]
    assert kinds == ["item", "item", "impression", "event"]


def test_an_id_is_one_impressions(client: TestClient, config: ServeConfig, versions: ClickVersions) -> None:
    """While it waits, in this worker and in others, and after it has counted."""
    other: dict[str, Any] = {"viewer": 8}
    with TestClient(create_app(config)) as worker:
        assert send(client, event(0)) == {"pending": 1}
        for service in (client, worker):
            assert send(service, event(0, **other)) == send(service, event(0, "click", **other)) == {"refused": 1}
            assert send(service, event(0, "click", price=0.75)) == {"refused": 1}
        assert send(client, event(1), event(1, "click", **other)) == {"pending": 1, "refused": 1}
        assert send(worker, event(0, "click", viewer=" 3")) == {"new": 1}
        assert send(worker, event(0, "click")) == {"known": 1}
        refused = client.post("/events", json={"events": [event(5), event(1, **other)]}).json()["errors"]
        assert refused[0]["pointer"] == "/events/1"
        assert "event 'e1' of item 'new' has another user or context than an event" in refused[0]["detail"]
        Impressions(versions, config.own_folder, WINDOW).settle(after(WINDOW))
        assert client.get("/items/new").json()["events"] == 3
        assert send(client, event(1, **other)) == {"refused": 1}
        client.delete("/items/new")
        client.post("/items", json={"items": [NEW]})
        assert send(worker, event(1, **other)) == {"pending": 1}


def test_an_impression_that_has_waited_is_forgotten(client: TestClient, config: ServeConfig, store: Path) -> None:
    with ItemService.open(store, config.states) as service:
        waiting = WaitingImpressions(config.own_folder, 0.0, service.learner.schema)
        send(client, event(0))
        row = {key: value for key, value in event(0, viewer=8).items() if key != "event_type"} | {"liked": 1}
        assert waiting.under_ids_of_others(service, {0: row}) == {}


def test_an_impression_joins_its_request(client: TestClient, config: ServeConfig, versions: ClickVersions) -> None:
    body = {"viewer": 3, "context": CONTEXT, "candidates": ["new", FILMS[0]]}
    request = client.post("/score", json=body).json()["request_id"]
    joined = {"film": "new", "request_id": request, "event_type": "impression", "seen": 1000}
    assert send(client, joined, joined | {"film": FILMS[0]}) == {"pending": 2}
    assert send(client, joined | {"event_type": "click"}) == {"new": 1}
    assert send(client, joined | {"event_type": None, "liked": 0}) == {"known": 1}  # a label says what it is
    before = client.get(f"/items/{FILMS[0]}").json()["events"]
    Impressions(versions, config.own_folder, WINDOW).settle(after(WINDOW))
    assert client.get("/items/new").json()["events"] == 1
    assert client.get(f"/items/{FILMS[0]}").json()["events"] == before + 1


def test_the_service_counts_by_itself_and_what_an_earlier_one_left(config: ServeConfig) -> None:
    short = config.model_copy(update={"impression_window": 0.01})
    with TestClient(create_app(short)) as one, TestClient(create_app(short)) as other:
        one.post("/items", json={"items": [NEW]})
        assert send(one, event(0)) == send(other, event(1)) == {"pending": 1}
        wait_for_events(one, 2)
    with TestClient(create_app(config)) as client:
        send(client, event(2))
    with TestClient(create_app(config.model_copy(update={"impression_window": None}))) as client:
        assert send(client, event(3)) == {"new": 1}
        wait_for_events(client, 4)


def wait_for_events(client: TestClient, count: int) -> None:
    for _ in itertools.repeat(None, 600):
        if client.get("/items/new").json()["events"] == count:
            return
        time.sleep(0.1)
    raise AssertionError("impressions were not counted")


@pytest.mark.parametrize("window", ["30", "0s", "x", "-1m", "1.5.2h"])
def test_a_window_has_a_unit(window: str, store: Path, shell: Shell) -> None:
    code, _, err = shell.call("serve", str(store), f"--impression-window={window}")
    assert code == 2
    assert f"--impression-window {window}: give a time with its unit, such as 90s, 30m, 2h or 1d" in err
