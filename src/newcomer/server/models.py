"""Which versions of the models are served: one file, which every worker looks at before it answers."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from newcomer.errors import LearnerError, StoreError
from newcomer.server.problems import ProblemError
from newcomer.store.states import now
from newcomer.store.writing import write_whole

FILE = "models.json"

FIRST = "v1"
"""Version of the click model that the service was started with."""

VERSIONS = "versions"
"""Folder of the versions that were trained later, among the service's own files."""


class Version(BaseModel):
    """A version of the click model.

    `status`: a trained version gets no items and events; one that prepares gets new ones, and those before are replayed to it; a
    ready one has them all, and may be live.
    """

    model: str
    """Fingerprint of its weights."""
    status: Literal["trained", "preparing", "ready"]
    created: str
    job: str | None = None


class ClickModel(BaseModel):
    """Versions of the click model by name, and what they do."""

    versions: dict[str, Version]
    live: str = FIRST
    shadow: list[str] = []
    """Versions that score after the answer, to be compared."""
    shares: dict[str, float] = {}
    """Shares of the users for whom these versions score instead of the live one."""
    salt: str
    """Makes the users of a share a random sample."""

    def receiving(self) -> list[str]:
        """Versions that get items and events, the live one first."""
        return sorted((name for name, one in self.versions.items() if one.status != "trained"), key=self._order)

    def version(self, name: str) -> Version:
        """The version of this name. Raises ProblemError if there is none."""
        if name not in self.versions:
            known = ", ".join(self.versions)
            raise ProblemError(HTTPStatus.NOT_FOUND, f"version '{name}' is not there: {known}")
        return self.versions[name]

    def go_live(self, name: str) -> None:
        """Let a version score for everybody who is in no other version's share."""
        self.live = name
        self.shadow = [one for one in self.shadow if one != name]
        self.shares.pop(name, None)

    def retire(self, name: str) -> None:
        """Give a version no items and events any more."""
        self.versions[name].status = "trained"
        self.shadow = [one for one in self.shadow if one != name]
        self.shares.pop(name, None)

    def _order(self, name: str) -> tuple[bool, str]:
        return name != self.live, name


class Models(BaseModel):
    """Content of the file."""

    model_config = ConfigDict(extra="forbid")

    click_model: ClickModel | None = None
    stages: dict[str, int] = {}
    """Classifiers that are rolled back: the number of stages that is served."""

    def require_click_model(self) -> ClickModel:
        """The click model, which the service wrote when it started. Raises StoreError if it is gone since."""
        if self.click_model is None:
            raise StoreError(
                f"{FILE} of the service has no click model any more; restore it from a copy, or start the service again"
            )
        return self.click_model


class ModelsFile:
    """The file in the service's own folder. Thread-safe; read again when it has changed."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._read: tuple[object, Models] = (None, Models())

    def read(self) -> Models:
        """The content, not to be changed; the same object as long as the file is the same. Raises StoreError for a damaged file."""
        try:
            stamp = _stamp(self.path)
            before, models = self._read
            if stamp != before:
                models = Models.model_validate_json(self.path.read_bytes()) if stamp else Models()
                self._read = stamp, models
        except (OSError, ValidationError) as error:
            reason = getattr(error, "strerror", None) or "not what was written"
            raise StoreError(f"{self.path}: cannot be read ({reason}); restore it from a copy") from None
        return models

    @contextmanager
    def change(self) -> Iterator[Models]:
        """A copy of the content to be changed, which is written at the end; one process after the other."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_name(f"{FILE}.lock")):
                models = self.read().model_copy(deep=True)
                yield models
                if models != self.read():
                    write_whole(self.path, models.model_dump_json(indent=1))
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written ({error.strerror or error})") from None

    def start(self, model: str) -> ClickModel:
        """The click model's versions, when the service starts with this one.

        Raises StoreError if the file is about another model.
        """
        with self.change() as models:
            if models.click_model is None:
                first = Version(model=model, status="ready", created=now())
                models.click_model = ClickModel(versions={FIRST: first}, salt=secrets.token_hex(8))
            found = models.click_model
        if found.versions[FIRST].model != model:
            raise StoreError(
                f"{self.path}: is about a click model with other weights; give this one a folder of its own (--folder)"
            )
        return found

    def abandon(self, job: str, name: str | None) -> None:
        """Retire the version of a job, or of this name, that was being prepared by a job that has ended."""
        with self.change() as models:
            versions = models.click_model.versions if models.click_model is not None else {}
            for known, version in versions.items():
                if version.status == "preparing" and (version.job == job or known == name):
                    version.status = "trained"

    def has_ready(self, job: str, name: str | None) -> bool:
        """Whether the version of a job, or of this name, is ready."""
        click_model = self.read().click_model
        versions = click_model.versions.items() if click_model is not None else ()
        return any(one.status == "ready" and (one.job == job or known == name) for known, one in versions)

    def require_latest(self, classifier: str) -> None:
        """Raises LearnerError for a classifier that is rolled back: what it learned or forgot would not be served."""
        stages = self.read().stages.get(classifier)
        if stages is not None:
            raise LearnerError(
                f"model '{classifier}' is rolled back to {stages} stages and cannot change; serve its latest stage first "
                f'(POST /models {{"model": "{classifier}", "stages": null}})'
            )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # asked at every request
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
