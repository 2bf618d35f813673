"""Trackers: TensorBoard for real, the others through modules with their call signatures; trackers that are unknown or missing."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from newcomer.errors import MissingExtraError
from newcomer.experiments.run import Score, StageEnd
from newcomer.experiments.tracking import find_tracker, track
from newcomer.training.learner import Step
from shell import Shell

EVENTS = [
    Step("adapt", 1, 2, {"loss": 0.75}),
    Step("adapt", 2, 2, {"loss": 0.5}),
    Score("task-1", "seen", {"accuracy": 0.875}),
    StageEnd("task-1", 2.0, 1.0, {"classes": ["wren"], "held-out accuracy": 0.625}),
    Step("adapt", 1, 1, {"loss": 0.25}),
]
SETTINGS = {"learner.name": "sd-lora", "seed": 3}
LOGGED = [
    ({"adapt/loss": 0.75, "stage": 1}, 1),
    ({"adapt/loss": 0.5, "stage": 1}, 2),
    ({"seen/accuracy": 0.875, "stage": 1}, 2),
    ({"stage/held-out accuracy": 0.625, "stage/train_seconds": 2.0, "stage/eval_seconds": 1.0, "stage": 1}, 2),
    ({"adapt/loss": 0.25, "stage": 2}, 3),
]


def log_events(tracker: str) -> None:
    start = find_tracker(tracker)
    events = [("digits/seed-0", event) for event in EVENTS]
    assert list(track(events, lambda name: start(name, SETTINGS))) == events


class FakeRun:
    """A run of wandb or trackio."""

    def __init__(self) -> None:
        self.logged: list[tuple[Mapping[str, float], int]] = []
        self.finished = False

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        assert step is not None
        self.logged.append((metrics, step))

    def finish(self) -> None:
        self.finished = True


@pytest.mark.parametrize(("name", "options"), [("wandb", {"reinit": "create_new"}), ("trackio", {})])
def test_settings_once_and_metrics_by_step(name: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    run, calls = FakeRun(), []

    def init(**arguments: Any) -> FakeRun:
        calls.append(arguments)
        return run

    library: Any = ModuleType(name)
    library.init = init
    monkeypatch.setitem(sys.modules, name, library)
    log_events(name)
    assert calls == [{"project": "newcomer", "name": "digits/seed-0", "config": SETTINGS, **options}]
    assert run.logged == LOGGED
    assert run.finished


def test_mlflow_gets_params_and_metrics_of_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    class MlflowClient:
        def create_run(self, experiment_id: str, run_name: str | None = None) -> Any:
            calls.append((experiment_id, run_name))
            return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

        def log_param(self, run_id: str, key: str, value: Any) -> None:
            calls.append((run_id, key, value))

        def log_metric(self, run_id: str, key: str, value: float, timestamp: int | None = None, step: int = 0) -> None:
            calls.append((run_id, key, value, step))

        def set_terminated(self, run_id: str) -> None:
            calls.append((run_id,))

    library: Any = ModuleType("mlflow")
    library.set_experiment = lambda name: SimpleNamespace(experiment_id=f"id of {name}")
    library.MlflowClient = MlflowClient
    monkeypatch.setitem(sys.modules, "mlflow", library)
    log_events("mlflow")
    metrics = [("r1", key, value, step) for values, step in LOGGED for key, value in values.items()]
    params = [("r1", key, value) for key, value in SETTINGS.items()]
    assert calls == [("id of newcomer", "digits/seed-0"), *params, *metrics, ("r1",)]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return {tag: [(point.step, point.value) for point in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


@pytest.mark.filterwarnings("default")  # of tensorboard's own imports
def test_tensorboard_files_hold_what_was_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    log_events("tensorboard")
    log_events("tensorboard")
    first, second = (tmp_path / "runs" / "tensorboard" / "digits" / name for name in ("seed-0", "seed-0-2"))
    assert scalars(first) == scalars(second)
    assert scalars(first)["adapt/loss"] == [(1, 0.75), (2, 0.5), (3, 0.25)]
    assert scalars(first)["stage"] == [(1, 1.0), (2, 1.0), (2, 1.0), (2, 1.0), (3, 2.0)]
    assert scalars(first)["seen/accuracy"] == [(2, 0.875)]


def test_concurrent_runs_have_a_tracker_run_each_until_their_end() -> None:
    log: list[str] = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def log(self, metrics: Mapping[str, float], step: int) -> None:
            log.append(f"{self.name} {step}")

        def finish(self) -> None:
            log.append(f"{self.name} finished")

    step = Step("adapt", 1, 1, {"loss": 1.0})
    pairs: list[tuple[str, object]] = [("a", step), ("b", step), ("a", step), ("a", "its end"), ("b", step)]
    list(track(pairs, Recorder))
    assert log == ["a 1", "b 1", "a 2", "a finished", "b 2", "b finished"]


def test_an_error_in_a_run_finishes_its_tracker() -> None:
    run = FakeRun()

    def events() -> Iterator[tuple[str, Step]]:
        yield "a", EVENTS[0]  # type: ignore[misc]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(track(events(), lambda _: run))
    assert run.finished


def test_unknown_and_missing_trackers(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (
        ("run", "birds.toml"),
        ("compare", "birds.toml"),
        ("learn", "m", "birds/train"),
        ("train", "m", "x.csv"),
    ):
        assert "--track tensorbord: no such tracker; did you mean 'tensorboard'?" in shell.fails(
            *words, "--track", "tensorbord"
        )
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError):
        find_tracker("wandb")
    message = shell.fails("run", "birds.toml", "--track", "wandb")
    assert message == "newcomer: wandb is not installed; run: pip install 'newcomer[wandb]'"


def test_commands_send_their_metrics(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: dict[str, FakeRun] = {}
    library: Any = ModuleType("trackio")
    library.init = lambda project, name, config: runs.setdefault(name, FakeRun())
    monkeypatch.setitem(sys.modules, "trackio", library)
    code, _, err = shell.call("run", "birds.toml", "--track", "trackio")
    assert code == 0, err
    (name,) = runs
    assert name.startswith("birds/")
    assert name.endswith("/seed-0")
    assert runs[name].finished
    assert {step for _, step in runs[name].logged} != {0}
