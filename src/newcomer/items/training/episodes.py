"""Episodes of meta-learning: support and query events of old items."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from newcomer.items.padding import PaddedBatch
from newcomer.shapes import Int, Tensor
from newcomer.training.fit import batches

PAIRS = 3
"""(support, query) pairs of consecutive quarters of an item's events: 1 → 2, 2 → 3, 3 → 4."""


@dataclass(frozen=True)
class Episodes:
    """A batch of episodes: per item, support events from one quarter and query events from the next."""

    support: PaddedBatch
    query: PaddedBatch

    def at(self, episodes: Sequence[int]) -> "Episodes":
        """Some of the episodes."""
        return Episodes(self.support.at(episodes), self.query.at(episodes))


class Quarters:
    """Each item's events in four equal parts by time; `item`: each event's item row, events sorted by time."""

    def __init__(self, item: Int[Tensor, " row"]) -> None:
        self.rows = torch.argsort(item, stable=True)
        self.counts = torch.bincount(item)
        self.starts = self.counts.cumsum(0) - self.counts

    def episode_batches(self, size: int, epochs: int, seed: int, stage: str) -> list[list[int]]:
        """Every (item, pair) once an epoch, in batches of `size`: item * PAIRS + pair.

        Items without an event in every quarter do not play.
        """
        items: list[int] = (self.counts > PAIRS).nonzero()[:, 0].tolist()
        pairs = batches(len(items) * PAIRS, size, epochs, seed, stage, "episodes")
        return [[items[n // PAIRS] * PAIRS + n % PAIRS for n in batch] for batch in pairs]

    def episodes(self, pairs: list[int], support: int, query: int, generator: torch.Generator) -> Episodes:
        """The batch of episodes of these pairs, with at most `support` and `query` events per item."""
        pair = torch.tensor(pairs, device=self.rows.device)
        item, quarter = pair // PAIRS, pair % PAIRS
        return Episodes(
            self._window(item, quarter, support, generator), self._window(item, quarter + 1, query, generator)
        )

    def _window(self, item: Tensor, quarter: Tensor, size: int, generator: torch.Generator) -> PaddedBatch:
        """Consecutive events of a quarter from a random offset on, wrapping around at its end."""
        begin = self.counts[item] * quarter // 4
        length = (self.counts[item] * (quarter + 1) // 4 - begin)[:, None]
        first = (torch.rand(len(item), 1, generator=generator).to(item.device) * length).long()
        step = torch.arange(size, device=item.device)
        row = (self.starts[item] + begin)[:, None] + (first + step) % length.clamp(min=1)
        real = step < length
        return PaddedBatch(item, self.rows[torch.where(real, row, 0)], real)
