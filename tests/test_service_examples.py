"""The examples of docs/service.md in curl and in JavaScript run against a service."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from films import QUICK
from newcomer import FrozenBackbone
from newcomer.data.examples import Examples
from newcomer.data.schema import Field, Schema
from newcomer.items.methods.emerg import EmerG
from newcomer.server.app import create_app
from newcomer.server.configuration import ServeConfig
from serving import in_thread

PAGE = Path(__file__).parents[1] / "docs" / "service.md"
SCHEMA = Schema(
    "item_id", "user_id", "click", "timestamp", (Field("genre", "item"), Field("device", "context", missing="mark"))
)


@pytest.fixture
def url(tmp_path: Path, questions: list[Examples], tiny: Any) -> Iterator[str]:
    chance = np.random.default_rng(0)
    item = chance.integers(0, 8, 300)
    log = pl.DataFrame(
        {
            "item_id": [f"old{n}" for n in item],
            "user_id": chance.integers(0, 9, 300),
            "genre": ["ab"[n % 2] for n in item],
            "device": [("tv", "phone")[n] for n in chance.integers(0, 2, 300)],
            "click": chance.integers(0, 2, 300),
            "timestamp": 1_600_000_000 + np.arange(300),
        }
    )
    EmerG(SCHEMA, **QUICK).learn(log).save(tmp_path / "shop")
    FrozenBackbone(str(tiny("bert"))).learn(questions[0]).save(tmp_path / "questions")
    with in_thread(create_app(ServeConfig(stores=(tmp_path / "shop", tmp_path / "questions")))) as found:
        yield found


def example(language: str, url: str) -> str:
    """The page's block in this language, for this service."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert block.count("http://localhost:8000") == 1
    return str(block).replace("http://localhost:8000", url)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.filterwarnings("ignore:reject = 0.05")
def test_every_curl_of_the_page_succeeds(url: str) -> None:
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("needs curl and bash")
    script = example("sh", url).replace("curl -s", "curl -s --fail-with-body")
    out = run("bash", "-ec", script.replace("\n", "; echo\n"))
    answers = [json.loads(line) for line in out.splitlines() if line.startswith(("{", "["))]
    assert len(answers) == script.count("curl") - 1  # a deletion answers nothing
    added, _, item, scores, counts, classified, job, *_ = answers
    assert added["items"][0]["item_id"] == item["item_id"] == scores["scores"][0]["item_id"] == "new1"
    assert counts["new"] == 1
    assert classified["results"][0]["error"] is None
    assert job["status"] == "queued"


def test_the_page_s_javascript_runs(url: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    ranked, counts = run(node, "--input-type=module", "-e", example("js", url)).split("\n", 1)
    assert re.fullmatch(r"\[ [01], [01] \] (0\.\d+|1)", ranked)
    assert "new: 1" in counts
