"""Learning the old items' events together: what every method of this family begins with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from newcomer.items.encoding import Clicks, Values
from newcomer.items.network import ItemNetwork
from newcomer.shapes import Tensor
from newcomer.training.fit import batches, fit
from newcomer.training.learner import Step


@dataclass(frozen=True)
class Pretraining:
    """Adam over shuffled rows; `weight_decay` is an L2 term in the gradient."""

    epochs: int
    batch_size: int
    rate: float
    weight_decay: float


def pretrain(
    network: ItemNetwork,
    ids: nn.Embedding,
    own: Values,
    clicks: Clicks,
    plan: Pretraining,
    seed: int,
    stage: str,
    epoch_done: Callable[[ItemNetwork], None] | None = None,
) -> Iterator[Step]:
    """All parameters that `network.pooled` uses, and `ids`; afterwards `id_start` is the mean of `ids`."""
    orders = batches(len(clicks), plan.batch_size, plan.epochs, seed, stage, "pretrain")
    optimizer = torch.optim.Adam(
        [*network.parameters(), *ids.parameters()], plan.rate, weight_decay=plan.weight_decay, fused=True
    )

    def loss(order: list[int]) -> Tensor:
        rows = torch.tensor(order, device=clicks.item.device)
        item = clicks.item[rows]
        logits = network.pooled(ids(item), [values[item] for values in own], clicks.values(rows))
        return functional.binary_cross_entropy_with_logits(logits, clicks.label[rows])

    for step, seen in enumerate(fit(orders, loss, optimizer), 1):
        yield Step("pretrain", step, len(orders), seen)
        if step * plan.epochs % len(orders) == 0:
            with torch.no_grad():
                network.id_start.copy_(ids.weight.mean(dim=0))
            if epoch_done is not None:
                epoch_done(network)
