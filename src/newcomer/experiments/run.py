"""The outer loop: a learner studies the stages of a stream and sits their exams; what happens is yielded, and written down."""

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
from newcomer.experiments.recipe import LEARNERS, Recipe
from newcomer.settings import Json, changes
from newcomer.store.folder import Store
from newcomer.store.record import RecordWriter, read_record
from newcomer.store.writing import take_lock
from newcomer.streams.stage import Stream
from newcomer.training.checkpoint import Checkpoint
from newcomer.training.learner import Learner, Step
from newcomer.training.processes import is_first

RECORD, STORE, CHECKPOINT = "record.jsonl", "store", "checkpoint"
LIBRARIES = ("newcomer", "torch", "transformers", "numpy", "polars")


@dataclass(frozen=True)
class Score:
    """The result of one exam after one stage."""

    stage: str
    exam: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Finished:
    """A stage is over: the time it took, and what the learner shows of itself."""

    stage: str
    study_seconds: float
    exam_seconds: float
    facts: Mapping[str, Json]


Event = Step | Score | Finished


def run(
    learner: Learner[Any, Any], stream: Stream[Any, Any], done: int = 0, checkpoint: Checkpoint | None = None
) -> Iterator[Event]:
    """Study every stage after the first `done` and sit its exams; see `Learner.study` for the checkpoint."""
    for stage in islice(stream, done, None):
        start = time.perf_counter()
        yield from learner.study(stage, checkpoint)
        studied = time.perf_counter()
        for name, exam in stage.exams.items():
            yield Score(stage.name, name, learner.sit(exam))
        yield Finished(stage.name, studied - start, time.perf_counter() - studied, learner.facts())


def perform(recipe: Recipe, folder: Path) -> Iterator[Event]:
    """Run a recipe in a folder: the record in `record.jsonl`, the learner in `store/`, both complete after every stage.

    In a folder where the same run was cut off it goes on after the last complete stage, or from what a longer one has kept, to the
    same result; where it is finished nothing happens. One that ends before its first stage is complete leaves nothing behind but
    what that stage kept. Raises RecipeError where the folder holds a run of other settings, StoreError where another process is at
    work in it or it cannot be written.
    """
    for part in (STORE, CHECKPOINT, RECORD):
        if (folder / part).is_symlink():
            raise StoreError(f"{folder / part}: is a link, and what it leads to is not this run's; remove it")
    if not is_first():
        yield from _take_part(recipe, folder)
        return
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = take_lock(folder / ".lock")
    except Timeout:
        raise StoreError(
            f"{folder}: another process is at work on this run; wait for it, or choose another --out"
        ) from None
    except OSError as error:
        raise StoreError(f"{folder}: could not be written ({error.strerror or error}); choose another --out") from None
    try:
        yield from _perform(recipe, folder)
    finally:
        _tidy(folder, made)
        lock.release()


def _tidy(folder: Path, made: Sequence[Path]) -> None:
    """Remove what a run made that has written nothing down."""
    record = folder / RECORD
    with suppress(OSError):  # stop at the first that holds something, or where the disk is no longer there
        if record.exists() and record.stat().st_size:
            return
        for file in (record, folder / ".lock"):
            file.unlink(missing_ok=True)
        for place in made:
            place.rmdir()


def _perform(recipe: Recipe, folder: Path) -> Iterator[Event]:
    done, over = _progress(recipe, folder)
    if over:
        return
    stream = recipe.build_stream()
    learner = _learner(recipe, stream, folder / STORE, done)
    record = RecordWriter(folder / RECORD, keep=done)
    if not done:
        record.write(start_event(recipe, stream))
    checkpoint = Checkpoint(folder / CHECKPOINT)
    for event in run(learner, stream, done, checkpoint):
        record.write(_as_json(event))
        if isinstance(event, Finished):
            learner.save(folder / STORE)
            record.commit()
            checkpoint.remove()
        yield event
    record.write({"event": "end"})
    record.commit()


def _take_part(recipe: Recipe, folder: Path) -> Iterator[Event]:
    """Study along with the process that writes; `save` is where it is waited for."""
    done, over = _progress(recipe, folder)
    if over:
        return
    stream = recipe.build_stream()
    learner = _loaded(recipe, folder / STORE, done) if done else recipe.build_learner(stream)
    for event in run(learner, stream, done):
        if isinstance(event, Finished):
            learner.save(folder / STORE)
        yield event


def _progress(recipe: Recipe, folder: Path) -> tuple[int, bool]:
    """How many stages of this run are complete, and whether all are."""
    if not (folder / RECORD).exists():
        return 0, False
    events = list(read_record(folder / RECORD))
    if not events:
        return 0, False
    require_same_data(folder, events[0].get("data"), recipe)
    for key, (there, here) in changes(events[0]["recipe"], recipe.filled()).items():
        change = f"{key} = {there!r} there, {here!r} here"
        raise RecipeError(f"{folder}: holds a run of other settings ({change}); choose another --out or remove it")
    return sum(event["event"] == "stage" for event in events), events[-1]["event"] == "end"


def require_same_data(folder: Path, then: Mapping[str, Json] | None, recipe: Recipe) -> None:
    """Raises RecipeError where the files that the recipe names are not those that `then` is the fingerprint of."""
    if then is not None and have_changed(then, fingerprint(recipe.data, then)):
        raise RecipeError(
            f"{folder}: the files of data '{recipe.data['name']}' have changed since what it holds was made of them; "
            "choose another --out or remove it"
        )


def _learner(recipe: Recipe, stream: Any, store: Path, done: int) -> Learner[Any, Any]:
    with Store(store).held():  # what cannot be written is found before hours of learning
        pass
    if not done:
        Store(store).clear()
        return recipe.build_learner(stream)
    Store(store).truncate(done)
    return _loaded(recipe, store, done)


def _loaded(recipe: Recipe, store: Path, done: int) -> Learner[Any, Any]:
    given: dict[str, Any] = {"backbone": recipe.build_backbone()} if recipe.backbone else {}
    return LEARNERS[recipe.learner["name"]].load(store, stages=done, **given)


def start_event(recipe: Recipe, stream: Stream[Any, Any]) -> dict[str, Json]:
    """What a record begins with: the filled recipe, the stream it made, and on what it ran."""
    return {
        "event": "start",
        "place": recipe.place,
        "recipe": recipe.filled(),
        "data": fingerprint(recipe.data),
        "stream": stream.facts(),
        "versions": {name: _version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        "commit": commit(),
        "machine": machine(),
    }


def machine() -> dict[str, Json]:
    """What a time depends on: processor, its threads for torch, and GPU."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"system": platform.platform(), "processor": _processor(), "threads": torch.get_num_threads(), "gpu": gpu}


def commit() -> str | None:
    """The commit of the checkout that this library runs from, '+' where files in it were changed; None outside of one."""
    here = Path(__file__).parents[1]
    try:
        git = ["git", "-C", str(here)]
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
    name = {Step: "step", Score: "score", Finished: "stage"}[type(event)]
    return {"event": name, **asdict(event)}
