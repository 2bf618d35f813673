"""Jobs: what they do is what the library does; they are done once or not at all."""

import base64
import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from newcomer import FrozenBackbone
from newcomer.data.examples import Examples
from newcomer.errors import DataWarning, SettingError
from newcomer.server import classifiers, job_execution
from newcomer.server.app import check, create_app
from newcomer.server.configuration import Limits, ServeConfig
from newcomer.server.job_execution import execute
from newcomer.server.job_runner import ATTEMPTS, JobRunner
from newcomer.server.jobs import Jobs


@pytest.fixture
def digits(tmp_path: Path, tasks: list[Examples]) -> Path:
    FrozenBackbone("micro-vit").learn(tasks[0]).save(tmp_path / "digits")
    return tmp_path / "digits"


@pytest.fixture
def config(digits: Path, tmp_path: Path) -> ServeConfig:
    return ServeConfig(stores=(digits,), folder=tmp_path / "own", limits=Limits(jobs=3))


@pytest.fixture
def client(config: ServeConfig, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(classifiers, "CHECK_SECONDS", 0)
    with TestClient(create_app(config), raise_server_exceptions=False) as client:
        yield client


def examples(task: Examples) -> list[dict[str, str]]:
    return [{"input": png(image), "label": label} for image, label in zip(task.inputs, task.labels, strict=True)]


def png(image: Any) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def learn(client: TestClient, given: list[dict[str, str]], **more: Any) -> str:
    answer = client.post("/jobs", json={"kind": "learn", "examples": given} | more)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def work(config: ServeConfig) -> None:
    """Do all jobs in this process."""
    runner = JobRunner(config)
    while (job := runner.next()) is not None:
        execute(config, job.id)


def test_what_a_job_learns_is_what_the_library_learns_and_is_served(
    client: TestClient, config: ServeConfig, digits: Path, tasks: list[Examples]
) -> None:
    right = FrozenBackbone.load(digits).learn(tasks[1])
    job = learn(client, examples(tasks[1]), model="digits")
    assert client.get(f"/jobs/{job}").json()["status"] == "queued"
    work(config)
    done = client.get(f"/jobs/{job}").json()
    assert (done["status"], done["result"]["stage"], done["result"]["left_out"]) == ("done", 2, [])
    assert client.get("/classes").json() == {"model": "digits", "stage": 2, "classes": right.classes}
    images = [png(image) for image in tasks[1].inputs]
    answer = client.post("/classify", json={"inputs": images, "top": 1}).json()["results"]
    found = right.predict_topk(list(tasks[1].inputs), top=1)
    assert [one["classes"][0]["label"] for one in answer] == [one.classes[0] for one in found]
    assert not list((config.own_folder / "jobs" / job).glob("inputs"))  # no example is kept


@pytest.mark.parametrize("change", [None, {"id": "0" * 24}, {"created": "yesterday"}, {"status": "gone"}])
def test_a_damaged_job_hinders_no_other_one(
    change: dict[str, str] | None, client: TestClient, config: ServeConfig, tasks: list[Examples]
) -> None:
    older, broken = (learn(client, examples(tasks[1])) for _ in range(2))
    path = config.own_folder / "jobs" / broken / "job.json"
    path.write_text("{" if change is None else json.dumps(json.loads(path.read_text()) | change))
    assert [one["id"] for one in client.get("/jobs?limit=1").json()["jobs"]] == [older]
    job = learn(client, examples(tasks[1]), key="again")
    assert learn(client, examples(tasks[1]), key="again") == job
    assert [one["id"] for one in client.get("/jobs").json()["jobs"]] == [job, older]
    assert client.get(f"/jobs/{broken}").status_code == 503
    work(config)
    assert client.get(f"/jobs/{job}").json()["status"] == "done"


@pytest.mark.parametrize("option", [{"calibrate_every": 60.0}, {"impression_window": 60.0}, {"log": ("log.csv",)}])
def test_an_option_of_a_click_model_is_refused_without_one(option: dict[str, Any], digits: Path) -> None:
    name = next(iter(option)).replace("_", "-")
    with pytest.raises(SettingError, match=f"--{name}: no click model is served"):
        check(ServeConfig(stores=(digits,), **option))


def test_texts_are_learned(tmp_path: Path, questions: list[Examples], tiny: Any) -> None:
    FrozenBackbone(str(tiny("bert"))).learn(questions[0]).save(tmp_path / "desk")
    config = ServeConfig(stores=(tmp_path / "desk",))
    with TestClient(create_app(config)) as client:
        given = [{"input": str(text), "label": "../else"} for text in list(questions[1].inputs)[:3]]
        job = learn(client, [*given, {"input": " ", "label": "empty"}])
        work(config)
        result = client.get(f"/jobs/{job}").json()["result"]
        assert "../else" in result["classes"]
        assert result["left_out"] == ["example 4 is empty"]


def test_unreadable_examples_are_left_out_or_fail_the_job(
    client: TestClient, config: ServeConfig, digits: Path, tasks: list[Examples]
) -> None:
    no_image = {"input": base64.b64encode(b"no image").decode(), "label": "x"}
    job, other = learn(client, [*examples(tasks[1]), no_image]), learn(client, [no_image])
    work(config)
    assert client.get(f"/jobs/{job}").json()["result"]["examples"] == len(tasks[1])
    failed = client.get(f"/jobs/{other}").json()
    assert failed["status"] == "failed"
    assert failed["detail"].startswith("example 1: not a readable image")
    assert len(FrozenBackbone.load(digits).entries) == 2


def test_a_job_that_is_started_again_learns_once(
    client: TestClient, config: ServeConfig, digits: Path, tasks: list[Examples]
) -> None:
    """A machine that stops after the stage was saved, before the job's end was written."""
    jobs, job = Jobs(config.own_folder / "jobs"), learn(client, examples(tasks[1]))
    before = jobs.get(job)
    work(config)
    assert before is not None
    jobs.save(before.model_copy(update={"status": "running"}))
    work(config)
    assert client.get(f"/jobs/{job}").json()["status"] == "done"
    assert len(FrozenBackbone.load(digits).entries) == 2


def test_warnings_of_a_job_are_in_its_status(
    client: TestClient, config: ServeConfig, tasks: list[Examples], caplog: pytest.LogCaptureFixture
) -> None:
    """One class of one example: nothing can be held out of it."""
    job = learn(client, examples(tasks[1])[:1])
    work(config)
    found = client.get(f"/jobs/{job}").json()
    assert found["status"] == "done"
    assert [line.partition(",")[0] for line in found["warnings"]] == ["task 2: no new class has two examples"]
    assert [one.getMessage() for one in caplog.records if getattr(one, "job", None) == job][:1] == found["warnings"]
    assert f"<p>Warning: {found['warnings'][0]}</p>" in client.get("/").text


def test_warnings_of_a_job_are_bounded_in_number_and_length_and_outlive_a_restart(
    client: TestClient, config: ServeConfig, tasks: list[Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, lines = learn(client, examples(tasks[1])), ["first", *(f"{n} " + "x" * 1000 for n in range(30))]

    def warns(*_: Any) -> dict[str, Any]:
        for line in lines:
            warnings.warn(line, DataWarning, stacklevel=2)
        return {}

    monkeypatch.setattr(job_execution, "_do", warns)
    jobs = Jobs(config.own_folder / "jobs")
    queued = jobs.get(job)
    assert queued is not None
    jobs.save(queued.model_copy(update={"status": "running", "warnings": ["first"]}))
    execute(config, job)
    found = client.get(f"/jobs/{job}").json()["warnings"]
    assert found[0] == "first"
    assert found[1] == "0 " + "x" * 497 + "…"
    assert (len(found), found[-1]) == (21, "there are more; they are in the service's log under this job")


def test_a_job_that_was_cut_off_too_often_has_failed(
    client: TestClient, config: ServeConfig, tasks: list[Examples]
) -> None:
    jobs, job = Jobs(config.own_folder / "jobs"), learn(client, examples(tasks[1]))
    before = jobs.get(job)
    assert before is not None
    jobs.save(before.model_copy(update={"status": "running", "attempts": ATTEMPTS}))
    JobRunner(config).run_job(jobs.all()[0])
    assert "was cut off 3 times" in client.get(f"/jobs/{job}").json()["detail"]


def test_a_cancelled_job_is_not_done(client: TestClient, config: ServeConfig, tasks: list[Examples]) -> None:
    job = learn(client, examples(tasks[1]))
    assert client.delete(f"/jobs/{job}").status_code == 202
    runner = JobRunner(config)
    found = runner.next()
    assert found is not None
    runner.run_job(found)
    assert runner.next() is None
    assert client.get(f"/jobs/{job}").json()["status"] == "cancelled"
    assert client.delete(f"/jobs/{job}").status_code == 409
    assert client.get("/classes").json()["stage"] == 1


def test_queued_jobs_are_cancelled_while_another_one_runs(
    client: TestClient, config: ServeConfig, tasks: list[Examples]
) -> None:
    first, *others = [learn(client, examples(tasks[1])) for _ in range(3)]
    assert client.post("/jobs", json={"kind": "learn", "examples": examples(tasks[1])}).status_code == 429
    runner = JobRunner(config)
    job = runner.next()
    assert job is not None
    runner.jobs.save(job.model_copy(update={"status": "running", "attempts": 1}))
    for name in (first, *others):
        assert client.delete(f"/jobs/{name}").status_code == 202
    runner.end_cancelled()  # as the runner does while its child works
    assert [client.get(f"/jobs/{name}").json()["status"] for name in (first, *others)] == [
        "running",
        *["cancelled"] * 2,
    ]
    assert all(not list((config.own_folder / "jobs" / name).glob("inputs")) for name in others)
    learn(client, examples(tasks[1]))


@pytest.mark.parametrize("label", ["", "  ", "\t", "x" * 501])
def test_a_label_that_is_none_is_refused_with_its_place(client: TestClient, tasks: list[Examples], label: str) -> None:
    given = examples(tasks[1])
    answer = client.post("/jobs", json={"kind": "learn", "examples": [*given, {**given[0], "label": label}]})
    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["errors"]] == [f"/examples/{len(given)}/label"]


def test_a_job_is_cancelled_or_done_but_never_both(
    client: TestClient, config: ServeConfig, digits: Path, tasks: list[Examples]
) -> None:
    """Jobs that were killed when they were cancelled: one after its stage was saved, one before."""
    jobs, done, other = Jobs(config.own_folder / "jobs"), *(learn(client, examples(task)) for task in tasks[1:3])
    saved = jobs.all()
    execute(config, done)
    for job in saved:
        jobs.save(job.model_copy(update={"status": "running", "attempts": 1}))
        assert client.delete(f"/jobs/{job.id}").status_code == 202
        execute(config, job.id)
    assert client.get(f"/jobs/{done}").json()["status"] == "done"
    assert client.get(f"/jobs/{other}").json()["status"] == "cancelled"
    assert FrozenBackbone.load(digits).classes == sorted({*tasks[0].labels, *tasks[1].labels})


@pytest.mark.parametrize(
    ("changed", "status", "said"),
    [
        ({"model": "none"}, 404, "model 'none' is not served"),
        ({"kind": "guess"}, 422, "kind"),
        ({"examples": []}, 422, "/examples"),
        ({"examples": [{"input": "é", "label": "x"}]}, 422, "/examples/0/input"),
        ({"examples": [{"input": "", "label": ""}]}, 422, "/examples/0/label"),
        ({"settings": {"rank": 3}}, 422, "settings.rank is not a setting"),
        ({"settings": {"head": "none"}}, 422, "settings.head"),
        ({"settings": {"backbone": "/etc"}}, 422, "settings.backbone is not a setting"),
        ({"log": "/etc/*"}, 422, "/log"),
        ({"examples": [{"input": "", "label": "x", "weight": 1}]}, 422, "/examples/0/weight"),
    ],
)
def test_what_cannot_be_done_is_refused_before_it_is_queued(
    client: TestClient, changed: dict[str, Any], status: int, said: str, tasks: list[Examples]
) -> None:
    answer = client.post("/jobs", json={"kind": "learn", "examples": examples(tasks[1])[:1]} | changed)
    assert answer.status_code == status
    assert said in answer.text
    assert client.get("/jobs").json() == {"jobs": []}


def test_jobs_are_listed_newest_first_and_limited(client: TestClient, tasks: list[Examples]) -> None:
    made = [learn(client, examples(tasks[1])[:1]) for _ in range(3)]
    assert client.post("/jobs", json={"kind": "learn", "examples": examples(tasks[1])[:1]}).status_code == 429
    assert [job["id"] for job in client.get("/jobs").json()["jobs"]] == made[::-1]
    assert [job["id"] for job in client.get("/jobs", params={"limit": 1}).json()["jobs"]] == made[-1:]


@pytest.mark.parametrize("name", ["nothing", "%2e%2e", "../own", "..%2Fown", "0" * 24, "%00"])
def test_no_id_leads_elsewhere(client: TestClient, name: str) -> None:
    assert client.get(f"/jobs/{name}").status_code == 404
    assert client.delete(f"/jobs/{name}").status_code in (404, 405)
