"""A classifier in service: the model of its store, loaded anew when the store changes.

Modules of classifiers are imported with the first one: a service of a click model starts in half the time without them.
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any

from newcomer.registry import find_learner
from newcomer.server.models import ModelsFile
from newcomer.server.problems import ProblemError
from newcomer.settings import Json
from newcomer.store.folder import Store

if TYPE_CHECKING:
    from newcomer.classes.learner import ClassLearner

CHECK_SECONDS = 1.0
"""Seconds after which the store is looked at again."""


class ServedClassifier:
    """The model of a store. Thread-safe; what another process has learned is served within `CHECK_SECONDS`."""

    def __init__(self, folder: Path, models: ModelsFile, backbone: str | None = None) -> None:
        self.folder, self.name, self.models = folder, folder.resolve().name, models
        self._backbone, self._lock = backbone, Lock()
        self._stages = self._wanted()
        self._learner, self._checked = self.load(self.rolled_back), monotonic()
        self.reads_images = self._learner.backbone.reads_images

    @property
    def rolled_back(self) -> int | None:
        """The number of stages that is served; None: all of them."""
        return self.models.read().stages.get(self.name)

    @property
    def stages(self) -> int:
        """Number of stages in the store."""
        return len(Store(self.folder).manifest().stages)

    def learner(self) -> "ClassLearner":
        """The current model."""
        if monotonic() - self._checked > CHECK_SECONDS:
            self.refresh()
        return self._learner

    def forget(self, name: str) -> None:
        """Remove a class from the store. Raises LearnerError for an unknown class, StoreError while another process writes."""
        self._changed(lambda model: model.forget(name))

    def learn_names(self, names: Mapping[str, str]) -> "ClassLearner":
        """Add classes by name, see `ClassLearner.learn_names`. Raises StoreError while another process writes."""
        return self._changed(lambda model: model.learn_names(names))

    def refresh(self) -> None:
        """Serve what the store and the versions say now."""
        with self._lock:
            self._checked = monotonic()
            stages = self._wanted()
            if stages != self._stages:
                self._stages, self._learner = stages, self.load(self.rolled_back)

    def load(self, stages: int | None = None) -> "ClassLearner":
        """The model after so many stages. Raises StoreError if there are fewer."""
        from newcomer.classes.learner import ClassLearner

        kind = find_learner(Store(self.folder).manifest().learner)
        assert issubclass(kind, ClassLearner)  # see stores
        settings: dict[str, Any] = {} if self._backbone is None else {"backbone": self._backbone}
        return kind.load(self.folder, stages=stages, **settings)

    def _changed(self, change: "Callable[[ClassLearner], ClassLearner]") -> "ClassLearner":
        """The model after a change of the store, which is served from now on."""
        with self._lock, Store(self.folder).held():
            model = change(self.load())
            model.save(self.folder)
            self._stages, self._learner = self._wanted(), model
        return model

    def _wanted(self) -> list[Json]:
        """Digests of the stages to serve."""
        return [stage["sha256"] for stage in Store(self.folder).manifest().stages[: self.rolled_back]]


def find_classifier(models: Mapping[str, ServedClassifier], name: str | None) -> ServedClassifier:
    """The classifier of this name; without a name the only one. Raises ProblemError if there is none, or several."""
    if not models:
        raise ProblemError(HTTPStatus.NOT_FOUND, "no classifier is served")
    if name is None and len(models) > 1:
        detail = f"several classifiers are served; name one by model=…: {', '.join(models)}"
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    if name is not None and name not in models:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"model '{name}' is not served: {', '.join(models)}")
    return models[name] if name is not None else next(iter(models.values()))
