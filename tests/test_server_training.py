"""The click model is trained anew while it is in service: what is trained, how it is judged, and that nothing is lost meanwhile."""

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import torch
from fastapi.testclient import TestClient

from films import FILMS, QUICK, SCHEMA, log, served, trained
from newcomer.data.io.log_reader import log_from_frame
from newcomer.data.io.log_tables import entity_frame, log_frame
from newcomer.data.schema import Field, Schema
from newcomer.items.calibration import Calibration
from newcomer.items.methods.emerg import EmerG
from newcomer.items.serving.event_ids import digests
from newcomer.items.serving.service import ItemService
from newcomer.metrics.calibration import logloss
from newcomer.server import train_job
from newcomer.server.app import create_app
from newcomer.server.click_versions import ClickVersions
from newcomer.server.configuration import ServeConfig
from newcomer.server.impressions import Impressions
from newcomer.server.job_bodies import Job
from newcomer.server.job_execution import execute
from newcomer.server.job_runner import JobRunner
from newcomer.server.jobs import Jobs
from newcomer.server.models import ModelsFile
from serving import in_thread

CONTEXT: dict[str, Any] = {"page": "home", "price": 0.5}
BAD = {"pretrain_lr": 30.0, "meta_epochs": 0}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    log().write_csv(folder / "log.csv")
    return trained(folder / "store")


@pytest.fixture
def config(store: Path, tmp_path: Path) -> ServeConfig:
    return served(store, tmp_path)


@pytest.fixture
def client(config: ServeConfig) -> Iterator[TestClient]:
    with TestClient(create_app(config)) as client:
        yield client


def item(name: str) -> dict[str, Any]:
    return {"film": name, "genre": "war", "minutes": 99.0}


def event(name: str, number: int, **values: Any) -> dict[str, Any]:
    rest = {"viewer": number % 20, **CONTEXT, "liked": number % 2, "seen": 1000 + number, "event_id": f"e{number}"}
    return {"film": name, **rest, **values}


def send(client: TestClient | httpx.Client, begin: int, end: int) -> list[dict[str, Any]]:
    """Register two items, and count these events of theirs and of a trained one."""
    client.post("/items", json={"items": [item("new 0"), item("new 1")]})
    rows = [event(["new 0", "new 1", FILMS[0]][number % 3], number) for number in range(begin, end)]
    assert client.post("/events", json={"events": rows}).json()["new"] == end - begin
    return rows


def train(client: TestClient, config: ServeConfig, **body: Any) -> dict[str, Any]:
    answer = client.post("/jobs", json={"kind": "train", **body})
    assert answer.status_code == 202, answer.text
    runner = JobRunner(config)
    while (job := runner.next()) is not None:
        execute(config, job.id)
    found: dict[str, Any] = client.get(f"/jobs/{answer.json()['id']}").json()
    assert found["status"] == "done", found["detail"]
    result: dict[str, Any] = found["result"]
    return result


def versions(client: TestClient) -> dict[str, dict[str, Any]]:
    return {version["name"]: version for version in client.get("/models").json()["versions"]}


def test_what_is_trained_is_what_the_library_learns_from_both_logs(
    client: TestClient, config: ServeConfig, store: Path, tmp_path: Path
) -> None:
    rows = send(client, 0, 40)
    client.post("/events", json={"events": [*rows[:9], event("nobody", 50), event("new 0", 51, price="dear")]})
    result = train(client, config, promote="always", eval_share=0.25)
    assert (result["version"], result["promoted"], result["training_events"]) == ("v2", True, 30)
    assert (result["left_out_events"], result["evaluation"]["events"]) == (0, 10)
    features = {"new 0": item("new 0"), "new 1": item("new 1"), FILMS[0]: {"genre": "war", "minutes": 80.0}}
    of_service = pl.DataFrame([{**features[row["film"]], **row} for row in rows[:30]]).select(log().columns)
    right = EmerG(SCHEMA, **QUICK).learn(pl.concat([log(), of_service], how="vertical_relaxed"))
    found = EmerG.load(config.own_folder / "versions" / "v2")
    for name, value in right.network.state_dict().items():
        assert torch.equal(value, found.network.state_dict()[name]), name
    assert found.known == right.known


def test_a_new_version_has_items_with_the_features_that_they_have_now(client: TestClient, config: ServeConfig) -> None:
    send(client, 0, 40)
    client.post("/items", json={"items": [item("new 0") | {"genre": "love"}, item("cold") | {"genre": "love"}]})
    client.post("/items", json={"items": [item("cold"), item("twin") | {"genre": "love"}]})
    train(client, config, promote="always")
    rows = [{"film": name, "viewer": 3, **CONTEXT} for name in ("new 0", "cold", "new 1")]
    with ItemService.open(config.own_folder / "versions" / "v2", config.states) as live:
        known = live.refreshed(["new 0", "cold", "new 1", "twin"])
        genres = {name: int(known.item_features[0][number]) for name, number in known.numbers.items()}
        assert genres["new 0"] == genres["twin"] != genres["cold"] == genres["new 1"]
        assert live.score(rows)["score"].is_not_null().all()


def newcomers(client: TestClient, count: int, of_each: int) -> list[dict[str, Any]]:
    """Register new items and count events of theirs, of which a quarter are clicks."""
    names = [f"newcomer {n}" for n in range(count)]
    client.post("/items", json={"items": [item(name) for name in names]})
    rows = [event(names[n % count], n, liked=int(n % 4 == 0)) for n in range(count * of_each)]
    assert client.post("/events", json={"events": rows}).json()["new"] == len(rows)
    return rows


def expected(client: TestClient) -> float:
    body = {"viewer": 3, "context": CONTEXT, "candidates": [{"genre": "war", "minutes": 99.0}]}
    return float(client.post("/score", json=body).json()["scores"][0]["score"])


def test_the_calibration_is_fitted_anew_on_new_items_and_goes_live_with_the_states_that_are_there(
    client: TestClient, config: ServeConfig, store: Path
) -> None:
    before, log_files = expected(client), config.model_copy(update={"log": ()})
    rows = newcomers(client, 60, 10)
    client.post(
        "/events", json={"events": [event(FILMS[0], n) for n in range(900, 940)]}
    )  # says nothing: was trained on
    result = train(client, log_files, kind="calibrate", eval_share=0.2)
    assert (result["version"], result["promoted"], result["calibration_events"]) == ("v2", True, 512)
    assert result["evaluation"]["new"]["logloss"] < result["evaluation"]["live"]["logloss"]
    assert result["model"] == versions(client)["v1"]["model"]
    assert 0.2 < expected(client) < before - 0.05
    found = versions(client)
    assert (found["v2"]["live"], found["v2"]["status"], found["v1"]["status"]) == (True, "ready", "ready")
    again = client.post("/events", json={"events": [*rows[:9], event("newcomer 0", 990)]}).json()
    assert (again["new"], again["known"]) == (1, 9)
    assert client.get("/items/newcomer 0").json()["events"] == 11
    client.post("/models", json={"live": "v1"})
    assert expected(client) == pytest.approx(before)
    assert client.get("/items/newcomer 0").json()["events"] == 11
    assert client.delete("/items/newcomer 0").status_code == 204
    client.post("/models", json={"live": "v2"})
    assert client.get("/items/newcomer 0").status_code == 404


def test_a_calibration_of_a_version_that_was_trained_in_service_knows_what_that_learned(
    client: TestClient, config: ServeConfig
) -> None:
    send(client, 1000, 1040)
    assert train(client, config, promote="always", eval_share=0.1)["training_events"] == 36
    rows = newcomers(client, 60, 10)
    result = train(client, config, kind="calibrate", promote="always", eval_share=0.2)
    assert (result["version"], result["compared_with"]) == ("v3", "v2")
    assert client.post("/events", json={"events": rows}).json()["known"] == len(rows)
    assert client.delete("/users/3").status_code == 200
    for name in ("v2", "v3"):
        learned = pl.read_parquet(config.own_folder / "versions" / name / "events.parquet")
        assert 30 < len(learned) < 36
        assert "3" not in learned["viewer"].to_list()


def test_users_who_have_changed_are_no_obstacle_to_a_calibration(tmp_path: Path) -> None:
    schema = replace(SCHEMA, fields=(*SCHEMA.fields, Field("country", "user", missing="mark")))
    rows = log().with_columns(country=pl.lit("DE"))
    EmerG(schema, **QUICK, calibrate=True).learn(rows).save(tmp_path / "store")
    config = ServeConfig(stores=(tmp_path / "store",), states=f"sqlite:///{tmp_path}/items.db", folder=tmp_path / "own")
    with TestClient(create_app(config)) as client:
        names = [f"newcomer {n}" for n in range(70)]
        client.post("/items", json={"items": [item(name) for name in names]})
        events = [
            event(name, 10 * n + k, country=["DE", "US"][k % 2], viewer=n % 20)
            for n, name in enumerate(names)
            for k in range(10)
        ]
        assert client.post("/events", json={"events": events}).json()["new"] == 700
        assert train(client, config, kind="calibrate", promote="always", eval_share=0.2)["version"] == "v2"
        (job,) = client.get("/jobs").json()["jobs"]
        assert "'country'" in job["warnings"][0]


def test_without_new_items_there_is_nothing_to_calibrate_on(client: TestClient, config: ServeConfig) -> None:
    send(client, 0, 40)
    client.post("/jobs", json={"kind": "calibrate"})
    runner = JobRunner(config)
    while (job := runner.next()) is not None:
        execute(config, job.id)
    (job,) = Jobs(config.own_folder / "jobs").all()
    assert job.status == "failed"
    assert "2 items without training" in str(job.detail)
    assert list(versions(client)) == ["v1"]


def test_calibrations_are_queued_when_they_are_due(client: TestClient, config: ServeConfig) -> None:
    """One at a time, and the next one as long after the last one as the first one after the start."""
    jobs = Jobs(config.own_folder / "jobs")
    JobRunner(config).schedule()
    JobRunner(config.model_copy(update={"calibrate_every": 3600.0})).schedule()
    assert not jobs.all()
    due = config.model_copy(update={"calibrate_every": 1e-3})
    time.sleep(0.01)
    for _ in range(2):
        JobRunner(due).schedule()
    assert [job.kind for job in jobs.all()] == ["calibrate"]
    execute(due, jobs.all()[0].id)
    time.sleep(0.01)
    JobRunner(due).schedule()
    assert [job.status for job in jobs.all()] == ["failed", "queued"]
    JobRunner(config.model_copy(update={"calibrate_every": 3600.0})).schedule()
    assert len(jobs.all()) == 2


def test_what_hinders_the_schedule_stops_no_other_job(
    client: TestClient, config: ServeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """A job whose file is damaged, which is left out; versions that cannot be read; and trainings do not put a calibration off."""
    jobs, due = Jobs(config.own_folder / "jobs"), config.model_copy(update={"calibrate_every": 1e-3})
    time.sleep(0.01)
    damaged, file = jobs.create("train", None, {}), ModelsFile(config.own_folder).path
    for path in (jobs.folder / damaged.id / "job.json", file):
        content = path.read_bytes()
        path.write_text("{")
        JobRunner(due).schedule()
        path.write_bytes(content)
    assert len(caplog.records) == 2
    assert [job.kind for job in jobs.all()] == ["train", "calibrate"]
    jobs.end(jobs.all()[-1].model_copy(update={"status": "done", "created": "2020-01-01T00:00:00.000+00:00"}))
    jobs.end(damaged.model_copy(update={"status": "failed"}))
    with ModelsFile(config.own_folder).change() as changed:
        assert changed.click_model is not None
        changed.click_model.versions["v1"].created = "2020-01-01T00:00:00.000+00:00"
    JobRunner(config.model_copy(update={"calibrate_every": 3600.0})).schedule()
    assert [job.kind for job in jobs.all()] == ["train", "calibrate", "calibrate"]


def calibrated(config: ServeConfig, name: str) -> Calibration:
    folder = config.own_folder / "versions" / name
    return EmerG.load(folder).fitted_calibration


def test_events_count_once_in_a_calibration_however_often_it_is_fitted(
    client: TestClient, config: ServeConfig, store: Path
) -> None:
    """The next one is that of all events under the calibration of training, and where nothing is new there is none."""
    newcomers(client, 60, 10)
    assert train(client, config, kind="calibrate", promote="always", eval_share=0.2)["version"] == "v2"
    result = train(client, config, kind="calibrate", promote="always", eval_share=0.2)
    assert (result["version"], result["promoted"]) == ("v2", False)
    assert "the events are the same" in str(result["reason"])
    client.post("/events", json={"events": [event(f"newcomer {n % 60}", 700 + n, liked=1) for n in range(120)]})
    assert train(client, config, kind="calibrate", promote="always", eval_share=0.2)["version"] == "v3"
    assert calibrated(config, "v3") != calibrated(config, "v2")
    client.post("/models", json={"live": "v1"})
    assert train(client, config, kind="calibrate", promote="always", eval_share=0.2)["version"] == "v4"
    assert calibrated(config, "v4") == calibrated(config, "v3")
    assert len(EmerG.load(config.own_folder / "versions" / "v3").entries) == 2


def test_of_many_calibrations_those_stay_that_somebody_would_go_back_to(
    client: TestClient, config: ServeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_job, "KEPT_CALIBRATIONS", 1)
    newcomers(client, 60, 10)
    for number in range(4):
        client.post("/events", json={"events": [event("newcomer 1", 700 + 9 * number + n) for n in range(9)]})
        train(client, config, kind="calibrate", promote="always", eval_share=0.1)
        if number == 1:
            client.post("/models", json={"shares": {"v2": 0.5}})
            (config.own_folder / "versions" / "v9").mkdir()  # was moved there by a job that was killed
    assert list(versions(client)) == ["v1", "v2", "v4", "v5"]
    assert sorted(path.name for path in (config.own_folder / "versions").iterdir()) == ["v2", "v4", "v5"]
    client.post("/models", json={"shares": {}})
    client.post("/models", json={"live": "v4"})
    client.post("/events", json={"events": [event("newcomer 1", 990)]})
    assert train(client, config, kind="calibrate", promote="always", eval_share=0.1)["version"] == "v6"
    assert list(versions(client)) == ["v1", "v4", "v6"]
    assert client.post("/jobs", json={"kind": "replay", "version": "v5"}).status_code == 404
    assert client.post("/models", json={"live": "v4"}).status_code == 200


def test_versions_with_the_same_states_are_written_once_and_see_each_change_at_once(
    client: TestClient, config: ServeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    newcomers(client, 60, 10)
    train(client, config, kind="calibrate", promote="always", eval_share=0.2)
    client.post("/models", json={"shares": {"v1": 0.999}})
    body = {"viewer": 3, "context": CONTEXT, "candidates": ["newcomer 0"]}
    before = client.post("/score", json=body).json()["scores"][0]
    calls, warm = list[int](), ItemService.warm

    def noted(*given: Any, **more: Any) -> Any:
        calls.append(1)
        return warm(*given, **more)

    monkeypatch.setattr(ItemService, "warm", noted)
    client.post("/events", json={"events": [event("newcomer 0", 990, liked=1)]})
    assert len(calls) == 1
    after = client.post("/score", json=body).json()["scores"][0]
    assert (before["events"], after["events"]) == (10, 11)
    with ItemService.open(config.stores[0], config.states) as alone:
        right = alone.score([{"film": "newcomer 0", "viewer": 3, **CONTEXT}])["score"][0]
    assert after["score"] == pytest.approx(right, abs=1e-6)
    client.delete("/items/newcomer 0")
    assert client.post("/score", json=body).status_code == 422


def test_without_any_event_there_is_nothing_to_calibrate_on(client: TestClient, config: ServeConfig) -> None:
    client.post("/jobs", json={"kind": "calibrate"})
    (job,) = Jobs(config.own_folder / "jobs").all()
    execute(config, job.id)
    (job,) = Jobs(config.own_folder / "jobs").all()
    assert job.status == "failed"
    assert job.detail is not None
    assert job.detail.startswith(
        "there are no events of new items that have counted; register items, and send their events"
    )


def test_a_calibration_is_not_fitted_or_judged_on_clicks_without_the_impressions_that_wait(
    client: TestClient, config: ServeConfig
) -> None:
    """Half of the impressions are clicked at once; the others count when their time has come."""
    newcomers(client, 60, 10)
    waiting, settled = (config.model_copy(update={"impression_window": window}) for window in (3600.0, 1e-3))
    rows = [event(f"newcomer {n % 60}", n, liked=None) for n in range(600, 800)]
    with TestClient(create_app(waiting)) as other:
        for kind, part in (("impression", rows), ("click", rows[::2])):
            answer = other.post("/events", json={"events": [row | {"event_type": kind} for row in part]}).json()
            assert answer["errors"] == []
    for now, events in ((waiting, 600), (settled, 800)):
        result = train(client, now, kind="calibrate", promote="never", eval_share=0.2)
        assert result["calibration_events"] + result["evaluation"]["events"] == events


def test_impressions_that_wait_are_not_learned(store: Path, config: ServeConfig) -> None:
    waiting = config.model_copy(update={"impression_window": 3600.0})
    with TestClient(create_app(waiting)) as client:
        send(client, 0, 40)
        shown = [event("new 0", n, event_type="impression") for n in range(40, 46)]
        shown = [{key: value for key, value in row.items() if key != "liked"} for row in shown]
        assert client.post("/events", json={"events": shown}).json()["pending"] == 6
        assert client.post("/events", json={"events": [shown[0] | {"event_type": "click"}]}).json()["new"] == 1
        result = train(client, waiting, promote="always", eval_share=0.1)
        assert result["training_events"] + result["evaluation"]["events"] == 40  # nor is the click on one of them


@pytest.mark.always
def test_a_new_version_has_all_items_and_counts_every_event_once(client: TestClient, config: ServeConfig) -> None:
    rows = send(client, 0, 40)
    client.post("/items", json={"items": [item("gone"), item("cold")]})
    for name in ("gone", FILMS[1]):
        client.delete(f"/items/{name}")
    before = {one["item_id"]: one["events"] for one in client.get("/items", params={"limit": 99}).json()["items"]}
    result = train(client, config, promote="always")
    assert (
        client.post("/score", json={"viewer": 3, "context": CONTEXT, "candidates": ["cold"]}).json()["model"]
        == (result["model"])
    )
    after = {one["item_id"]: one["events"] for one in client.get("/items", params={"limit": 99}).json()["items"]}
    assert after == before
    again = client.post("/events", json={"events": rows}).json()
    assert (again["new"], again["known"], again["corrected"]) == (0, 40, 0)
    late = client.post("/events", json={"events": [rows[0] | {"liked": 1}]}).json()  # the version was trained on it
    assert (late["refused"], late["errors"][0]["detail"].partition("; ")[2]) == (
        1,
        "it is too late to correct it: its values are not kept",
    )


def test_both_versions_are_judged_on_the_latest_events_as_the_service_would_have_met_them(
    client: TestClient, config: ServeConfig, store: Path, tmp_path: Path
) -> None:
    rows = send(client, 0, 40)
    result = train(client, config, eval_share=0.3, tolerance=100, min_events=12)
    assert result["promoted"]
    for name, folder in (("live", store), ("new", config.own_folder / "versions" / "v2")):
        scores = []
        with ItemService.open(folder, f"sqlite:///{tmp_path / name}.db") as service:
            service.add([one for one in (item("new 0"), item("new 1")) if one["film"] not in service.learner.known])
            if name == "live":
                service.warm(rows[:28], "event_id")
            for row in rows[28:]:
                scores.append(service.score([row])["score"][0])
                service.warm([row], "event_id")
        right = logloss([row["liked"] for row in rows[28:]], scores)
        assert result["evaluation"][name]["logloss"] == pytest.approx(right, abs=1e-6)


def test_few_events_do_not_decide(client: TestClient, config: ServeConfig) -> None:
    send(client, 0, 40)
    result = train(client, config, eval_share=0.3, tolerance=100, min_events=13)
    assert (result["evaluation"]["events"], result["min_events"]) == (12, 13)
    assert not result["is_better"]
    assert not result["promoted"]
    assert result["reason"] == "12 held-out events do not decide: min_events is 13"


def test_a_worse_version_does_not_go_live_unless_it_is_told_to(client: TestClient, config: ServeConfig) -> None:
    send(client, 0, 40)
    result = train(client, config, settings=BAD, min_events=1)
    old, new = (result["evaluation"][name]["logloss"] for name in ("live", "new"))
    assert new > old + result["tolerance"]
    assert not result["promoted"]
    assert versions(client)["v1"]["live"]
    assert versions(client)["v2"]["status"] == "trained"
    again = train(client, config, settings=BAD | {"seed": 1}, promote="always")
    assert again["promoted"]
    assert versions(client)["v3"]["live"]


def test_a_version_that_is_not_promoted_may_be_compared_and_then_go_live(
    client: TestClient, config: ServeConfig
) -> None:
    send(client, 0, 20)
    assert not train(client, config, promote="never")["promoted"]
    assert versions(client)["v2"]["status"] == "ready"
    assert client.post("/models", json={"shadow": ["v2"]}).status_code == 200
    send(client, 20, 40)
    client.post("/models", json={"live": "v2"})
    assert client.get("/items/new 0").json()["events"] == 14


def test_later_versions_are_judged_on_events_that_none_was_trained_on(client: TestClient, config: ServeConfig) -> None:
    send(client, 0, 40)
    assert train(client, config, promote="always")["training_events"] == 36
    rows = send(client, 40, 44)
    result = train(client, config, promote="always", eval_share=0.5)
    assert (result["compared_with"], result["training_events"]) == ("v2", 22)
    assert result["evaluation"]["events"] == 8  # of 22, those that v2 has not learned
    assert client.post("/events", json={"events": rows}).json()["known"] == 4
    assert sum(client.get(f"/items/new {n}").json()["events"] for n in (0, 1)) == 30
    client.post("/models", json={"live": "v1"})
    assert sum(client.get(f"/items/new {n}").json()["events"] for n in (0, 1)) == 30


def test_a_retired_version_is_ready_again_after_a_replay(client: TestClient, config: ServeConfig) -> None:
    send(client, 0, 20)
    train(client, config, promote="always")
    client.post("/models", json={"retire": ["v1"]})
    send(client, 20, 40)
    client.delete("/items/new 1")
    assert client.post("/models", json={"live": "v1"}).status_code == 409
    job = client.post("/jobs", json={"kind": "replay", "version": "v1"}).json()["id"]
    execute(config, job)
    assert client.get(f"/jobs/{job}").json()["status"] == "done"
    client.post("/models", json={"live": "v1"})
    assert client.get("/items/new 0").json()["events"] == 14
    assert client.get("/items/new 1").status_code == 404
    assert client.post("/jobs", json={"kind": "replay", "version": "v1"}).status_code == 409


def test_a_training_that_is_started_again_makes_one_version(client: TestClient, config: ServeConfig) -> None:
    send(client, 0, 20)
    train(client, config)
    jobs = Jobs(config.own_folder / "jobs")
    (job,) = jobs.all()
    jobs.save(job.model_copy(update={"status": "running", "result": None}))
    execute(config, job.id)
    (again,) = jobs.all()
    assert again.result == job.result
    assert len(versions(client)) == 2


def test_a_training_that_is_cancelled_while_its_version_is_prepared_leaves_it_without_events(
    client: TestClient, config: ServeConfig
) -> None:
    send(client, 0, 20)
    jobs, models = Jobs(config.own_folder / "jobs"), ModelsFile(config.own_folder)
    train(client, config, promote="never")
    (job,) = jobs.all()
    for status, end in (("preparing", "cancelled"), ("ready", "done")):
        with models.change() as content:
            assert content.click_model is not None
            content.click_model.versions["v2"].status = status  # type: ignore[assignment]
        jobs.save(job.model_copy(update={"status": "running", "attempts": 1}))
        jobs.cancel(job)
        execute(config, job.id)
        assert client.get(f"/jobs/{job.id}").json()["status"] == end
        assert versions(client)["v2"]["status"] == ("trained" if end == "cancelled" else "ready")


@pytest.mark.parametrize("kind", ["train", "replay"])
def test_a_job_that_was_killed_while_its_version_was_prepared_makes_it_ready(
    kind: str, client: TestClient, config: ServeConfig
) -> None:
    """Its process ended with the whole service, so nobody has given the version up."""
    send(client, 0, 20)
    jobs, models = Jobs(config.own_folder / "jobs"), ModelsFile(config.own_folder)
    train(client, config, promote="always")
    job = jobs.all()[0] if kind == "train" else jobs.create("replay", "v2", {})
    with models.change() as content:
        assert content.click_model is not None
        content.click_model.versions["v2"].status, content.click_model.live = "preparing", "v1"
    send(client, 20, 40)
    jobs.save(job.model_copy(update={"status": "running", "result": None, "attempts": 1}))
    execute(config, job.id)
    assert jobs.all()[-1].status == "done"
    found = versions(client)["v2"]
    assert (found["status"], found["live"]) == ("ready", kind == "train")


def test_a_training_that_changes_nothing_is_done_and_says_so(client: TestClient, config: ServeConfig) -> None:
    result = train(client, config, promote="always")
    assert (result["version"], result["promoted"]) == ("v1", False)
    assert result["reason"] == "training gave the weights of version 'v1' again: data and settings are the same"
    assert list(versions(client)) == ["v1"]


def test_a_training_says_how_far_it_is(
    client: TestClient, config: ServeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every part, from the start of its process on."""
    send(client, 0, 40)
    parts, save = list[str](), Jobs.save

    def noted(jobs: Jobs, job: Job) -> None:
        parts.extend([job.progress.part] if job.progress is not None and job.progress.part not in parts else [])
        save(jobs, job)

    monkeypatch.setattr(Jobs, "save", noted)
    monkeypatch.setattr(JobRunner, "_run_child", lambda runner, job, **_: execute(runner.config, job.id))
    client.post("/jobs", json={"kind": "train", "promote": "always"})
    runner = JobRunner(config)
    while (job := runner.next()) is not None:
        runner.run_job(job)
    assert parts[:3] == ["start", "event log", "pretrain"]
    assert {"evaluation of live", "evaluation of new", "replay 1"} <= set(parts)


@pytest.mark.parametrize("is_ready", [False, True])
def test_a_training_that_is_cancelled_while_its_process_starts_needs_no_other_one(
    is_ready: bool, client: TestClient, config: ServeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process finds out what became of it only if there is something: it takes long to start."""
    if is_ready:
        train(client, config, promote="never", settings={"seed": 1})
    else:
        client.post("/jobs", json={"kind": "train"})
    jobs = Jobs(config.own_folder / "jobs")
    (job,) = jobs.all()
    jobs.save(job.model_copy(update={"status": "running", "result": None}))
    started = list[bool]()

    def killed(runner: JobRunner, job: Job, may_kill: bool) -> int:
        started.append(may_kill)
        jobs.cancel(job)
        if may_kill:
            return -9
        execute(config, job.id)
        return 0

    monkeypatch.setattr(JobRunner, "_run_child", killed)
    JobRunner(config).run_job(jobs.all()[0])
    assert started == ([True, False] if is_ready else [True])
    assert jobs.all()[0].status == ("done" if is_ready else "cancelled")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"kind": "train", "settings": {"widht": 3}}, 422, "settings.widht is not a setting"),
        ({"kind": "train", "eval_share": 1}, 422, "eval_share"),
        ({"kind": "train", "log": "/etc/passwd"}, 422, "log"),
        ({"kind": "replay", "version": "../v1"}, 404, "is not there"),
        ({"kind": "learn", "examples": [{"input": "", "label": "x"}]}, 404, "no classifier is served"),
    ],
)
def test_what_cannot_be_done_is_refused(client: TestClient, body: dict[str, Any], status: int, said: str) -> None:
    answer = client.post("/jobs", json=body)
    assert answer.status_code == status
    assert said in answer.text


def test_training_needs_the_log(config: ServeConfig) -> None:
    with TestClient(create_app(config.model_copy(update={"log": ()}))) as client:
        answer = client.post("/jobs", json={"kind": "train"})
        assert answer.status_code == 409
        assert "--log" in answer.text


def test_times_of_arrival_join_a_log_of_dates(tmp_path: Path) -> None:
    dated = log().with_columns((pl.col("seen").cast(pl.Int64) + 1_600_000_000_000).cast(pl.Datetime("ms")))
    dated.write_parquet(tmp_path / "log.parquet")
    EmerG(SCHEMA, **QUICK).learn(dated).save(tmp_path / "store")
    config = ServeConfig(stores=(tmp_path / "store",), log=(str(tmp_path / "log.parquet"),))
    with TestClient(create_app(config)) as client:
        rows = [{key: value for key, value in event(FILMS[0], n).items() if key != "seen"} for n in range(10)]
        assert client.post("/events", json={"events": rows}).json()["new"] == 10
        assert train(client, config, promote="always")["training_events"] == 9


def test_grades_are_trained_on_as_they_were_given(tmp_path: Path) -> None:
    """Labels of which a threshold makes clicks; an event type says that there was one, or none."""
    graded = log().with_columns(pl.col("liked") * 3 + 1)
    graded.write_parquet(tmp_path / "log.parquet")
    schema = replace(SCHEMA, clicked_from=4)
    EmerG(schema, **QUICK).learn(graded).save(tmp_path / "store")
    config = ServeConfig(stores=(tmp_path / "store",), log=(str(tmp_path / "log.parquet"),))
    with TestClient(create_app(config)) as client:
        rows = [event(FILMS[0], n, liked=[1, 4, "3.5"][n % 3]) for n in range(10)]
        assert client.post("/events", json={"events": rows}).json()["new"] == 10
        refused = client.post("/events", json={"events": [event(FILMS[0], 50, liked=True)]}).json()
        assert "is True, and labels are grades; write a number" in refused["errors"][0]["detail"]
        typed = [event(FILMS[0], n, liked=None, event_type=["click", "view"][n % 2]) for n in range(10, 20)]
        assert client.post("/events", json={"events": typed}).json()["new"] == 10
        click = typed[1] | {
            "event_type": "click"
        }  # a view first, and its click under the same id; then once more the view
        assert client.post("/events", json={"events": [click]}).json()["corrected"] == 1
        assert client.post("/events", json={"events": [typed[1]]}).json()["known"] == 1
        with ItemService.open(tmp_path / "store") as service:
            ids = [f"e{n}" for n in range(20)]
            labels = service.states.labels(service.model, {FILMS[0]: ids})[FILMS[0]]
        assert [labels[id] for id in ids] == [0, 1, 0] * 3 + [0] + [1, 1, 1, 0, 1, 0, 1, 0, 1, 0]
        result = train(client, config, promote="always", eval_share=0.2)
        assert 0 < result["evaluation"]["new"]["logloss"] < 5
        events = pl.read_parquet(config.own_folder / "versions" / "v2" / "events.parquet")["liked"].to_list()
        assert events[:10] == [float(row["liked"]) for row in rows]
        below = math.nextafter(4.0, 0.0)
        assert events[10:] == [4.0, 4.0, 4.0, below, 4.0, below]
        again = client.post("/events", json={"events": [*rows, *typed, click]}).json()
        assert (again["known"], again["corrected"], again["notes"]) == (21, 0, [])


def test_what_another_version_does_not_take_is_said(client: TestClient, config: ServeConfig) -> None:
    """A click on what v2 was trained on as no click: the live version corrects it."""
    rows = send(client, 0, 40)
    train(client, config, promote="never")
    late = client.post("/events", json={"events": [rows[1], rows[0] | {"liked": 1}]}).json()
    assert (late["known"], late["corrected"], late["errors"]) == (1, 1, [])
    (note,) = late["notes"]
    assert note.startswith("version 'v2': events: row 2: event 'e0' of item 'new 0' is a click here")


def test_impressions_of_a_model_of_grades_wait(tmp_path: Path) -> None:
    graded = log().with_columns(pl.col("liked") * 3 + 1)
    EmerG(replace(SCHEMA, clicked_from=4), **QUICK).learn(graded).save(tmp_path / "store")
    config = ServeConfig(stores=(tmp_path / "store",), impression_window=1800.0)
    with TestClient(create_app(config)) as client:
        shown = [event(FILMS[0], n, liked=None, event_type="view") for n in range(3)]
        before = client.get(f"/items/{FILMS[0]}").json()["events"]
        assert client.post("/events", json={"events": shown}).json()["pending"] == 3
        assert client.post("/events", json={"events": [shown[0] | {"event_type": "click"}]}).json()["new"] == 1
        versions = ClickVersions(config, tmp_path / "store", ModelsFile(config.own_folder))
        assert Impressions(versions, config.own_folder, 0.0).settle(time.time_ns() + 10**9) == 3
        assert client.get(f"/items/{FILMS[0]}").json()["events"] == before + 3
        versions.close()


def test_a_field_of_any_kind_comes_back_from_the_events(tmp_path: Path) -> None:
    """Fields of items, users and contexts of every kind, empty ones among them, and dates: registered, counted, trained on."""
    fields = (
        *(Field("genre", "item"), Field("minutes", "item", "numeric"), Field("tags", "item", "multi")),
        *(Field("title", "item", "text"), Field("shape", "item", "vector")),
        *(Field("age", "user", "numeric"), Field("about", "user", "text", missing="mark")),
        *(Field("page", "context"), Field("price", "context", "numeric"), Field("words", "context", "multi")),
        *(Field("query", "context", "text"), Field("mood", "context", "vector")),
    )
    schema, number = Schema("film", "viewer", "liked", "seen", fields), pl.int_range(400, eager=True)
    dated = (
        log()
        .with_columns(
            tags=pl.format("a|{}", pl.col("genre")),
            title=pl.format("The {}, of C++", pl.col("film")),
            shape=pl.format("[{}, 1.5]", pl.col("minutes")),
            age=pl.col("viewer") * 1.0,
            about=pl.format("Viewer no. {}", pl.col("viewer")),
            words=pl.Series([["x", "x|y"][n % 2] for n in number]),
            query=pl.Series([["red shoes", "", "Blue!"][n % 3] for n in number]),
            mood=pl.format("[0.{}, 1]", number % 9),
            seen=(pl.col("seen") + 1_600_000_000).cast(pl.Int64) * 1000,
        )
        .with_columns(pl.col("seen").cast(pl.Datetime("ms")))
    )
    dated.write_csv(tmp_path / "log.csv")
    EmerG(schema, **QUICK).learn(tmp_path / "log.csv").save(tmp_path / "store")
    config = served(tmp_path / "store", tmp_path)
    new = {
        "genre": "war",
        "minutes": 9,
        "tags": ["b", "a"],
        "title": "A C# film, \u624b\u673a\u58f3",
        "shape": [1.0, 2.0],
    }
    bare = new | {"film": "bare", "tags": [], "title": ""}
    rows = []
    for n in range(40):
        several = {"words": [["x", "y"], "x|y", []][n % 3], "query": ["Red shoes?", "\u624b\u673a\u58f3 c#", ""][n % 3]}
        user = {"viewer": n % 20, "age": n % 20, "about": f"Viewer no. {n % 20}"}
        plain = user | {"page": "home", "price": 0.5, "mood": [0.5, 1], "liked": n % 2}
        rows.append({"film": ["new", "bare", FILMS[0]][n % 3], "event_id": f"e{n}", **plain, **several})
    with TestClient(create_app(config)) as client:
        assert not client.post("/items", json={"items": [new | {"film": "new"}, bare]}).json()["refused"]
        assert client.post("/events", json={"events": rows}).json()["new"] == 40
        result = train(client, config, promote="always", eval_share=0.1)
        assert (result["training_events"], result["left_out_events"]) == (36, 0)
        found = pl.read_parquet(config.own_folder / "versions" / "v2" / "events.parquet")
        assert found["query"].to_list()[:3] == ["red shoes", "\u624b\u673a \u673a\u58f3 c#", ""]
        assert client.post("/events", json={"events": rows}).json()["known"] == 40


def test_a_log_as_a_table_is_the_log() -> None:
    """Several values, texts, vectors, numbers, missing values, users with fields and without an id."""
    fields = (
        Field("tags", "item", "multi", missing="mark"),
        Field("title", "item", "text", missing="mark"),
        Field("query", "context", "text", missing="mark"),
        Field("shape", "item", "vector", missing="mark"),
        Field("age", "user", "numeric", missing="mark"),
        Field("page", "context", missing="mark"),
        Field("words", "context", "multi", missing="mark"),
    )
    schema = Schema("film", "viewer", "liked", "seen", fields, user_missing="mark")
    ann = {
        "viewer": "ann",
        "shape": [1.0, 2.0],
        "age": 3,
        "title": "Don't, C++ \u0645\u064f\u062d\u064e\u0645\u0651\u064e\u062f",
    }
    table = pl.DataFrame(
        [
            {
                "film": "1.0",
                **ann,
                "tags": ["b", "a"],
                "page": "TRUE",
                "words": ["x"],
                "query": "Red, red",
                "liked": 1,
                "seen": 5,
            },
            {"film": "2", "tags": [], "liked": 0, "seen": 6},
            {"film": "1", **ann, "tags": ["a", "b"], "page": " a", "words": ["y", "x"], "liked": 1, "seen": 7},
        ]
    )
    one = log_from_frame(table, schema)
    items = entity_frame(one.items, "film", schema.of("item"))
    again = log_frame(one).with_columns(table["liked"], table["seen"])
    other = log_from_frame(again.join(items, on="film", how="left", maintain_order="left"), schema)
    assert digests(other) == digests(one)
    assert entity_frame(other.items, "film", schema.of("item")).equals(items)


@pytest.mark.slow
def test_a_roll_out_fails_no_request_and_loses_no_event(config: ServeConfig) -> None:
    """Two workers answer clients that register, score, count and delete, while a version is trained, goes live, and back."""
    stop, failures, counted = threading.Event(), list[str](), dict[str, int]()

    def work(url: str, number: int) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            done = 0
            while not stop.is_set() or done < 30:
                name = f"item {number} {done // 10}"
                rows = [event(name, n, event_id=f"{number} {n}") for n in range(3 * done, 3 * done + 3)]
                body = {"viewer": done, "context": CONTEXT, "candidates": [name, *FILMS]}
                answers = [client.post("/items", json={"items": [item(name)]}), client.post("/score", json=body)]
                answers.append(client.post("/events", json={"events": rows}))
                failures.extend(answer.text for answer in answers if answer.status_code != 200)
                if answers[-1].json().get("new") != 3:
                    failures.append(answers[-1].text)
                counted[name] = counted.get(name, 0) + 3
                if done % 10 == 9 and done % 20 == 9:
                    if client.delete(f"/items/{name}").status_code != 204:
                        failures.append(f"deletion of {name}")
                    del counted[name]
                done += 1

    with in_thread(create_app(config)) as one, in_thread(create_app(config)) as other:
        threads = [threading.Thread(target=work, args=((one, other)[n % 2], n)) for n in range(4)]
        for thread in threads:
            thread.start()
        with httpx.Client(base_url=one, timeout=60) as client:
            try:
                while len(counted) < 8:
                    time.sleep(0.01)
                job = client.post("/jobs", json={"kind": "train", "promote": "always"}).json()["id"]
                execute(config, job)
                found = client.get(f"/jobs/{job}").json()
                assert found["status"] == "done", found
                assert client.post("/models", json={"live": "v1"}).status_code == 200
                assert client.post("/models", json={"live": "v2"}).status_code == 200
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
            assert failures == []
            for version in ("v1", "v2"):
                client.post("/models", json={"live": version})
                page = client.get("/items", params={"limit": 10_000}).json()["items"]
                events = {one["item_id"]: one["events"] for one in page if one["item_id"].startswith("item ")}
                assert events == counted, version
