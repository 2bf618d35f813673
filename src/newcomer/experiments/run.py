"""Train and evaluate a learner on the stages of a stream; a run writes its events into a record."""

import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout

from newcomer.data.fingerprint import fingerprint, have_changed
from newcomer.errors import RecipeError, StoreError
from newcomer.experiments.recipe import Recipe
from newcomer.registry import LEARNERS
from newcomer.settings import Json, changes
from newcomer.store.folder import Store
from newcomer.store.record import RecordWriter, read_record
from newcomer.store.writing import take_lock
from newcomer.streams.stage import Stream
from newcomer.training.checkpoint import Checkpoint
from newcomer.training.launcher import is_first
from newcomer.training.learner import MACHINE_SETTINGS, Learner, Step

RECORD, STORE, CHECKPOINT = "record.jsonl", "store", "checkpoint"
LIBRARIES = ("newcomer", "torch", "transformers", "numpy", "polars")


@dataclass(frozen=True)
class Score:
    """The scores on one evaluation set after one stage."""

    stage: str
    eval_set: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class StageEnd:
    """The end of a stage: its wall-clock times, and the learner's `info`."""

    stage: str
    train_seconds: float
    eval_seconds: float
    info: Mapping[str, Json]


Event = Step | Score | StageEnd


def run(
    learner: Learner[Any, Any], stream: Stream[Any, Any], done: int = 0, checkpoint: Checkpoint | None = None
) -> Iterator[Event]:
    """Train on every stage after the first `done` and evaluate on its evaluation sets; see `Learner.fit_stage` for `checkpoint`."""
    for stage in islice(stream, done, None):
        start = time.perf_counter()
        yield from learner.fit_stage(stage, checkpoint)
        trained = time.perf_counter()
        for name, data in stage.eval_sets.items():
            yield Score(stage.name, name, learner.evaluate(data))
        yield StageEnd(stage.name, trained - start, time.perf_counter() - trained, learner.info())


def run_recipe(recipe: Recipe, folder: Path) -> Iterator[Event]:
    """Run a recipe in a folder: the record in `record.jsonl`, the learner in `store/`, both complete after every stage.

    An interrupted run of the same recipe is resumed after its last complete stage, or from the checkpoint within a stage, with the
    same result; a finished run is left as it is. A run that stops before its first complete stage leaves nothing behind but a
    checkpoint. Raises RecipeError if the folder holds a run of other settings, StoreError if another process uses it or it cannot
    be written.
    """
    for part in (STORE, CHECKPOINT, RECORD):
        if (folder / part).is_symlink():
            raise StoreError(f"{folder / part}: is a symbolic link, its target may belong to another run; remove it")
    if not is_first():
        yield from _run_other_rank(recipe, folder)
        return
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = take_lock(folder / ".lock")
    except Timeout:
        raise StoreError(
            f"{folder}: another process is working on this run; wait for it, or choose another --out"
        ) from None
    except OSError as error:
        raise StoreError(f"{folder}: could not be written ({error.strerror or error}); choose another --out") from None
    try:
        yield from _run_first_rank(recipe, folder)
    finally:
        _remove_empty_run(folder, created)
        lock.release()


def _remove_empty_run(folder: Path, created: Sequence[Path]) -> None:
    """Remove the files and the `created` folders of a run whose record is empty."""
    record = folder / RECORD
    with suppress(OSError):  # stop at the first folder that is not empty, or if the disk is gone
        if record.exists() and record.stat().st_size:
            return
        for file in (record, folder / ".lock"):
            file.unlink(missing_ok=True)
        for path in created:
            path.rmdir()


def _run_first_rank(recipe: Recipe, folder: Path) -> Iterator[Event]:
    """The only process, or rank 0 of several: it writes the record and the store."""
    done, finished = _progress(recipe, folder)
    if finished:
        return
    stream = recipe.build_stream()
    learner = _resume_or_build(recipe, stream, folder / STORE, done)
    record = RecordWriter(folder / RECORD, keep=done)
    if not done:
        record.write(start_event(recipe, stream))
    checkpoint = Checkpoint(folder / CHECKPOINT)
    for event in run(learner, stream, done, checkpoint):
        record.write(_as_json(event))
        if isinstance(event, StageEnd):
            learner.save(folder / STORE)
            record.commit()
            checkpoint.remove()
        yield event
    record.write({"event": "end"})
    record.commit()


def _run_other_rank(recipe: Recipe, folder: Path) -> Iterator[Event]:
    """Train along with rank 0, which writes; `save` is where ranks are synchronised."""
    done, finished = _progress(recipe, folder)
    if finished:
        return
    stream = recipe.build_stream()
    learner = _load(recipe, folder / STORE, done) if done else recipe.build_learner(stream)
    for event in run(learner, stream, done, Checkpoint(folder / CHECKPOINT)):
        if isinstance(event, StageEnd):
            learner.save(folder / STORE)
        yield event


def _progress(recipe: Recipe, folder: Path) -> tuple[int, bool]:
    """The number of complete stages of this run, and whether it is finished."""
    if not (folder / RECORD).exists():
        return 0, False
    events = list(read_record(folder / RECORD))
    if not events:
        return 0, False
    require_same_data(folder, events[0].get("data"), recipe)
    for key, (there, here) in changes(events[0]["recipe"], recipe.resolved()).items():
        change = f"{key} = {there!r} there, {here!r} here"
        raise RecipeError(f"{folder}: holds a run of other settings ({change}); choose another --out or remove it")
    return sum(event["event"] == "stage" for event in events), events[-1]["event"] == "end"


def require_same_data(folder: Path, saved: Mapping[str, Json] | None, recipe: Recipe) -> None:
    """Raises RecipeError if the fingerprint of the recipe's data files is no longer `saved`."""
    if saved is not None and have_changed(saved, fingerprint(recipe.data, saved)):
        raise RecipeError(
            f"{folder}: the files of data '{recipe.data['name']}' have changed since this folder was written; "
            "choose another --out or remove it"
        )


def _resume_or_build(recipe: Recipe, stream: Any, store: Path, done: int) -> Learner[Any, Any]:
    with Store(store).held():  # fail here, not after hours of training, if the store cannot be written
        pass
    if not done:
        Store(store).clear()
        return recipe.build_learner(stream)
    Store(store).truncate(done)
    return _load(recipe, store, done)


def _load(recipe: Recipe, store: Path, done: int) -> Learner[Any, Any]:
    backbone: dict[str, Any] = {"backbone": recipe.build_backbone()} if recipe.backbone else {}
    machine = {key: value for key, value in recipe.learner.items() if key in MACHINE_SETTINGS}  # the store has none
    return LEARNERS[recipe.learner["name"]].load(store, stages=done, **backbone, **machine)


def start_event(recipe: Recipe, stream: Stream[Any, Any]) -> dict[str, Json]:
    """The first event of a record: the resolved recipe, information on data and stream, versions and machine."""
    return {
        "event": "start",
        "position": recipe.position,
        "recipe": recipe.resolved(),
        "data": fingerprint(recipe.data),
        "stream": stream.info(),
        "versions": {name: _version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        "commit": commit(),
        "machine": machine(),
    }


def machine() -> dict[str, Json]:
    """What timings depend on: operating system, processor, torch threads and GPU."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"system": platform.platform(), "processor": _processor(), "threads": torch.get_num_threads(), "gpu": gpu}


def commit() -> str | None:
    """The git commit of this library's checkout, with '+' if files were changed; None outside of a checkout."""
    package = Path(__file__).parents[1]
    try:
        git = ["git", "-C", str(package)]
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _as_json(event: Event) -> dict[str, Json]:
    name = {Step: "step", Score: "score", StageEnd: "stage"}[type(event)]
    return {"event": name, **asdict(event)}
