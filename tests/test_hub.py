"""Models on the Hugging Face hub, against a local server with its HTTP API."""

import gc
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import constants

import newcomer
from hub_server import Repository, hub_server
from newcomer import FrozenBackbone, IdTuning, SDLoRA, SettingError, StoreError, hub
from newcomer.data.datasets.simulated_clicks import simulate_click_log
from newcomer.data.examples import Examples
from newcomer.export import FORMS
from newcomer.store.folder import Store

Hub = tuple[str, dict[str, Repository]]
Python = Callable[[str], str]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tasks: list[Examples]) -> Path:
    folder = tmp_path_factory.mktemp("models") / "digits"
    learner = FrozenBackbone("micro-vit")
    for task in tasks[:2]:
        learner.learn(task)
    learner.save(folder)
    return folder


@pytest.fixture
def server() -> Iterator[Hub]:
    with hub_server() as served:
        yield served


@pytest.fixture
def python(server: Hub, tmp_path: Path) -> Python:
    """What code prints in a process that knows only this hub."""

    def run(code: str) -> str:
        known = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": server[0], "HF_HOME": str(tmp_path / "cache")}
        known |= {"HF_TOKEN": "hf_test", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        command = [sys.executable, "-c", "import newcomer, numpy as np\nfrom newcomer.hub import push_to_hub\n" + code]
        done = subprocess.run(command, capture_output=True, text=True, env=known, check=False)
        assert not done.returncode, done.stderr
        return done.stdout.strip()

    return run


PREDICT = """
images = [np.random.default_rng(n).integers(0, 255, (8, 8, 3), dtype=np.uint8) for n in range(4)]
def predict(model):
    print(model.predict_proba(images).tobytes().hex())
"""
IMAGES = [np.random.default_rng(n).integers(0, 255, (8, 8, 3), dtype=np.uint8) for n in range(4)]


@pytest.fixture
def here(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """This process knows only this hub."""
    address = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server[0])
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
    monkeypatch.setattr(constants, "ENDPOINT", server[0])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    return server


@pytest.mark.always
def test_a_store_pushed_and_loaded_predicts_the_same_and_from_the_cache_without_the_hub(
    store: Path, here: Hub, python: Python, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"""
print(push_to_hub({str(store)!r}, 'ada/digits', private=True, metrics={{'accuracy': 0.91234}}))
predict(newcomer.load({str(store)!r}))
predict(newcomer.load('ada/digits'))
"""
    url, local, there = python(PREDICT + code).split()
    repository = here[1]["ada/digits"]
    assert repository.private
    assert url == f"{here[0]}/ada/digits/commit/{repository.branches['main']}"
    assert there == local
    here[1].clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for model in (newcomer.load("ada/digits"), newcomer.FrozenBackbone.from_pretrained("ada/digits")):
        assert (model.predict_proba(IMAGES) == newcomer.load(store).predict_proba(IMAGES)).all()


def test_a_learner_is_pushed_to_a_branch_and_loaded_from_it(store: Path, here: Hub) -> None:
    model = FrozenBackbone.from_pretrained(str(store), device="cpu")
    model.push_to_hub("ada/digits", revision="next")
    there = newcomer.load("ada/digits", revision="next")
    assert (there.predict_proba(IMAGES) == model.predict_proba(IMAGES)).all()
    assert set(here[1]["ada/digits"].branches) == {"main", "next"}
    with pytest.raises(StoreError, match=one_line("ada/digits: no such folder, and not downloaded from the hub (")):
        newcomer.load("ada/digits", revision="v9")


def one_line(beginning: str) -> str:
    return rf"\A{re.escape(beginning)}.+\Z"


def test_an_unknown_repository_and_a_hub_that_refuses_are_one_sentence(
    store: Path, here: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match=one_line("ada/nothing: no such folder, and not downloaded from the hub (")):
        newcomer.load("ada/nothing")
    with pytest.raises(SettingError, match=r"\A'a/b/c' is not the id of a repository; give 'user/name'\Z"):
        hub.push_to_hub(store, "a/b/c")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")  # where nobody answers
    with pytest.raises(StoreError, match=one_line("ada/digits: not uploaded to the hub (")):
        hub.push_to_hub(store, "ada/digits")


def test_the_model_card_has_the_hubs_metadata_and_says_how_to_load(store: Path) -> None:
    with hub._files(store, "ada/digits", {"accuracy": 0.91234}, states=False) as files:
        assert set(files) == {
            "README.md",
            "manifest.json",
            *(f"{part}-00{k}.safetensors" for part in ("stage", "state") for k in (0, 1)),
        }
        text = files["README.md"]
    assert isinstance(text, bytes)
    _, front, body = text.decode().split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "newcomer",
        "pipeline_tag": "image-classification",
        "tags": ["newcomer", "frozen", "continual-learning", "class-incremental-learning"],
        "metrics": ["accuracy"],
    }
    assert 'newcomer.load("ada/digits")' in body
    assert "`0`, `1`, `2`, `3`" in body
    assert "| accuracy | 0.9123 |" in body


def test_a_backbone_of_the_hub_is_the_cards_base_model_and_a_local_folder_is_not(
    tiny: Callable[[str], Path], questions: list[Examples]
) -> None:
    learner = FrozenBackbone(str(tiny("bert"))).learn(questions[0])
    with hub._files(learner, "ada/intents", {}, states=False) as files:
        text = files["README.md"]
    assert isinstance(text, bytes)
    front, body = yaml.safe_load(text.decode().split("---\n")[1]), text.decode()
    assert "base_model" not in front
    assert front["pipeline_tag"] == "text-classification"
    assert str(tiny("bert")) not in body
    assert f'newcomer.load("ada/intents", backbone="/path/to/{tiny("bert").name}")' in body
    learner.backbone.folder, learner.backbone.name = None, "org/bert"
    with hub._files(learner, "ada/intents", {}, states=False) as files:
        text = files["README.md"]
    assert isinstance(text, bytes)
    assert yaml.safe_load(text.decode().split("---\n")[1])["base_model"] == "org/bert"


def test_item_states_are_uploaded_only_when_asked_for(tmp_path: Path) -> None:
    log = simulate_click_log(old_items=20, old_events=20, new_items=2, users=50)
    learner = IdTuning(log.schema, meta_epochs=0).learn(log)
    learner.save(tmp_path / "clicks")
    database = tmp_path / "clicks" / "items.db"
    with (
        pytest.raises(StoreError, match=r"no items\.db there; push without states=True"),
        hub._files(tmp_path / "clicks", "ada/clicks", {}, states=True),
    ):
        pass
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE secret (item)")
    connection.close()
    with hub._files(tmp_path / "clicks", "ada/clicks", {}, states=False) as files:
        assert set(files) == {"README.md", "manifest.json", "stage-000.safetensors"}
        text = files["README.md"]
    assert isinstance(text, bytes)
    assert yaml.safe_load(text.decode().split("---\n")[1])["pipeline_tag"] == "tabular-classification"
    with hub._files(tmp_path / "clicks", "ada/clicks", {}, states=True) as files:
        copy = files["items.db"]
        assert isinstance(copy, Path)
        assert copy != database
        with sqlite3.connect(copy) as connection:
            assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("secret",)]
        connection.close()


def test_an_exported_folder_keeps_its_files_and_gets_the_hubs_metadata(
    tmp_path: Path, tiny: Callable[[str], Path], tasks: list[Examples]
) -> None:
    learner = SDLoRA(str(tiny("vit")), rank=2, epochs=1).learn(tasks[0])
    FORMS["transformers"](learner, tmp_path / "exported")
    (tmp_path / "exported" / ".cache").write_text("private")
    with hub._files(tmp_path / "exported", "ada/exported", {"accuracy": 0.5}, states=False) as files:
        names, text = set(files), files["README.md"]
    assert names == {path.name for path in (tmp_path / "exported").iterdir()} - {".cache"}
    assert isinstance(text, bytes)
    front = yaml.safe_load(text.decode().split("---\n")[1])
    assert (front["library_name"], front["pipeline_tag"]) == ("transformers", "image-classification")
    assert (tmp_path / "exported" / "README.md").read_text() in text.decode()


def test_what_is_no_model_is_not_pushed(tmp_path: Path, store: Path) -> None:
    with pytest.raises(StoreError, match="neither a store nor an exported folder"):
        hub.push_to_hub(tmp_path, "ada/x")
    with pytest.raises(StoreError, match="FrozenBackbone: has learned nothing yet; call learn first"):
        hub.push_to_hub(FrozenBackbone("micro-vit"), "ada/x")
    with pytest.raises(SettingError, match="source of type int; give a learner or the folder of a model"):
        hub.push_to_hub(3, "ada/x")  # type: ignore[arg-type]
    broken = tmp_path / "broken"
    Store(store).checkout(2, broken)
    (broken / "stage-001.safetensors").write_bytes(b"other")
    with pytest.raises(StoreError, match="checksum"):
        hub.push_to_hub(broken, "ada/x")


def test_a_base_class_cannot_be_loaded_from_the_hub() -> None:
    from newcomer.classes.learner import ClassLearner

    with pytest.raises(SettingError, match=r"ClassLearner is the base of several learners; use newcomer\.load"):
        ClassLearner.from_pretrained("ada/digits")


def test_a_click_model_of_the_hub_does_not_write_into_the_cache(
    tmp_path: Path, here: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = simulate_click_log(old_items=20, old_events=20, new_items=2, users=50)
    IdTuning(log.schema, meta_epochs=0).learn(log).save(tmp_path / "clicks")
    with closing(newcomer.load(tmp_path / "clicks")) as service:
        service.add([{field.name: 1 for field in log.schema.nodes} | {log.schema.item: "brand new"}])
    hub.push_to_hub(tmp_path / "clicks", "ada/clicks", states=True)
    with closing(newcomer.load("ada/clicks")) as service:
        assert "brand new" in service.headers()
        service.forget("brand new")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with closing(newcomer.load("ada/clicks")) as service:
        assert "brand new" in service.headers()
        copy = Path(service.states.where.removeprefix("sqlite:///"))
    del service
    gc.collect()
    assert not copy.exists()
    assert not list((tmp_path / "cache").rglob("items.db-*"))
