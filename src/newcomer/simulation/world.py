"""The simulated world that visits a service: its items, its users, the model to serve."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any

from newcomer.client import Client, ServiceError
from newcomer.data.datasets.simulated_clicks import SCHEMA, ClickWorld, item_id, simulate_click_log
from newcomer.errors import SettingError, StoreError
from newcomer.items.methods.emerg import EmerG
from newcomer.store.folder import Store
from newcomer.training.learner import Progress

LEARNER: dict[str, Any] = {
    "layers": 1,
    "tower": [],
    "init_std": 0.3,
    "pretrain_epochs": 6,
    "pretrain_lr": 5e-3,
    "residual_l2": 0.01,
    "id_dropout": 0.0,
    "warmup_events": "all",
}
"""Settings of the model: those of the recipe `world`, and states that do not depend on how events are grouped."""


@dataclass(frozen=True)
class World:
    """The world of a seed: old items, which the served model has learned, and new ones, which arrive later."""

    seed: int = 0
    old_items: int = 300
    old_events: int = 130
    new_items: int = 300
    users: int = 1000

    @cached_property
    def truth(self) -> ClickWorld:
        """Features and click probabilities."""
        return ClickWorld.draw(items=self.old_items + self.new_items, users=self.users, seed=self.seed)

    @property
    def first_time(self) -> int:
        """Time of the first event after training."""
        return self.old_items * self.old_events

    def train(self, folder: Path, progress: Progress | None = None, **settings: Any) -> None:
        """Train a click model on the old items' events and save it. Raises StoreError if the folder holds a model."""
        if Store(folder).exists():
            raise StoreError(f"{folder}: holds a model already; choose another folder")
        log = simulate_click_log(
            old_items=self.old_items,
            old_events=self.old_events,
            new_items=self.new_items,
            new_events=0,
            users=self.users,
            seed=self.seed,
        )
        EmerG(SCHEMA, **LEARNER | settings).learn(log, progress).save(folder)

    def require_served(self, client: Client) -> None:
        """Raises SettingError if the service has not this world's old items, with their features."""
        if missing := {item_id(item) for item in range(self.old_items)} - set(client.items()):
            raise SettingError(f"the service does not know item '{min(missing)}' of the simulated world; {self._then}")
        self.add(client, range(self.old_items))

    def add(self, client: Client, items: Iterable[int]) -> list[dict[str, str]]:
        """Register items of the world; their rows. Raises SettingError if the service has other items by these names."""
        rows = [self.truth.item_row(item) for item in items]
        try:
            answer = client.add(rows, replace=False)
        except ServiceError as error:
            if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            raise self._other(str(error)) from None
        if answer.refused:
            raise self._other(answer.refused[0].detail)
        return rows

    def _other(self, detail: str) -> SettingError:
        return SettingError(f"the service has items of another world ({detail}); {self._then}")

    @property
    def _then(self) -> str:
        return f"serve the model of `newcomer simulate --train FOLDER --seed {self.seed}`"
