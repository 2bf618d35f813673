"""Summary of an item's events that are not kept: the Gaussian approximation of their likelihood, and their statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from newcomer.items.networks.item_network import State
from newcomer.nn.optim.gaussian_summary import GaussianSummary
from newcomer.shapes import Float, Tensor


@dataclass(frozen=True)
class ItemSummary:
    """One item's."""

    root: Float[Tensor, "rank number"]
    linear: Float[Tensor, " number"]
    statistics: State
    """The network's statistics after these events, without an item axis."""
    window: int = 0
    """Number of the item's events after these: those that are kept."""

    @property
    def is_finite(self) -> bool:
        statistics = [~value.isnan() for value in self.statistics.values()]  # counts may be infinite
        return all(bool(part.all()) for part in (self.root.isfinite(), self.linear.isfinite(), *statistics))


Summaries = Mapping[int, ItemSummary]
"""Summaries by item row; items whose events are all kept have none."""


def stack(summaries: Sequence[ItemSummary | None], flat: Float[Tensor, "item number"]) -> GaussianSummary:
    """Summaries as one batch, with zero rows where ranks differ; None: of no events. `flat`: the items' flat states."""
    rank = max((len(one.root) for one in summaries if one is not None), default=0)
    root = flat.new_zeros(len(summaries), rank, flat.shape[1])
    linear = torch.zeros_like(flat)
    for n, one in enumerate(summaries):
        if one is not None:
            root[n, : len(one.root)], linear[n] = one.root.to(root), one.linear.to(root)
    return GaussianSummary(root, linear)


def unstack(batch: GaussianSummary, statistics: State) -> list[ItemSummary]:
    """Inverse of `stack`: one summary an item, without padding."""
    ranks = (batch.root != 0).any(dim=2).sum(dim=1).tolist()  # rows are sorted by their length
    return [
        ItemSummary(batch.root[n, :rank].clone(), batch.linear[n], {key: value[n] for key, value in statistics.items()})
        for n, rank in enumerate(ranks)
    ]
