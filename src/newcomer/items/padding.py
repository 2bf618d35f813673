"""Padded batches: events grouped by item."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from newcomer.shapes import Bool, Int, Tensor

FULL_ROWS = 512
"""Rows from which a batch costs by its rows, and not by the calls."""

MAX_PADDING = 0.2


@dataclass(frozen=True)
class PaddedBatch:
    """A batch of items with the row indices of each; `real` is false for padding."""

    items: Int[Tensor, " item"]
    rows: Int[Tensor, "item row"]
    real: Bool[Tensor, "item row"]

    def at(self, places: Sequence[int]) -> Self:
        """The items in these places of the batch."""
        if len(places) == len(self.items):
            return self
        chosen = list(places)
        return type(self)(self.items[chosen], self.rows[chosen], self.real[chosen])

    def first(self, rows: int) -> Self:
        """The first `rows` of each item alone."""
        return type(self)(self.items, self.rows[:, :rows], self.real[:, :rows])


def by_item(item: Int[Tensor, " row"], max_rows: int, max_rows_per_item: int | None = None) -> Iterator[PaddedBatch]:
    """All rows grouped by item, in their order, in padded batches of at most `max_rows` (items × longest) rows.

    An item's rows are split only beyond `max_rows_per_item`. Items are sorted by their number of rows, to minimize padding.

    >>> [(batch.items.tolist(), batch.rows.tolist()) for batch in by_item(torch.tensor([5, 3, 5]), max_rows=9)]
    [([3, 5], [[1, 0], [0, 2]])]
    """
    order = torch.argsort(item, stable=True)
    items, counts = torch.unique_consecutive(item[order], return_counts=True)
    starts = counts.cumsum(0) - counts
    if max_rows_per_item is not None:
        items, starts, counts = _split_long(items, starts, counts, max_rows_per_item)
    by_count = torch.argsort(counts, stable=True)
    begin = 0
    for end in _batch_ends(counts[by_count].tolist(), max_rows):
        chosen = by_count[begin:end]
        offset = torch.arange(int(counts[chosen].max()), device=item.device)
        real = offset < counts[chosen, None]
        rows = order[torch.where(real, starts[chosen, None] + offset, 0)]
        yield PaddedBatch(items[chosen], torch.where(real, rows, 0), real)
        begin = end


def _batch_ends(counts: list[int], max_rows: int) -> Iterator[int]:
    """End offset of each batch, for ascending counts: items × longest ≤ `max_rows`, or a single item.

    A batch of `FULL_ROWS` ends earlier, before more than `MAX_PADDING` of it are padding.
    """
    begin = real = 0
    for offset, count in enumerate(counts):
        padded = (offset + 1 - begin) * count
        wasteful = real >= FULL_ROWS and padded - real - count > MAX_PADDING * padded
        if offset > begin and (padded > max_rows or wasteful):
            yield offset
            begin, real = offset, 0
        real += count
    if counts:
        yield len(counts)


def _split_long(items: Tensor, starts: Tensor, counts: Tensor, max_rows_per_item: int) -> tuple[Tensor, Tensor, Tensor]:
    pieces = (counts + max_rows_per_item - 1) // max_rows_per_item
    whole = torch.repeat_interleave(torch.arange(len(items), device=items.device), pieces)
    number = torch.arange(len(whole), device=items.device) - (pieces.cumsum(0) - pieces)[whole]
    return (
        items[whole],
        starts[whole] + number * max_rows_per_item,
        (counts[whole] - number * max_rows_per_item).clamp(max=max_rows_per_item),
    )
