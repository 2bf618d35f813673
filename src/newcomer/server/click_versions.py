"""The open versions of a click model: which of them scores for whom, and which get items and events."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from newcomer.data.canonical import canonical_name
from newcomer.errors import DataError, StoreError
from newcomer.items.learner import saved_calibration
from newcomer.items.serving.service import ItemService, fingerprint
from newcomer.server.configuration import ServeConfig
from newcomer.server.models import FIRST, VERSIONS, ClickModel, ModelsFile
from newcomer.store.sql import sqlite_url

log = logging.getLogger("newcomer.server")

MAX_AGE = 0.5
"""Seconds for which a worker scores with a state that another worker may have changed."""


@dataclass(frozen=True)
class Serving:
    """Versions at one moment."""

    live: ItemService
    others: Mapping[str, ItemService]
    """Versions besides the live one that get items and events, by name: one of those that share their states."""
    shadow: Mapping[str, ItemService]
    shares: Sequence[tuple[float, ItemService]]
    """Versions with a share, each up to this point of [0, 1]."""
    salt: str

    def for_user(self, user: object) -> ItemService:
        """The version that scores for this user: always the same while shares are; for nobody in particular the live one."""
        if not self.shares:
            return self.live
        try:
            name = canonical_name(user)
        except DataError:  # is refused when it is read
            name = None
        if name is None:
            return self.live
        point = position(self.salt, name)
        return next((service for end, service in self.shares if point < end), self.live)


def position(salt: str, user: str) -> float:
    """A point of [0, 1) for a user, uniformly distributed over users."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{user}".encode(errors="surrogatepass")).digest()[:6]) / 2**48


class ClickVersions:
    """The versions of the click model in this store. Thread-safe."""

    def __init__(self, config: ServeConfig, folder: Path, models: ModelsFile) -> None:
        self.config, self.folder, self.models = config, folder, models
        self._lock, self._open = Lock(), dict[str, ItemService]()
        models.start(fingerprint(folder))
        self._serving, self._seen = self._refreshed(), models.read()

    def current(self) -> Serving:
        """The versions, of a moment ago if another thread is opening one just now."""
        try:
            if self.models.read() is not self._seen and self._lock.acquire(blocking=False):
                try:
                    self._refresh()
                finally:
                    self._lock.release()
        except StoreError as error:
            log.error("%s", error)
        return self._serving

    def latest(self) -> Serving:
        """The versions of now. Raises StoreError if that is unknown."""
        with self._lock:
            self._refresh()
            return self._serving

    def _opened(self, name: str) -> ItemService:
        """A version. Raises StoreError if it cannot be opened, or is not what it was."""
        click_model = self.models.read().require_click_model()
        if name not in self._open:
            folder = version_folder(self.config, self.folder, name)
            if (model := fingerprint(folder)) != click_model.versions[name].model:
                raise StoreError(f"{folder}: holds other weights than version '{name}' has; restore it from a copy")
            sibling = next((service for service in self._open.values() if service.model == model), None)
            if sibling is None:
                service = ItemService.open(folder, states_url(self.config, self.folder))
                service.max_age = MAX_AGE
            else:
                service = sibling.with_calibration(saved_calibration(folder))
            self._open[name] = service
        self._open[name].headers()  # imports the trained items
        return self._open[name]

    def close(self) -> None:
        """Close the databases."""
        for service in self._open.values():
            service.close()

    def _refresh(self) -> None:
        models = self.models.read()
        if models is not self._seen:
            self._serving, self._seen = self._refreshed(), models

    def _refreshed(self) -> Serving:
        click_model = self.models.read().require_click_model()
        live = self._opened(click_model.live)
        others = dict[str, ItemService]()
        for name in click_model.receiving()[1:]:
            try:
                others[name] = self._opened(name)
            except StoreError as error:
                log.error("%s; it gets no events until the job 'replay' is done", error, extra={"model": name})
                self._retire(name)
        for name in [name for name in self._open if name not in others and name != click_model.live]:
            self._open.pop(name).close()  # a request that still uses it opens a connection anew
        return _serving(click_model, live, others)

    def _retire(self, name: str) -> None:
        """A version that misses events is not ready any more."""
        with self.models.change() as models:
            if (
                models.click_model is not None
                and name in models.click_model.versions
                and name != models.click_model.live
            ):
                models.click_model.retire(name)


def version_folder(config: ServeConfig, first: Path, name: str) -> Path:
    """The store of a version."""
    return first if name == FIRST else config.own_folder / VERSIONS / name


def states_url(config: ServeConfig, first: Path) -> str:
    """The database of the states of all versions."""
    return config.states or sqlite_url(first / "items.db")


def _serving(click_model: ClickModel, live: ItemService, others: Mapping[str, ItemService]) -> Serving:
    end, shares = 0.0, list[tuple[float, ItemService]]()
    for name in sorted(click_model.shares):
        end += click_model.shares[name]
        if name in others:
            shares.append((end, others[name]))
    shadow = {name: others[name] for name in click_model.shadow if name in others}
    models, writes = {live.model}, dict[str, ItemService]()
    for name, service in others.items():
        if service.model not in models:
            models.add(service.model)
            writes[name] = service
    return Serving(live, writes, shadow, shares, click_model.salt)
