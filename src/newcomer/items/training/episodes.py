"""Episodes: old items play new ones, with a few events to learn from and the next ones to be judged by."""

from dataclasses import dataclass

import torch

from newcomer.items.padding import Padded
from newcomer.shapes import Int, Tensor
from newcomer.training.fit import batches

PAIRS = 3
"""Of consecutive quarters of an item's events in time: a → b, b → c, c → d."""


@dataclass(frozen=True)
class Episodes:
    """One batch of episodes: of each item the events of one quarter to support, those of the next to query."""

    support: Padded
    query: Padded


class Quarters:
    """Each item's events in four equal parts by time; `item` holds the items' numbers, row by row in the order of time."""

    def __init__(self, item: Int[Tensor, " row"]) -> None:
        self.rows = torch.argsort(item, stable=True)
        self.counts = torch.bincount(item)
        self.starts = self.counts.cumsum(0) - self.counts

    def draws(self, size: int, epochs: int, seed: int, stage: str) -> list[list[int]]:
        """Every (item, pair) once an epoch, in batches of `size`: item * PAIRS + pair.

        Items without an event in every quarter do not play.
        """
        items: list[int] = (self.counts > PAIRS).nonzero()[:, 0].tolist()
        drawn = batches(len(items) * PAIRS, size, epochs, seed, stage, "episodes")
        return [[items[n // PAIRS] * PAIRS + n % PAIRS for n in batch] for batch in drawn]

    def episodes(self, drawn: list[int], support: int, query: int, generator: torch.Generator) -> Episodes:
        """Those of one batch, with at most so many events a side."""
        pair = torch.tensor(drawn, device=self.rows.device)
        item, quarter = pair // PAIRS, pair % PAIRS
        return Episodes(
            self._window(item, quarter, support, generator), self._window(item, quarter + 1, query, generator)
        )

    def _window(self, item: Tensor, quarter: Tensor, size: int, generator: torch.Generator) -> Padded:
        """Consecutive events of a quarter from a random one on, going on at its beginning after its end."""
        begin = self.counts[item] * quarter // 4
        length = (self.counts[item] * (quarter + 1) // 4 - begin)[:, None]
        first = (torch.rand(len(item), 1, generator=generator).to(item.device) * length).long()
        step = torch.arange(size, device=item.device)
        place = (self.starts[item] + begin)[:, None] + (first + step) % length.clamp(min=1)
        real = step < length
        return Padded(item, self.rows[torch.where(real, place, 0)], real)
