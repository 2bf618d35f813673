"""Visits: a user in a context, candidate items, what they click and when their events arrive. Functions of seed and number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from newcomer.data.datasets.simulated_clicks import CONTEXT_FIELDS, SCHEMA, item_id, value_name
from newcomer.seeds import spawn
from newcomer.server.bodies import Explore
from newcomer.server.request_ids import event_id
from newcomer.settings import Json
from newcomer.simulation.world import World
from newcomer.training.settings import Share


@dataclass(frozen=True)
class Traffic:
    """What visits are like."""

    candidates: PositiveInt = 50
    shown: PositiveInt = 5
    """Candidates that are shown: those with the highest scores."""
    exploration: Share = 0.1
    """Share of visits that are shown random candidates."""
    explore: Explore | None = None
    """How the service orders the candidates of the other visits; None: by score."""
    strength: NonNegativeFloat = 1.0
    """Factor on the std in `explore`."""
    click_delay: NonNegativeInt = 50
    """Mean delay of a click, in visits; an impression without a click is sent after twice as many."""
    new_item_every: PositiveInt = 20
    """Visits from one new item to the next."""
    new_item_seconds: NonNegativeFloat = 0.0
    """Seconds from one new item to the next, in place of visits; 0: visits count."""
    repeated: Share = 0.02
    """Share of events that are sent twice."""


@dataclass(frozen=True)
class Event:
    """An impression with or without a click, known to the service by the id of its request."""

    row: Mapping[str, Json]
    request_id: str

    def to_send(self) -> dict[str, Json]:
        """Without what the request id carries."""
        columns = (SCHEMA.item, SCHEMA.label, SCHEMA.time)
        return {name: self.row[name] for name in columns} | {"request_id": self.request_id}

    def to_replay(self) -> dict[str, Json]:
        """All values, and the id under which the service counts the event."""
        return {**self.row, "event_id": event_id(self.request_id)}


@dataclass(frozen=True)
class Visit:
    """A user in a context with candidates, and everything that chance decides about it."""

    number: int
    user: Mapping[str, str]
    context: Mapping[str, str]
    items: NDArray[np.int64]
    """Indices of the candidates."""
    truth: NDArray[np.float64]
    """Click probabilities of the candidates."""
    clicks: NDArray[np.bool_]
    """Whether a candidate is clicked if it is shown."""
    delays: NDArray[np.int64]
    """Visits until a candidate's event arrives."""
    repeats: NDArray[np.bool_]
    """Whether a candidate's event is sent twice."""
    explores: bool
    random_order: NDArray[np.int64]

    @classmethod
    def draw(cls, world: World, traffic: Traffic, number: int, present: int) -> Self:
        """The visit of this number, among the first `present` items."""
        chance = spawn(world.seed, "visit", number)
        user = int(torch.randint(world.users, (1,), generator=chance))
        context = torch.randint(4, (len(CONTEXT_FIELDS),), generator=chance).numpy()
        items = torch.randperm(present, generator=chance)[: traffic.candidates].numpy()
        count = len(items)
        explore, repeat, click, delay = (
            torch.rand(size, generator=chance, dtype=torch.float64).numpy() for size in (1, count, count, count)
        )
        truth = world.truth.probability(items, np.full(count, user), np.repeat(context[:, None], count, axis=1))
        clicks = click < truth
        window = 2 * traffic.click_delay
        return cls(
            number,
            world.truth.user_row(user),
            {name: value_name(name, value) for name, value in zip(CONTEXT_FIELDS, context, strict=True)},
            items,
            truth,
            clicks,
            np.where(clicks, (delay * (window + 1)).astype(np.int64), window),
            repeat < traffic.repeated,
            bool(explore[0] < traffic.exploration),
            torch.randperm(count, generator=chance).numpy(),
        )

    @property
    def candidates(self) -> list[str]:
        """Ids of the candidates."""
        return [item_id(item) for item in self.items]

    def shown(self, scores: NDArray[np.float64], order: Sequence[int] | None, count: int) -> NDArray[np.int64]:
        """Indices of the candidates that are shown: random ones, the first in the service's order, or the highest scores."""
        if self.explores:
            return self.random_order[:count]
        return (np.argsort(-scores, kind="stable") if order is None else np.array(order))[:count]

    def event(self, candidate: int, request_id: str, first_time: int) -> Event:
        """The event of a shown candidate."""
        return Event(
            {
                SCHEMA.item: item_id(self.items[candidate]),
                **self.user,
                **self.context,
                SCHEMA.label: int(self.clicks[candidate]),
                SCHEMA.time: first_time + self.number,
            },
            request_id,
        )
