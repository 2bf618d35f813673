"""Base class of learners: fit on stages, evaluate, save and load."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from threading import get_ident
from typing import Any, ClassVar, Generic, Self, TypeVar

from newcomer.errors import LearnerError, NewcomerError, SettingError, StoreError, nearest
from newcomer.nn.ctr.row_shards import served, shards_of
from newcomer.settings import CHECKED, Json, checked, fill
from newcomer.settings import changes as differences
from newcomer.store.download import local_folder
from newcomer.store.entry import Entry, within_memory
from newcomer.store.folder import Manifest, Store, differing
from newcomer.streams.stage import Stage
from newcomer.training.checkpoint import Checkpoint
from newcomer.training.launcher import is_first
from newcomer.training.processes import Processes

TrainData = TypeVar("TrainData")
EvalData = TypeVar("EvalData")


MACHINE_SETTINGS = ("device", "cache_gib", "torch_compile", "gradient_checkpointing", "shard_backbone", "shard_tables")
"""Settings of the machine, not of the model: a store does not have them."""


@dataclass(frozen=True)
class Step:
    """Progress of training: step `step` of `steps` in this part of a stage, with the metrics logged there."""

    part: str
    step: int
    steps: int
    values: Mapping[str, float] = field(default_factory=dict)


Progress = Callable[[Step], object]
"""Callback that receives every step of training."""


class Learner(ABC, Generic[TrainData, EvalData]):
    """A learner is built from settings and changes only by fitting stages.

    Each stage adds one entry. Settings and entries determine the learner completely, so a store holds just these.
    A subclass implements training (`_fit_stage`), which returns the stage's entry, and how entries are applied (`_apply_entries`).
    """

    name: ClassVar[str]
    """Name of the learner in recipes and stores."""

    fixed_settings: ClassVar[Collection[str] | None] = None
    """Settings that cannot change after the first stage; None: all except `MACHINE_SETTINGS`."""

    processes: Processes
    """Those that train it together."""

    settings: dict[str, Json]
    """The keyword arguments it was built with, flat and with defaults; written by `settings.checked`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check the settings of every learner's constructor, those of users' own subclasses too."""
        super().__init_subclass__(**kwargs)
        init = vars(cls).get("__init__")
        if init is not None and getattr(cls, "name", None) and not hasattr(init, CHECKED):
            setattr(cls, "__init__", checked(init))  # noqa: B010  # mypy forbids to assign a method

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.checkpoint = Checkpoint()
        self._training_thread: int | None = None
        """Id of the thread that is fitting a stage."""

    def fit_stage(self, stage: Stage[TrainData, EvalData], checkpoint: Checkpoint | None = None) -> Iterator[Step]:
        """Fit one stage, yielding after every step; if interrupted or failed, the previous state is restored.

        With a `checkpoint`, training resumes from it; the caller removes it once the stage is saved.
        Raises LearnerError while another thread is fitting this learner.
        """
        self._require_not_training()
        self._training_thread = get_ident()
        self.checkpoint = checkpoint or Checkpoint()
        try:
            entry = yield from self._fit_stage(stage)
        except BaseException:
            if not sys.is_finalizing():  # at exit torch is half unloaded
                self._reset()
                self._apply_entries(self.entries)
            self._training_thread = None
            raise
        self._append(entry)
        self._training_thread = None

    def _append(self, entry: Entry) -> None:
        """Add the entry of a stage that is complete."""
        self.entries = within_memory([*self.entries, entry])

    def _require_not_training(self) -> None:
        """Raises LearnerError while another thread is fitting: the weights are then neither the old nor the new model."""
        if self._training_thread not in (None, get_ident()):
            raise LearnerError(
                f"this {type(self).__name__} is being trained by another thread; load it from its store a second time to use it "
                "meanwhile"
            )

    @abstractmethod
    def evaluate(self, eval_set: EvalData) -> dict[str, float]:
        """Metrics by name on one evaluation set. Does not change the learner."""

    def info(self) -> dict[str, Json]:
        """Information about the current learner, for reports."""
        return {}

    def save(self, folder: str | Path) -> None:
        """Write the learner as a store; a store of an earlier state of the same learner is extended.

        Of several processes the first one writes, and the others wait. Raises StoreError: see `Store.write`.
        """
        is_first = self.processes.index == 0
        with served([shard for entry in self.entries for shard in shards_of(entry.tensors)], is_first):
            if is_first:
                Store(folder).write(self._manifest(), self.entries)
        self.processes.agree("save")

    @classmethod
    def load(cls, folder: str | Path, *, stages: int | None = None, **changes: Any) -> Self:
        """The learner that was saved here, after its first `stages` stages (all by default).

        `changes` says where that lies which the store names but does not hold, e.g. `backbone="/models/vit"` on another machine
        (it is looked for where it was, and beside the store), and which settings are to be others from now on, e.g. `epochs=5` or
        `head="ridge"`.
        Raises StoreError for a damaged, newer or another learner's store, and if a dependency is no longer the same;
        SettingError for a setting that is unknown or that cannot change.
        """
        store = Store(folder)
        manifest = store.manifest()
        if manifest.learner != cls.name:
            raise StoreError(f"{folder}: holds a model of '{manifest.learner}', not of '{cls.name}'")
        for key in changes:
            if key not in (known := [*manifest.settings, *MACHINE_SETTINGS, *manifest.depends_on]):
                raise SettingError(f"{key} is not a setting of {cls.__name__}; {nearest(key, known)}")
        entries = store.entries(stages)
        given = {key: changes.pop(key) for key in [*changes] if key in manifest.depends_on}
        saved = {key: value for key, value in manifest.settings.items() if key not in MACHINE_SETTINGS}
        settings = fill(cls, {**saved, **changes}, str(folder), provided=manifest.depends_on)
        # settings that are newer than the store had no effect on it
        older = fill(cls, saved, str(folder), provided=manifest.depends_on)
        for key, (was, now) in differences(older, settings).items():
            if entries and key not in MACHINE_SETTINGS and (cls.fixed_settings is None or key in cls.fixed_settings):
                raise SettingError(f"{folder}: {key} = {was!r} there and cannot become {now!r}; train a new model")
        with _store_errors(folder):
            learner = cls._from_manifest(manifest.depends_on, settings, {**given, "store": Path(folder)})
        for key, (was, now) in differing(manifest.depends_on, learner._depends_on()).items():
            raise StoreError(
                f"{folder}: a dependency has changed: {key} was {was!r}, is {now!r}; put it back as it was, or "
                "train a new model"
            )
        with _store_errors(folder):
            learner._apply_entries(entries)
            learner.entries = entries
        return learner

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None, **settings: Any) -> Self:
        """The learner saved in this folder, or in this repository of the Hugging Face hub ('user/name').

        `revision`: branch, tag or commit of the repository. `settings`: as `changes` of `load`.
        Raises StoreError for a repository that cannot be downloaded, and as `load` does.
        """
        if not hasattr(cls, "name"):
            raise SettingError(f"{cls.__name__} is the base of several learners; use newcomer.load")
        return cls.load(local_folder(source, revision), **settings)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload model with newcomer",
        metrics: Mapping[str, float] | None = None,
    ) -> str:
        """Upload the learner to this repository of the Hugging Face hub. Returns the URL of the commit.

        What is uploaded, and the parameters: see `newcomer.hub.push_to_hub`.
        """
        push = import_module("newcomer.hub").push_to_hub  # by name: it knows the learners, so it is above them
        url: str = push(
            self,
            repo_id,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
            metrics=metrics,
        )
        return url

    def _manifest(self) -> Manifest:
        settings = {key: value for key, value in self.settings.items() if key not in MACHINE_SETTINGS}
        return Manifest(self.name, settings, self._depends_on())

    @abstractmethod
    def _reset(self) -> None:
        """Reset to the state before the first stage."""

    @abstractmethod
    def _fit_stage(self, stage: Stage[TrainData, EvalData]) -> Generator[Step, None, Entry]: ...

    @abstractmethod
    def _apply_entries(self, entries: Sequence[Entry]) -> None:
        """Become, from the state before the first stage, what these stages have made: their additions, and the last state."""

    @abstractmethod
    def _depends_on(self) -> dict[str, Json]: ...

    @classmethod
    @abstractmethod
    def _from_manifest(
        cls, depends_on: Mapping[str, Json], settings: Mapping[str, Json], given: Mapping[str, Any]
    ) -> Self: ...


def locked(folder: Path) -> AbstractContextManager[None]:
    """Hold the lock of a store that is trained, see `Store.held`; of several processes the first holds it."""
    return Store(folder).held() if is_first() else nullcontext()


@contextmanager
def _store_errors(folder: str | Path) -> Iterator[None]:
    """Turn an error while building a learner from a foreign store into a one-line StoreError."""
    try:
        yield
    except NewcomerError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, AssertionError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise StoreError(
            f"{folder}: does not hold what its learner needs ({reason}); restore the folder from a copy"
        ) from error
