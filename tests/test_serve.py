"""`newcomer serve` as processes: several workers, one of which is killed; what a user gets wrong."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from films import FILMS, trained
from films import log as films_log
from newcomer import FrozenBackbone
from newcomer.data.examples import Examples
from newcomer.errors import DataWarning
from newcomer.items.serving.service import ItemService
from newcomer.server import logs
from serving import WAIT, free_port, service, wait_until_ready
from shell import Shell

NEW = [{"film": f"new {n}", "genre": "war", "minutes": 99.0} for n in range(4)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("films") / "store")


def event(item: int, number: int) -> dict[str, Any]:
    values = {"viewer": number % 7, "page": "home", "price": 0.5, "liked": number % 2, "seen": 1000 + number}
    return {"film": f"new {item}", "event_id": f"e{number}"} | values


def send(client: httpx.Client, body: Any) -> dict[str, int]:
    """Post events until they are acknowledged."""
    for _ in range(1000):
        try:
            answer = client.post("/events", json=body)
        except httpx.TransportError:
            time.sleep(0.05)
            continue
        if answer.status_code == 200:
            found: dict[str, int] = answer.json()
            return found
        assert answer.status_code == 503, answer.text
    raise AssertionError("never acknowledged")


def workers(process: subprocess.Popen[bytes]) -> list[int]:
    """The workers, which a child has forked."""
    return [worker for server in children(process.pid, b"forkserver") for worker in children(server, b"")]


def children(process: int, word: bytes) -> list[int]:
    """Child processes with this word in their command."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process and word in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (OSError, ValueError):
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
@pytest.mark.always
def test_no_acknowledged_event_is_lost_when_a_worker_is_killed(store: Path, tmp_path: Path) -> None:
    """Four clients send events to two workers, one of which is killed meanwhile: each event counts once."""
    states = f"sqlite:///{tmp_path / 'items.db'}"
    words = [str(store), "--states", states, "--folder", str(tmp_path / "own"), "--workers", "2"]
    with service(*words, log=tmp_path / "log") as (client, process):
        assert client.post("/items", json={"items": NEW}).status_code == 200
        batches = [
            {"events": [event(item, n) for n in range(begin, begin + 5)]}
            for item in range(4)
            for begin in range(0, 50, 5)
        ]
        victim = workers(process)[0]
        with ThreadPoolExecutor(4) as pool:
            sent = [pool.submit(send, client, batch) for batch in batches]
            os.kill(victim, signal.SIGKILL)
            done = [one.result() for one in sent]
        assert all(one["refused"] == one["corrected"] == 0 for one in done)
        wait_until_ready(client, process)
        assert [client.get(f"/items/new {n}").json()["events"] for n in range(4)] == [50] * 4
        again = send(client, {"events": [event(item, n) for item in range(4) for n in range(50)]})
        assert (again["new"], again["known"]) == (0, 200)
        assert 'newcomer_events_total{outcome="known"} 200' in client.get("/metrics").text.replace("200.0", "200")
        body: dict[str, Any] = {"viewer": 3, "context": {"page": "home", "price": 0.5}, "candidates": [*FILMS, "new 0"]}
        scores = [row["score"] for row in client.post("/score", json=body).json()["scores"]]
    with ItemService.open(store, states) as items:
        rows = [{"film": name, "viewer": 3, "page": "home", "price": 0.5} for name in body["candidates"]]
        assert items.score(rows)["score"].to_list() == pytest.approx(scores, abs=1e-6)
    assert b"Traceback" not in (tmp_path / "log").read_bytes()


def test_workers_end_when_the_service_is_killed(store: Path, tmp_path: Path) -> None:
    """The port is free, so that the service can be started again: nobody would run the jobs of workers that went on."""
    words = [str(store), "--states", f"sqlite:///{tmp_path / 'items.db'}", "--folder", str(tmp_path / "own")]
    with service(*words, "--workers", "2", log=tmp_path / "log") as (client, process):
        process.kill()
        process.wait()
        port, end = client.base_url.port, time.monotonic() + WAIT
        while time.monotonic() < end:
            with socket.socket() as found, suppress(OSError):
                found.bind(("127.0.0.1", port))
                break
            time.sleep(0.1)
        else:
            raise AssertionError("the port is in use")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the runner in /proc")
def test_a_job_survives_the_end_of_its_runner(tmp_path: Path, tasks: list[Examples]) -> None:
    """The runner is killed while a job runs: another runner does it, once; a job that is cancelled leaves nothing."""
    FrozenBackbone("micro-vit").learn(tasks[0]).save(tmp_path / "digits")
    examples = []
    for image, label in zip(tasks[1].inputs, tasks[1].labels, strict=True):
        stream = io.BytesIO()
        image.save(stream, "PNG")  # type: ignore[union-attr]
        examples.append({"input": base64.b64encode(stream.getvalue()).decode(), "label": label})
    with service(str(tmp_path / "digits"), log=tmp_path / "log") as (client, process):
        job, other = (client.post("/jobs", json={"kind": "learn", "examples": examples}).json()["id"] for _ in range(2))
        wait_for(client, job, "running")
        os.kill(children(process.pid, b"job_runner")[0], signal.SIGKILL)
        done = wait_for(client, job, "done")
        assert (done["attempts"], done["result"]["stage"]) == (2, 2)
        wait_for(client, other, "running")
        client.delete(f"/jobs/{other}")
        wait_for(client, other, "cancelled")
        assert client.get("/classes").json()["classes"] == sorted({*tasks[0].labels, *tasks[1].labels})
    assert len(FrozenBackbone.load(tmp_path / "digits").entries) == 2
    assert b"Traceback" not in (tmp_path / "log").read_bytes()


def wait_for(client: httpx.Client, job: str, status: str) -> dict[str, Any]:
    """The job when it has this status."""
    while True:
        found: dict[str, Any] = client.get(f"/jobs/{job}").json()
        if found["status"] == status:
            return found
        assert found["status"] in ("queued", "running"), found
        time.sleep(0.05)


def test_a_click_model_is_served_without_the_libraries_of_classifiers() -> None:
    """They take longer to import than all else, and a service that was killed is to be back soon."""
    code = "import sys, newcomer.server.app, newcomer.server.job_execution; print('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("stop", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_service_that_is_stopped_ends_without_a_word_that_is_no_line_of_its_log(
    stop: signal.Signals, store: Path, tmp_path: Path
) -> None:
    """And so do the processes of its jobs."""
    words = [str(store), "--folder", str(tmp_path / "own"), "--states", f"sqlite:///{tmp_path / 'items.db'}"]
    log = tmp_path / "log.csv"
    films_log().write_csv(log)
    with service(*words, "--log", str(log), log=tmp_path / "log") as (client, process):
        job = client.post("/jobs", json={"kind": "train"}).json()["id"]
        while client.get(f"/jobs/{job}").json()["status"] != "done":
            time.sleep(0.2)
        process.send_signal(stop)
        process.wait(60)
    said = (tmp_path / "log").read_text().splitlines()
    first, *lines = [json.loads(line) for line in said if not line.startswith("serving ")]
    assert first["message"] == f"loading {store}"
    assert {line["level"] for line in lines} == {"info"}
    assert len([line for line in said if line.startswith("serving ")]) == 1


def test_a_child_that_has_done_its_work_ends_well() -> None:
    """While its parent still holds the other end of its standard input."""
    code = "from newcomer.server.job_runner import become_child; become_child()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stderr is not None
        assert (child.stderr.read(), child.wait(60)) == (b"", 0)


def test_a_child_ends_with_its_parent() -> None:
    code = "import time\nfrom newcomer.server.job_runner import become_child; become_child(); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(60) == 1


def test_what_cannot_be_served_is_refused_before_anything_starts(store: Path, shell: Shell) -> None:
    def refused(*words: str) -> str:
        """The line after the one that says what is loaded."""
        before = shell.files()
        code, out, err = shell.call("serve", *words, "--port", str(free_port()))
        first, last = err.splitlines()
        assert (code, out, json.loads(first)["message"].partition(" ")[0]) == (2, "", "loading")
        assert shell.files() == before
        return last

    assert "nowhere: " in refused("nowhere")
    assert "give --token-file" in refused(str(store), "--host", "0.0.0.0")
    assert "no such file" in refused(str(store), "--log", "nowhere*.csv")
    for limit in ("rows", "rows=", "rows=-1", "rows=" + 20 * "9", "rows=many", "rate=5", "pixels=9"):
        said = shell.fails("serve", str(store), "--limit", limit)
        assert said == f"newcomer: --limit {limit}: give each of body, rows, inputs, jobs once, such as rows=1000"
    assert "serve: body: Input should be greater than" in shell.fails("serve", str(store), "--limit", "body=9")
    assert "the second click model" in refused(str(store), str(store))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = shell.fails("serve", str(store), "--port", str(port))
        assert said == f"newcomer: port {port} of 127.0.0.1 is in use; give another --port"
    (shell.folder / "tokens").write_text("read short")
    assert "tokens: the token in line 1" in refused(str(store), "--token-file", "tokens")


@pytest.mark.always
def test_several_workers_are_refused_the_same_in_one_line(store: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("read short")
    command = [sys.executable, "-m", "newcomer", "serve", str(store), "--port", str(free_port())]
    done = subprocess.run(
        [*command, "--workers", "2", "--token-file", "tokens"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    loading, said = done.stderr.splitlines()
    assert (done.returncode, done.stdout, json.loads(loading)["level"]) == (2, "", "info")
    assert said.startswith("newcomer: tokens: the token in line 1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokens"]


def test_a_warning_is_a_line_of_the_log_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("handlers", "propagate"):
        monkeypatch.setattr(logs.log, name, getattr(logs.log, name))
    with warnings.catch_warnings():
        logs.log_to_stderr()
        for _ in range(3):
            warnings.warn("few examples", DataWarning, stacklevel=1)
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["level"], line["message"]) == ("warning", "few examples")
