"""Many items at once: their rows side by side in one padded table."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from newcomer.shapes import Bool, Int, Tensor


@dataclass(frozen=True)
class Padded:
    """A batch of items with rows of each; where `real` is false a row is only there to fill up."""

    items: Int[Tensor, " item"]
    rows: Int[Tensor, "item row"]
    real: Bool[Tensor, "item row"]


def by_item(item: Int[Tensor, " row"], most: int, longest: int | None = None) -> Iterator[Padded]:
    """All rows, those of one item together and in their order, in batches of at most `most` places.

    An item's rows are never divided, unless there are more than `longest` of them. Items with equally many rows come
    together, so that little is filled up.

    >>> [(batch.items.tolist(), batch.rows.tolist()) for batch in by_item(torch.tensor([5, 3, 5]), most=9)]
    [([3, 5], [[1, 0], [0, 2]])]
    """
    order = torch.argsort(item, stable=True)
    items, counts = torch.unique_consecutive(item[order], return_counts=True)
    starts = counts.cumsum(0) - counts
    if longest is not None:
        items, starts, counts = _divided(items, starts, counts, longest)
    by_count = torch.argsort(counts, stable=True)
    begin = 0
    for end in _ends(counts[by_count].tolist(), most):
        chosen = by_count[begin:end]
        place = torch.arange(int(counts[chosen].max()), device=item.device)
        real = place < counts[chosen, None]
        rows = order[torch.where(real, starts[chosen, None] + place, 0)]
        yield Padded(items[chosen], torch.where(real, rows, 0), real)
        begin = end


def _ends(counts: list[int], most: int) -> Iterator[int]:
    """Where to end each batch, counts ascending, so that items × longest stays within `most` (or it is one item)."""
    begin = 0
    for place, count in enumerate(counts):
        if place > begin and (place + 1 - begin) * count > most:
            yield place
            begin = place
    if counts:
        yield len(counts)


def _divided(items: Tensor, starts: Tensor, counts: Tensor, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    pieces = (counts + longest - 1) // longest
    whole = torch.repeat_interleave(torch.arange(len(items), device=items.device), pieces)
    number = torch.arange(len(whole), device=items.device) - (pieces.cumsum(0) - pieces)[whole]
    return items[whole], starts[whole] + number * longest, (counts[whole] - number * longest).clamp(max=longest)
