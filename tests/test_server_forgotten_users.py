"""Users who are forgotten over HTTP: neither the database nor the log nor a later training has them."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fastapi.testclient import TestClient

from films import FILMS, log, served, trained
from newcomer.client import Client, ServiceError
from newcomer.errors import StoreError
from newcomer.items.serving.service import ItemService
from newcomer.items.serving.user_digests import user_digest
from newcomer.server.app import create_app
from newcomer.server.click_versions import ClickVersions
from newcomer.server.configuration import ServeConfig
from newcomer.server.event_log import FOLDER, EventLog, LogReader
from newcomer.server.impressions import Impressions
from newcomer.server.job_execution import execute
from newcomer.server.job_runner import JobRunner
from newcomer.server.models import ModelsFile
from serving import in_thread
from shell import Shell

CONTEXT: dict[str, Any] = {"page": "home", "price": 0.5}
NEW = {"film": "new", "genre": "war", "minutes": 99.0}
USER = "größer/1"
MAP: dict[str, Any] = {"adaptation": "map", "warmup_events": "all"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    log().write_csv(folder / "log.csv")
    return trained(folder / "store", **MAP)


@pytest.fixture
def config(store: Path, tmp_path: Path) -> ServeConfig:
    return served(store, tmp_path)


@pytest.fixture
def client(config: ServeConfig) -> Iterator[TestClient]:
    with TestClient(create_app(config)) as client:
        yield client


def event(number: int, user: str | int, **values: Any) -> dict[str, Any]:
    rest = {**CONTEXT, "liked": number % 2, "seen": 1000 + number, "event_id": f"e{number}"}
    return {"film": "new", "viewer": user, **rest, **values}


def send(client: TestClient, begin: int = 0) -> None:
    """Thirty events, every third of the user."""
    client.post("/items", json={"items": [NEW]})
    rows = [event(n, USER if n % 3 == 0 else 5) for n in range(begin, begin + 30)]
    assert client.post("/events", json={"events": rows}).json()["new"] == 30


def forget(client: TestClient) -> dict[str, Any]:
    answer = client.delete("/users/gr%C3%B6%C3%9Fer%2F1")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def own_bytes(config: ServeConfig) -> bytes:
    return b"".join(path.read_bytes() for path in (config.own_folder / FOLDER).glob("*"))


def train(client: TestClient, config: ServeConfig, **body: Any) -> dict[str, Any]:
    job = client.post("/jobs", json={"kind": "train"} | body).json()["id"]
    runner = JobRunner(config)
    while (found := runner.next()) is not None:
        execute(config, found.id)
    found = client.get(f"/jobs/{job}").json()
    assert found["status"] == "done", found
    return dict(found["result"])


def test_a_forgotten_user_is_in_no_state_and_in_no_line_of_the_log(client: TestClient, config: ServeConfig) -> None:
    send(client)
    size = len(own_bytes(config))
    found = forget(client)
    assert (found["events"], found["items"], found["log_lines"]) == (10, 1, 10)
    assert len(own_bytes(config)) == size
    assert USER.encode() not in own_bytes(config)
    records = LogReader(config.own_folder / FOLDER).read()
    assert [record.content["event_id"] for record in records if record.kind == "event"] == [
        f"e{n}" for n in range(30) if n % 3
    ]
    answer = client.post("/events", json={"events": [event(50, 5), event(51, USER), event(52, f" {USER}")]}).json()
    assert (answer["new"], answer["refused"]) == (1, 2)
    assert answer["errors"][0] == {
        "pointer": "/events/1",
        "detail": "events: row 2: its user was forgotten; leave it out",
    }
    assert USER.encode() not in own_bytes(config)
    again = forget(client)
    assert (again["events"], again["items"], again["log_lines"]) == (0, 0, 0)
    assert client.get("/items/new").json()["events"] == 31


def test_a_forgotten_user_is_scored_as_one_never_seen(client: TestClient) -> None:
    def score(user: str) -> list[float]:
        body = {"viewer": user, "context": CONTEXT, "candidates": FILMS}
        return [one["score"] for one in client.post("/score", json=body).json()["scores"]]

    assert score("3") != score("nobody has seen")
    client.delete("/users/3")
    assert score("3") == score("nobody has seen")


def test_an_event_that_is_logged_while_its_user_is_forgotten_is_erased(
    client: TestClient, config: ServeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/items", json={"items": [NEW]})
    append = EventLog.append

    def after_the_search(*arguments: Any) -> None:
        monkeypatch.undo()
        assert forget(client)["log_lines"] == 0
        append(*arguments)

    monkeypatch.setattr(EventLog, "append", after_the_search)
    answer = client.post("/events", json={"events": [event(1, 5), event(2, USER)]}).json()
    assert (answer["new"], answer["refused"]) == (1, 1)
    assert USER.encode() not in own_bytes(config)


def test_a_log_that_is_written_meanwhile_loses_no_line(client: TestClient, config: ServeConfig) -> None:
    client.post("/items", json={"items": [NEW]})
    own, stopped = EventLog(config.own_folder / FOLDER), threading.Event()
    counts = [0]

    def write() -> None:
        while not stopped.is_set():
            own.append("event", [event(counts[0], 5)])
            counts[0] += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for n in range(5):
            own.append("event", [event(n, f"u{n}")])
            assert client.delete(f"/users/u{n}").json()["log_lines"] == 1
    finally:
        stopped.set()
        thread.join()
        own.close()
    records = LogReader(config.own_folder / FOLDER).read()
    assert [record.content["seen"] for record in records if record.kind == "event"] == [
        1000 + n for n in range(counts[0])
    ]


def test_a_later_training_and_earlier_versions_have_nothing_of_the_user(
    client: TestClient, config: ServeConfig
) -> None:
    send(client)
    assert train(client, config, promote="always", eval_share=0.1)["training_events"] == 27
    client.post("/models", json={"retire": ["v1"]})
    send(client, begin=100)
    table = config.own_folder / "versions" / "v2" / "events.parquet"
    assert USER in pl.read_parquet(table)["viewer"].to_list()
    found = forget(client)
    assert found["log_lines"] == 20
    assert pl.read_parquet(table)["viewer"].unique().to_list() == ["5"]
    for folder in (config.stores[0], table.parent):
        with ItemService.open(folder, config.states) as service:
            kept = service.states.event_history(service.model, ["new"])["new"]
            assert {event.user for event in kept} == {user_digest("5")}
    assert train(client, config, promote="never", eval_share=0.05)["training_events"] == 38
    assert USER not in pl.read_parquet(table.parent.with_name("v3") / "events.parquet")["viewer"].to_list()
    job = client.post("/jobs", json={"kind": "replay", "version": "v1"}).json()["id"]
    execute(config, job)
    with ItemService.open(config.stores[0], config.states) as service:
        assert service.look_up("new")[0].events == 50  # its own thirty, and the twenty that it lacked


def test_a_user_who_is_forgotten_during_a_training_is_in_no_table_of_it(
    client: TestClient, config: ServeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(client)
    change = ModelsFile.change

    def meanwhile(models: ModelsFile) -> Any:
        monkeypatch.undo()
        assert forget(client)["log_lines"] == 10
        return change(models)

    monkeypatch.setattr("newcomer.server.train_job.ModelsFile.change", meanwhile)
    name = train(client, config, promote="never")["version"]
    table = pl.read_parquet(config.own_folder / "versions" / name / "events.parquet")
    assert USER not in table["viewer"].to_list()


def test_an_impression_that_waits_does_not_count_for_a_forgotten_user(store: Path, config: ServeConfig) -> None:
    config = config.model_copy(update={"impression_window": 3600.0})
    with TestClient(create_app(config)) as client:
        client.post("/items", json={"items": [NEW]})
        rows = [{**event(n, user), "event_type": "view"} for n, user in enumerate(["5", USER])]
        for row in rows:
            del row["liked"]
        assert client.post("/events", json={"events": rows}).json()["pending"] == 2
        versions = ClickVersions(config, store, ModelsFile(config.own_folder))
        waiting = Impressions(versions, config.own_folder, 0.0)
        waiting.settle(0)  # they are in memory
        forget(client)
        waiting.settle(10**19)
        assert client.get("/items/new").json()["events"] == 1
        versions.close()


@pytest.mark.parametrize("user", [".", "..", "a/../b", "x?y&z=%2e"])
def test_a_user_of_any_id_is_forgotten(user: str, config: ServeConfig) -> None:
    with in_thread(create_app(config)) as url, Client(url) as client:
        client.add([NEW])
        client.warm([event(1, user), event(2, 5)])
        found = client.forget_user(user)
        assert (found.events, found.log_lines) == (1, 1)


def test_the_command_forgets_in_the_services_own_files_too(store: Path, tmp_path: Path, shell: Shell) -> None:
    copy = tmp_path / "shop"
    shutil.copytree(store, copy)
    config = ServeConfig(stores=(copy,))
    with TestClient(create_app(config)) as client:
        send(client)
    assert USER.encode() in own_bytes(config)
    assert "10 lines of the service's event log erased" in shell.call("forget", str(copy), "--user", USER)[1]
    assert USER.encode() not in own_bytes(config)
    shutil.rmtree(config.own_folder)
    assert "DELETE /users/ID there" in shell.call("forget", str(copy), "--user", USER)[1]


def test_an_item_that_the_command_deleted_does_not_come_back_with_a_new_version(
    store: Path, tmp_path: Path, shell: Shell
) -> None:
    copy, table = tmp_path / "shop", tmp_path / "log.csv"
    shutil.copytree(store, copy)
    log().write_csv(table)
    config = ServeConfig(stores=(copy,), log=(str(table),))
    with TestClient(create_app(config)) as client:
        send(client)
        client.post("/items", json={"items": [NEW | {"film": "other"}]})
        assert "other" in shell.call("forget", str(copy), "--item", "other")[1]
        assert "is not known" in shell.fails("forget", str(copy), "--item", "other")
        assert train(client, config, promote="always", settings={"seed": 1})["promoted"]
        names = [item["item_id"] for item in client.get("/items").json()["items"]]
        assert NEW["film"] in names
        assert "other" not in names


def test_only_an_admin_forgets_users(config: ServeConfig, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"write {'w' * 16}\nadmin {'a' * 16}\n")
    app = create_app(config.model_copy(update={"token_file": tokens}))
    with in_thread(app) as url:
        with Client(url, "w" * 16) as writer, pytest.raises(ServiceError, match="does not have the role 'admin'"):
            writer.forget_user(USER)
        with Client(url, "a" * 16) as admin:
            admin.add([NEW])
            admin.warm([event(1, USER), event(2, 5)])
            found = admin.forget_user(USER)
            assert (found.events, found.items, found.log_lines, found.notes) == (1, 1, 1, [])
            (log,) = found.remains
            assert log.startswith(f"the training log ({config.log[0]}) was not searched")
            nobody = admin.forget_user("3")
            assert nobody.notes == ["nothing of this user was found; events under this id are refused from now on"]
            assert [line for line in nobody.remains if line != log] == [
                f"version 'v1': {len(FILMS)} items have events whose user is not kept (those of training, or before the latest "
                "200): what this user's among them did to the states remains"
            ]
            with pytest.raises(ServiceError, match="is no id"):
                admin.forget_user(" ")


def test_a_version_that_cannot_be_searched_is_an_error_and_not_left_out(
    client: TestClient, config: ServeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(client)
    train(client, config, promote="always")
    client.post("/models", json={"retire": ["v1"]})

    def fails(*_: Any) -> None:
        raise StoreError("v1: cannot be opened")

    with monkeypatch.context() as patch:
        patch.setattr("newcomer.server.user_erasure.ItemService.open", fails)
        answer = client.delete("/users/5")
        assert (answer.status_code, answer.json()["detail"]) == (503, "v1: cannot be opened")
    assert client.delete("/users/5").json()["log_lines"] == 20
