"""Models in processes of others: gunicorn with and without preload, multiprocessing by fork and by spawn."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import httpx
import pytest

from films import requests, trained
from newcomer.errors import StoreError
from newcomer.items.serving.service import ItemService
from serving import free_port

APPLICATION = """
import os
from newcomer.errors import StoreError
from newcomer.items.serving.service import ItemService

asked = [{"film": "film 1", "viewer": 3, "page": "home", "price": 0.5}]
opened = ItemService.open(os.environ["STORE"])
opened.score(asked)

def of_import(environment, start):
    try:
        answer = repr(opened.score(asked)["score"][0])
    except StoreError as error:
        answer = str(error)
    start("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("films") / "store")


@contextmanager
def gunicorn(folder: Path, store: Path, *options: str) -> Iterator[httpx.Client]:
    pytest.importorskip("gunicorn", reason="needs gunicorn: pip install gunicorn")
    (folder / "application.py").write_text(APPLICATION)
    port, here = free_port(), [str(folder), *sys.path]
    command = [sys.executable, "-m", "gunicorn", "application:of_import", "--bind", f"127.0.0.1:{port}", "--workers=2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(here), "STORE": str(store), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, *options], cwd=folder, env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            for _ in range(1200):
                assert process.poll() is None
                try:
                    client.get("/")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield client
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_under_gunicorn_a_model_answers_or_says_that_it_was_forked(
    store: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """With --preload workers would wait for ever for threads of the process that imported the model."""
    with ItemService.open(store) as live, gunicorn(tmp_path, store, *options) as client:
        right = repr(live.score(requests("film 1"))["score"][0])
        answers = {client.get("/").text for _ in range(8)}
    if options:
        assert all("was forked from process" in answer and "without --preload" in answer for answer in answers)
    else:
        assert answers == {right}


def score(store: Path) -> float:
    """In another process."""
    with ItemService.open(store) as live:
        return float(live.score(requests("film 1"))["score"][0])


def test_spawned_processes_open_a_model_and_answer_alike(store: Path) -> None:
    with get_context("spawn").Pool(2) as pool, ItemService.open(store) as live:
        assert set(pool.map(score, [store] * 4)) == {float(live.score(requests("film 1"))["score"][0])}


LIVE: list[ItemService] = []


def score_of_the_parent(_: int) -> str:
    try:
        return repr(LIVE[0].score([{"film": "film 1", "viewer": 3, "page": "home", "price": 0.5}])["score"][0])
    except StoreError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_processes_are_told_to_open_the_model(store: Path) -> None:
    with ItemService.open(store) as live:
        LIVE[:] = [live]
        try:
            with get_context("fork").Pool(2) as pool:
                answers = set(pool.map(score_of_the_parent, range(4)))
        finally:
            LIVE.clear()
    assert all("was forked from process" in answer and "open the model in each worker" in answer for answer in answers)
