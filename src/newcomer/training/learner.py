"""What every learner is: it studies stages, sits exams, and can be written down and read again."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import get_ident
from typing import Any, ClassVar, Generic, Self, TypeVar

from newcomer.errors import LearnerError, NewcomerError, SettingError, StoreError, nearest
from newcomer.settings import Json, fill
from newcomer.settings import changes as differences
from newcomer.store.folder import Entry, Manifest, Store, differing
from newcomer.streams.stage import Stage
from newcomer.training.checkpoint import Checkpoint
from newcomer.training.processes import is_first

Lesson = TypeVar("Lesson")
Exam = TypeVar("Exam")


HERE = ("device", "cache_gib", "compile")
"""Settings that belong to a machine and not to a model: a store does not hand them on."""


@dataclass(frozen=True)
class Step:
    """One gradient step (or its like) of `steps` in this part of a stage, with what was seen there."""

    part: str
    step: int
    steps: int
    values: Mapping[str, float] = field(default_factory=dict)


class Learner(ABC, Generic[Lesson, Exam]):
    """A learner is built from settings, and is then changed by nothing but the stages it studies.

    Each stage leaves one entry, what it added; settings and entries together are the learner, so a store is made of them and
    nothing else. A subclass says what a stage does (`_study`), what it added (`_entry`) and how that is taken up (`_absorb`).
    """

    name: ClassVar[str]
    """What recipes and stores call this learner."""

    fixed: ClassVar[Collection[str] | None] = None
    """Settings that cannot change once something was learned; None: none can but those of `HERE`."""

    settings: dict[str, Json]
    """The keyword arguments it was built with, defaults filled in; `settings.checked` writes them."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.checkpoint = Checkpoint()
        self._teacher: int | None = None
        """The thread that has it study a stage."""

    def study(self, stage: Stage[Lesson, Exam], checkpoint: Checkpoint | None = None) -> Iterator[Step]:
        """Learn one stage, yielding after every step; stopped half-way or failed, the learner is what it was before.

        With a `checkpoint` a long stage goes on from what is kept there; the caller removes it once the stage is saved.
        Raises LearnerError while another thread has it study.
        """
        self._require_rest()
        self._teacher = get_ident()
        self.checkpoint = checkpoint or Checkpoint()
        try:
            yield from self._study(stage)
            entry = self._entry(stage)
        except BaseException:
            if (
                not sys.is_finalizing()
            ):  # a script that ends half-way: nobody asks this learner any more, and torch is half gone
                self._clear()
                for entry in self.entries:
                    self._absorb(entry)
            self._teacher = None
            raise
        self.entries.append(entry)
        self._teacher = None

    def _require_rest(self) -> None:
        """Raises LearnerError while another thread has it study: what it is then is neither the old model nor the new one."""
        if self._teacher not in (None, get_ident()):
            raise LearnerError(
                f"this {type(self).__name__} is being taught by another thread; load it from its store a second time to use it "
                "meanwhile"
            )

    @abstractmethod
    def sit(self, exam: Exam) -> dict[str, float]:
        """Scores by name on one exam. Changes nothing."""

    def facts(self) -> dict[str, Json]:
        """What a report would show of the learner as it is now."""
        return {}

    def save(self, folder: str | Path) -> None:
        """Write the learner as a store; a store of an earlier state of the same learner is extended.

        Of several processes the first one writes. Raises StoreError: see `Store.write`.
        """
        if is_first():
            Store(folder).write(self._manifest(), self.entries)

    @classmethod
    def load(cls, folder: str | Path, *, stages: int | None = None, **changes: Any) -> Self:
        """The learner that was saved here, after its first `stages` stages (all by default).

        `changes` says where that lies which the store names but does not hold, e.g. `backbone="/models/vit"` on another machine
        (it is looked for where it was, and beside the store), and which settings are to be others from now on, e.g. `epochs=5` or
        `head="ridge"`.
        Raises StoreError for a damaged, newer or another learner's store, and where what it stands on is no longer the same;
        SettingError for a setting that is unknown or that cannot change.
        """
        store = Store(folder)
        manifest = store.manifest()
        if manifest.learner != cls.name:
            raise StoreError(f"{folder}: holds a model of '{manifest.learner}', not of '{cls.name}'")
        for key in changes:
            if key not in (known := [*manifest.settings, *manifest.stands_on]):
                raise SettingError(f"{key} is not a setting of {cls.__name__}; {nearest(key, known)}")
        entries = store.entries(stages)
        given = {key: changes.pop(key) for key in [*changes] if key in manifest.stands_on}
        saved = {key: value for key, value in manifest.settings.items() if key not in HERE}
        settings = fill(cls, {**saved, **changes}, str(folder), provided=manifest.stands_on)
        for key, (was, now) in differences(manifest.settings, settings).items():
            if entries and key not in HERE and (cls.fixed is None or key in cls.fixed):
                raise SettingError(f"{folder}: {key} = {was!r} there and cannot become {now!r}; teach a new model")
        with _of_this_kind(folder):
            learner = cls._rebuild(manifest.stands_on, settings, {**given, "store": Path(folder)})
        for key, (was, now) in differing(manifest.stands_on, learner._stands_on()).items():
            raise StoreError(
                f"{folder}: what it stands on has changed: {key} was {was!r}, is {now!r}; put it back as it was, or "
                "teach a new model"
            )
        with _of_this_kind(folder):
            for entry in entries:
                learner._absorb(entry)
                learner.entries.append(entry)
        return learner

    def _manifest(self) -> Manifest:
        return Manifest(self.name, self.settings, self._stands_on())

    @abstractmethod
    def _clear(self) -> None:
        """Back to before the first stage."""

    @abstractmethod
    def _study(self, stage: Stage[Lesson, Exam]) -> Iterator[Step]: ...

    @abstractmethod
    def _entry(self, stage: Stage[Lesson, Exam]) -> Entry: ...

    @abstractmethod
    def _absorb(self, entry: Entry) -> None: ...

    @abstractmethod
    def _stands_on(self) -> dict[str, Json]: ...

    @classmethod
    @abstractmethod
    def _rebuild(
        cls, stands_on: Mapping[str, Json], settings: Mapping[str, Json], given: Mapping[str, Any]
    ) -> Self: ...


@contextmanager
def _of_this_kind(folder: str | Path) -> Iterator[None]:
    """Whatever a store of another maker holds: what a learner cannot be built from is one line."""
    try:
        yield
    except NewcomerError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, AssertionError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise StoreError(
            f"{folder}: does not hold what its learner needs ({reason}); restore the folder from a copy"
        ) from error
