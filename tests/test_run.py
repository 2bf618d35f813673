"""Runs: the record has every event, and an interrupted run resumes to the same result."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors import safe_open

from covering import combinations
from newcomer.errors import DataError, RecipeError, StoreError
from newcomer.experiments.recipe import Recipe, read_recipe
from newcomer.experiments.run import Event, Score, StageEnd, _load, run, run_recipe
from newcomer.registry import LEARNERS
from newcomer.store.record import read_record
from newcomer.training.checkpoint import Checkpoint
from newcomer.training.learner import Step

RECIPE = """
title = "Digits"
[data]
name = "digits"
[stream]
tasks = 3
classes = 6
train_per_class = 6
eval_per_class = 3
[backbone]
name = "{backbone}"
[learner]
name = "sd-lora"
rank = 2
epochs = {epochs}
batch_size = 6
learning_rate = 1e-2
[baselines.sequential.learner]
name = "sequential-lora"
rank = 2
epochs = 1
batch_size = 6
loss_classes = "seen"
[baselines.frozen.learner]
name = "frozen"
[baselines.joint.stream]
joint = true
"""


@pytest.fixture
def file(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(RECIPE.format(backbone=tiny("vit"), epochs=2))
    return path


ROWS = ["sd-lora", "sequential", "frozen", "joint"]


@pytest.fixture(params=ROWS)
def recipe(request: pytest.FixtureRequest, file: Path) -> Recipe:
    filled = read_recipe(str(file))
    return filled if request.param == "sd-lora" else filled.with_baseline(request.param)


def events(folder: Path) -> list[dict[str, Any]]:
    """The record without what differs from run to run."""
    clock = {"train_seconds", "eval_seconds", "machine", "commit"}
    return [{k: v for k, v in event.items() if k not in clock} for event in read_record(folder / "record.jsonl")]


def stored(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "store").iterdir() if path.name != ".lock"}


def performed(recipe: Recipe, folder: Path) -> list[Event]:
    return list(run_recipe(recipe, folder))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], Path]:
    """The folder of this run, never stopped; run once."""
    made: dict[str, Path] = {}

    def folder(recipe: Recipe) -> Path:
        if recipe.row not in made:
            made[recipe.row] = tmp_path_factory.mktemp("whole")
            performed(recipe, made[recipe.row])
        return made[recipe.row]

    return folder


Whole = Callable[[Recipe], Path]


def test_a_record_has_all_that_a_run_depends_on(recipe: Recipe, tmp_path: Path) -> None:
    happened = performed(recipe, tmp_path / "run")
    first, *rest, last = read_record(tmp_path / "run" / "record.jsonl")
    assert first["event"] == "start"
    assert first["recipe"] == recipe.resolved()
    assert first["position"] == recipe.position
    assert first["stream"].keys() == {"tasks", "train_examples", "eval_examples"}
    assert first["versions"].keys() == {"newcomer", "torch", "transformers", "numpy", "polars", "python"}
    assert first["versions"]["torch"] == torch.__version__
    assert first["machine"].keys() == {"system", "processor", "threads", "gpu"}
    assert "commit" in first
    assert last == {"event": "end"}
    names = {"step": Step, "score": Score, "stage": StageEnd}
    assert [names[event["event"]] for event in rest] == [type(event) for event in happened]
    stages = [event for event in rest if event["event"] == "stage"]
    assert len(stages) == (1 if recipe.row == "joint" else 3)
    assert all(event["train_seconds"] > 0 and event["eval_seconds"] > 0 for event in stages)
    scores = [(event["stage"], event["eval_set"]) for event in rest if event["event"] == "score"]
    if recipe.row != "joint":
        assert scores == [(f"task {t}", f"task {k}") for t in range(3) for k in range(t + 1)]


def test_steps_are_numbered_up_to_their_count(recipe: Recipe, tmp_path: Path) -> None:
    steps = [event for event in performed(recipe, tmp_path / "run") if isinstance(event, Step)]
    for part in dict.fromkeys(step.part for step in steps):
        mine = [step for step in steps if step.part == part]
        assert [step.step for step in mine] == list(range(1, mine[0].steps + 1))


def test_the_store_holds_the_trained_learner(recipe: Recipe, whole: Whole) -> None:
    stream = recipe.build_stream()
    learner = recipe.build_learner(stream)
    list(run(learner, stream))
    loaded: Any = LEARNERS[recipe.learner["name"]].load(whole(recipe) / "store")
    asked = [x for stage in stream for x in stage.train.inputs]
    assert torch.equal(loaded.logits(asked), learner.logits(asked))  # type: ignore[attr-defined]


def cut(recipe: Recipe, folder: Path, stages: int, steps: int) -> None:
    """Run this many stages and then events, and stop."""
    happening = run_recipe(recipe, folder)
    finished = 0
    while finished < stages:
        finished += isinstance(next(happening), StageEnd)
    for _ in range(steps):
        next(happening, None)
    happening.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("recipe", "moment"), combinations(ROWS, [(0, 1), (1, 2), (1, 0), (2, 0), (2, 1), (3, 0)]), indirect=["recipe"]
)
@pytest.mark.always
def test_an_interrupted_run_resumes_to_the_same_result(
    moment: tuple[int, int], recipe: Recipe, whole: Whole, tmp_path: Path
) -> None:
    """Stopped after so many stages and events."""
    stages, steps = moment
    if recipe.row == "joint" and stages > 1:
        stages = 1  # it has only one
    cut(recipe, tmp_path / "cut", stages, steps)
    again = performed(recipe, tmp_path / "cut")
    assert sum(isinstance(event, StageEnd) for event in again) == (1 if recipe.row == "joint" else 3) - stages
    assert events(tmp_path / "cut") == events(whole(recipe))
    assert stored(tmp_path / "cut") == stored(whole(recipe))


def test_a_finished_run_is_not_repeated(recipe: Recipe, whole: Whole, tmp_path: Path) -> None:
    shutil.copytree(whole(recipe), tmp_path / "run")
    before = (tmp_path / "run" / "record.jsonl").read_bytes(), stored(tmp_path / "run")
    assert performed(recipe, tmp_path / "run") == []
    assert ((tmp_path / "run" / "record.jsonl").read_bytes(), stored(tmp_path / "run")) == before


def test_a_resumed_run_has_the_settings_of_the_machine_that_no_store_has(file: Path, tmp_path: Path) -> None:
    recipe = read_recipe(str(file), ["learner.gradient_checkpointing=true", "learner.cache_gib=0.5"])
    cut(recipe, tmp_path / "cut", 1, 0)
    resumed = _load(recipe, tmp_path / "cut" / "store", 1)
    assert (resumed.settings["gradient_checkpointing"], resumed.settings["cache_gib"]) == (True, 0.5)


def test_a_store_one_stage_ahead_of_its_record_resumes_to_the_same_result(
    file: Path, whole: Whole, tmp_path: Path
) -> None:
    """Killed between writing the store and the record."""
    recipe = read_recipe(str(file))
    cut(recipe, tmp_path / "cut", 1, 0)
    record = (tmp_path / "cut" / "record.jsonl").read_bytes()
    cut(recipe, tmp_path / "cut", 1, 0)
    (tmp_path / "cut" / "record.jsonl").write_bytes(record + b'{"event": "step", "par')
    performed(recipe, tmp_path / "cut")
    assert events(tmp_path / "cut") == events(whole(recipe))
    assert stored(tmp_path / "cut") == stored(whole(recipe))


def test_a_folder_with_other_settings_is_left_alone(file: Path, tmp_path: Path) -> None:
    recipe = read_recipe(str(file))
    cut(recipe, tmp_path / "run", 1, 0)
    before = (tmp_path / "run" / "record.jsonl").read_bytes(), stored(tmp_path / "run")
    for other, change in (
        (read_recipe(str(file), ["learner.rank=3"]), r"learner\.rank = 2 there, 3 here"),
        (read_recipe(str(file), ["stream.tasks=2"]), r"stream\.tasks = 3 there, 2 here"),
        (recipe.with_seed(1), r"seed = 0 there, 1 here"),
        (recipe.with_baseline("frozen"), r"row = 'sd-lora' there, 'frozen' here"),
        (replace(recipe, title="x"), r"title = 'Digits' there, 'x' here"),
    ):
        with pytest.raises(
            RecipeError, match=f"holds a run of other settings .{change}.; choose another --out or remove it"
        ):
            performed(other, tmp_path / "run")
    assert ((tmp_path / "run" / "record.jsonl").read_bytes(), stored(tmp_path / "run")) == before


def test_a_run_locked_by_another_process_is_left_alone(file: Path, tmp_path: Path) -> None:
    recipe = read_recipe(str(file))
    cut(recipe, tmp_path / "run", 1, 0)
    before = (tmp_path / "run" / "record.jsonl").read_bytes(), stored(tmp_path / "run")
    with (
        FileLock(tmp_path / "run" / ".lock"),
        pytest.raises(StoreError, match="another process is working on this run"),
    ):
        performed(recipe, tmp_path / "run")
    assert ((tmp_path / "run" / "record.jsonl").read_bytes(), stored(tmp_path / "run")) == before


def test_a_run_that_fails_before_its_first_stage_leaves_nothing(file: Path, tmp_path: Path) -> None:
    recipe = read_recipe(str(file), ["data.name=banking77", "data.path=no-such-banking"])
    with pytest.raises(DataError, match="Banking77 not found"):
        performed(recipe, tmp_path / "runs" / "deep" / "run")
    cut(read_recipe(str(file)), tmp_path / "runs" / "deep" / "run", 0, 3)
    assert {path.name for path in tmp_path.iterdir()} == {file.name}
    (tmp_path / "runs").mkdir()
    with pytest.raises(DataError, match="Banking77 not found"):
        performed(recipe, tmp_path / "runs" / "run")
    assert list((tmp_path / "runs").iterdir()) == []  # an existing folder stays


def test_a_folder_that_cannot_be_written_is_one_line(file: Path) -> None:
    with pytest.raises(StoreError, match="could not be written"):
        performed(read_recipe(str(file)), file / "run")


@pytest.mark.parametrize(
    "nth",
    [
        0,
        pytest.param(2, marks=pytest.mark.slow),
        4,
        pytest.param(6, marks=pytest.mark.slow),
        8,
        pytest.param(10, marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_is_a_one_line_error_and_the_run_can_be_resumed(
    nth: int, file: Path, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe(str(file))
    real, calls = os.fsync, iter(range(100))

    def full(target: int) -> None:
        if next(calls) == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(target)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        performed(recipe, tmp_path / "run")
    monkeypatch.undo()
    assert not list((tmp_path / "run").rglob("*.part"))
    performed(recipe, tmp_path / "run")
    assert events(tmp_path / "run") == events(whole(recipe))
    assert stored(tmp_path / "run") == stored(whole(recipe))


PERFORM = """
import sys, torch
from pathlib import Path
from newcomer.experiments.recipe import read_recipe
from newcomer.experiments.run import run_recipe
torch.set_num_threads(1)
list(run_recipe(read_recipe(sys.argv[1]), Path(sys.argv[2])))
"""


def test_a_killed_run_resumes_to_the_same_result(file: Path, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    file.write_text(RECIPE.format(backbone=tiny("vit"), epochs=15))  # long enough to be killed half-way
    recipe, folder = read_recipe(str(file)), tmp_path / "killed"
    command = [sys.executable, "-c", PERFORM, str(file), str(folder)]
    with subprocess.Popen(command) as process:
        record = folder / "record.jsonl"
        while process.poll() is None and not (record.exists() and record.stat().st_size):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    done = sum(event["event"] == "stage" for event in read_record(record))
    assert 1 <= done < 3
    happened = performed(recipe, folder)
    assert sum(isinstance(event, StageEnd) for event in happened) == 3 - done
    performed(recipe, tmp_path / "whole")
    assert events(folder) == events(tmp_path / "whole")
    assert stored(folder) == stored(tmp_path / "whole")


def test_a_changed_store_is_detected_on_resuming(file: Path, tmp_path: Path) -> None:
    recipe = read_recipe(str(file))
    cut(recipe, tmp_path / "run", 2, 0)
    path = tmp_path / "run" / "store" / "stage-000.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(StoreError, match="checksum"):
        performed(recipe, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "store")
    with pytest.raises(StoreError, match="no store here"):
        performed(recipe, tmp_path / "run")


def test_run_yields_the_events_of_every_stage(file: Path) -> None:
    recipe = read_recipe(str(file))
    stream = recipe.build_stream()
    learner = recipe.build_learner(stream)
    happening: Iterator[Event] = run(learner, stream)
    first = list(takewhile(lambda event: not isinstance(event, StageEnd), happening))
    assert [type(event) for event in first] == [Step] * 6 + [
        Score
    ]  # four gradient steps, and features before and after
    assert len(learner.entries) == 1
    rest = list(run(learner, stream, done=1))
    assert [event.stage for event in rest if isinstance(event, StageEnd)] == ["task 1", "task 2"]


ITEMS = """
title = "A small world"
[data]
name = "world"
old_items = 12
old_events = 60
new_items = 5
new_events = 30
users = 20
kinds = 4
[stream]
min_old_events = 40
phase_events = 4
[learner]
name = "emerg"
width = 4
tower = [8]
layers = 1
pretrain_epochs = 3
batch_size = 64
meta_epochs = 2
episodes_per_step = 4
meta_lr = 1e-2
[baselines.all-weights.learner]
meta_trains = "all"
meta_lr = 1e-3
[baselines.deepfm.learner]
name = "id-tuning"
width = 4
hidden = [8]
pretrain_epochs = 5
batch_size = 64
"""


ITEM_ROWS = ["emerg", "all-weights", "deepfm"]


@pytest.fixture(params=ITEM_ROWS)
def items(request: pytest.FixtureRequest, tmp_path: Path) -> Recipe:
    (tmp_path / "items.toml").write_text(ITEMS)
    filled = read_recipe(str(tmp_path / "items.toml"))
    return filled if request.param == "emerg" else filled.with_baseline(request.param)


@pytest.fixture
def kept_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("newcomer.experiments.run.Checkpoint", lambda folder: Checkpoint(folder, every_seconds=0))


def kept(folder: Path) -> dict[str, int]:
    """The step of each checkpointed part of the first stage."""
    found = {}
    for path in (folder / "checkpoint").glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found[path.stem] = int(json.loads(file.metadata()["kept"])["step"])
    return found


@pytest.mark.usefixtures("kept_always")
@pytest.mark.parametrize(("items", "steps"), combinations(ITEM_ROWS, [14, 30, 40]), indirect=["items"])
def test_a_run_interrupted_within_the_first_stage_resumes_from_its_checkpoint(
    items: Recipe, steps: int, whole: Whole, tmp_path: Path
) -> None:
    cut(items, tmp_path / "cut", 0, steps)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["checkpoint"]
    done = kept(tmp_path / "cut")
    assert done
    performed(items, tmp_path / "cut")
    mine, other = events(tmp_path / "cut"), events(whole(items))
    first = next(event for event in mine if event["event"] == "step")
    if "meta" in done:
        assert (first["part"], first["step"]) == ("meta", done["meta"] + 1)
    else:
        assert (first["part"], first["step"]) == ("pretrain", 720 * done["pretrain"] + 64)
    assert other[0] == mine[0]
    assert mine[1:] == other[len(other) - len(mine) + 1 :]  # steps, scores and info are bit-identical
    assert len(mine) < len(other)
    assert stored(tmp_path / "cut") == stored(whole(items))


@pytest.mark.usefixtures("kept_always")
def test_a_finished_run_has_no_checkpoint(items: Recipe, tmp_path: Path) -> None:
    for event in run_recipe(items, tmp_path / "run"):
        assert not isinstance(event, StageEnd) or not (tmp_path / "run" / "checkpoint").exists()
    assert not (tmp_path / "run" / "checkpoint").exists()


@pytest.mark.usefixtures("kept_always")
def test_a_checkpoint_of_other_settings_is_an_error_and_without_it_the_run_starts_anew(
    items: Recipe, whole: Whole, tmp_path: Path
) -> None:
    folder = tmp_path / "cut"
    cut(items.with_seed(1), folder, 0, 20)
    before = kept(folder)
    with pytest.raises(StoreError, match=r"other settings or data; remove .*checkpoint to start anew"):
        performed(items, folder)
    assert kept(folder) == before
    shutil.rmtree(folder / "checkpoint")
    performed(items, folder)
    assert events(folder) == events(whole(items))


KEEPING = PERFORM.replace(
    "torch.set_num_threads(1)",
    """torch.set_num_threads(1)
import newcomer.experiments.run, time
from newcomer.training.checkpoint import Checkpoint
class Slow(Checkpoint):
    def keep(self, *words, **more):
        super().keep(*words, **more)
        time.sleep(0.05 if "meta" in words else 0)
newcomer.experiments.run.Checkpoint = lambda folder: Slow(folder, every_seconds=0)""",
)


@pytest.mark.slow  # one more process that is killed
def test_a_run_killed_within_the_first_stage_resumes_to_the_same_scores(tmp_path: Path) -> None:
    file, folder = tmp_path / "items.toml", tmp_path / "killed"
    file.write_text(ITEMS)
    with subprocess.Popen([sys.executable, "-c", KEEPING, str(file), str(folder)]) as process:
        while process.poll() is None and not (folder / "checkpoint" / "meta.safetensors").exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    recipe, done = read_recipe(str(file)), kept(folder)
    assert list(read_record(folder / "record.jsonl")) == []
    happened = performed(recipe, folder)
    assert isinstance(happened[0], Step)
    assert (happened[0].part, happened[0].step) == ("meta", done["meta"] + 1)
    performed(recipe, tmp_path / "whole")
    mine, other = (
        [event for event in events(folder) if event["event"] == "score"] for folder in (folder, tmp_path / "whole")
    )
    assert mine == other
    assert [event["stage"] for event in mine] == ["cold", "warm-a", "warm-b", "warm-c"]
    assert stored(folder) == stored(tmp_path / "whole")
