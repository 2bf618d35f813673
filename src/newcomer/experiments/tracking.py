"""Experiment trackers: the settings of a run once, then its metrics by stage and step.

| name | library's calls | written to |
|---|---|---|
| `tensorboard` | `SummaryWriter.add_text`, `add_scalar` | `runs/tensorboard/NAME` |
| `mlflow` | `MlflowClient.create_run`, `log_param`, `log_metric` | as `MLFLOW_TRACKING_URI` says |
| `wandb` | `wandb.init`, `Run.log` | as `WANDB_MODE` and its login say |
| `trackio` | `trackio.init`, `Run.log` | its local database |

Metrics are named `PART/METRIC` while training, and `EVAL_SET/METRIC` for the scores after a stage; tasks and `stage` count from 1.
Steps are counted over all stages and parts of a run. A resumed run logs only what happens from then on, as a new tracker run.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, Protocol, TypeVar

from newcomer.errors import SettingError, nearest
from newcomer.experiments.recipe import Recipe
from newcomer.experiments.run import Score, StageEnd
from newcomer.extras import optional_imports
from newcomer.printable import stage_title
from newcomer.settings import Json
from newcomer.training.launcher import is_first
from newcomer.training.learner import Step

PROJECT = "newcomer"
TENSORBOARD = Path("runs/tensorboard")

Key = TypeVar("Key")
Event = TypeVar("Event")


class Tracker(Protocol):
    """One run of a tracker."""

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...

    def finish(self) -> None: ...


StartRun = Callable[[str, Mapping[str, Json]], Tracker]
"""Starts a tracker's run from its name and flat settings."""


class NoTracker:
    """Logs nothing."""

    def __init__(self, name: str, settings: Mapping[str, Json]) -> None: ...

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...

    def finish(self) -> None: ...


class TensorBoard:
    """Event files in a new folder for each run."""

    def __init__(self, name: str, settings: Mapping[str, Json]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(_new_folder(TENSORBOARD / name)))
        self.writer.add_text(
            "settings", "\n".join(f"    {key} = {json.dumps(value)}" for key, value in settings.items())
        )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for key, value in metrics.items():
            self.writer.add_scalar(key, value, step)

    def finish(self) -> None:
        self.writer.close()


class MLflow:
    """A run of the experiment `newcomer`, through the client: several runs can be active at once."""

    def __init__(self, name: str, settings: Mapping[str, Json]) -> None:
        import mlflow

        experiment = mlflow.set_experiment(PROJECT)
        self.client: Any = mlflow.MlflowClient()
        self.run_id: str = self.client.create_run(experiment.experiment_id, run_name=name).info.run_id
        for key, value in settings.items():
            self.client.log_param(self.run_id, _mlflow_key(key), value)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for key, value in metrics.items():
            self.client.log_metric(self.run_id, _mlflow_key(key), value, step=step)

    def finish(self) -> None:
        self.client.set_terminated(self.run_id)


class WandB:
    """A run of the project `newcomer`."""

    def __init__(self, name: str, settings: Mapping[str, Json]) -> None:
        import wandb

        self.run: Any = wandb.init(project=PROJECT, name=name, config=dict(settings), reinit="create_new")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.run.log(dict(metrics), step=step)

    def finish(self) -> None:
        self.run.finish()


class Trackio:
    """A run of the project `newcomer`."""

    def __init__(self, name: str, settings: Mapping[str, Json]) -> None:
        import trackio

        self.run: Any = trackio.init(project=PROJECT, name=name, config=dict(settings))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.run.log(dict(metrics), step=step)

    def finish(self) -> None:
        self.run.finish()


TRACKERS: Mapping[str, StartRun] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB, "trackio": Trackio}


LOGS: Mapping[str, str] = {
    "tensorboard": f"{TENSORBOARD}; `tensorboard --logdir {TENSORBOARD}` shows them",
    "mlflow": f"experiment {PROJECT}, where MLFLOW_TRACKING_URI says; `mlflow ui` shows local ones",
    "wandb": f"project {PROJECT}, where WANDB_MODE and its login say",
    "trackio": f"project {PROJECT}; `trackio show` shows them",
}
"""Where each tracker's logs are, and what shows them."""


def find_tracker(name: str | None) -> StartRun:
    """What starts runs of this tracker; None, and all processes but the first, log nothing.

    Raises SettingError for an unknown tracker, MissingExtraError if its library is not installed.
    """
    if name is None:
        return NoTracker
    if name not in TRACKERS:
        raise SettingError(f"--track {name}: no such tracker; {nearest(name, TRACKERS)}")
    with optional_imports():
        import_module(name)
    return TRACKERS[name] if is_first() else NoTracker


def track_recipe(start: StartRun, recipe: Recipe, run: str) -> Tracker:
    """A new run of the tracker for this row and seed, named RECIPE/RUN."""
    return start(f"{recipe.name}/{run}", flat_settings(recipe.resolved()))


def track(events: Iterable[tuple[Key, Event]], start: Callable[[Key], Tracker]) -> Iterator[tuple[Key, Event]]:
    """Yield the events of one or more concurrent runs, told apart by their keys, after logging each to its run's tracker.

    A tracker's run starts with the first event of its key. It is finished by an event that is no Step, Score or StageEnd, or at the
    end of all events.
    """
    runs: dict[Key, _RunLog] = {}
    try:
        for key, event in events:
            if key not in runs:
                runs[key] = _RunLog(start(key))
            runs[key].log(event)
            if not isinstance(event, Step | Score | StageEnd):
                runs.pop(key).tracker.finish()
            yield key, event
    finally:
        for run in runs.values():
            run.tracker.finish()


class _RunLog:
    """Numbers the steps and stages of one run."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.step, self.stage = 0, 1

    def log(self, event: object) -> None:
        self.step += isinstance(event, Step)
        metrics = metrics_of(event)
        if metrics:
            self.tracker.log({**metrics, "stage": self.stage}, self.step)
        self.stage += isinstance(event, StageEnd)


def metrics_of(event: object) -> dict[str, float]:
    """The metrics of one event by name.

    >>> metrics_of(Step("adapt", 3, 10, {"loss": 0.5}))
    {'adapt/loss': 0.5}
    """
    match event:
        case Step():
            return {f"{stage_title(event.part)}/{name}": value for name, value in event.values.items()}
        case Score():
            return {f"{stage_title(event.eval_set)}/{name}": value for name, value in event.values.items()}
        case StageEnd():
            numbers = {k: v for k, v in event.info.items() if isinstance(v, int | float) and not isinstance(v, bool)}
            seconds = {"train_seconds": event.train_seconds, "eval_seconds": event.eval_seconds}
            return {f"stage/{name}": value for name, value in {**numbers, **seconds}.items()}
    return {}


def flat_settings(settings: Mapping[str, Json], prefix: str = "") -> dict[str, Json]:
    """Nested settings under dotted names.

    >>> flat_settings({"seed": 0, "learner": {"rank": 4}})
    {'seed': 0, 'learner.rank': 4}
    """
    flat: dict[str, Json] = {}
    for key, value in settings.items():
        flat |= flat_settings(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _new_folder(folder: Path) -> Path:
    """The folder, or the first of FOLDER-2, FOLDER-3, … that does not exist: two runs in one folder would be drawn as one."""
    names = (folder if n == 1 else folder.with_name(f"{folder.name}-{n}") for n in count(1))
    return next(path for path in names if not path.exists())


def _mlflow_key(key: str) -> str:
    return re.sub(r"[^\w\-./: ]", "_", key)
