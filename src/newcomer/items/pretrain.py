"""Learning the old items' events together: what every method of this family begins with."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from newcomer.items.encoding import Clicks, Values
from newcomer.items.lessons import Lessons
from newcomer.items.network import ItemNetwork
from newcomer.items.validation import Best
from newcomer.shapes import Float, Int, Tensor
from newcomer.training.checkpoint import Checkpoint, Things
from newcomer.training.fit import fit, one_cycle
from newcomer.training.learner import Step


@dataclass(frozen=True)
class Pretraining:
    """Adam over shuffled rows, its rate rising and falling in one cycle; `weight_decay` is an L2 term in the gradient.

    An old item's id and bias are where it begins plus a residual of its own; `shrinkage` · |residual|² joins each row's loss, so
    that what an item's fields can say is said by them. `own_graphs`: each row is seen through its item's state as it begins, not
    through what all items share.
    """

    epochs: int
    batch_size: int
    rate: float
    weight_decay: float
    shrinkage: float
    own_graphs: bool


def pretrain(
    network: ItemNetwork,
    residuals: nn.Embedding,
    own: Values,
    lessons: Lessons,
    plan: Pretraining,
    seed: int,
    stage: str,
    checkpoint: Checkpoint,
    best: Best,
) -> Iterator[Step]:
    """Train the network and the old items' `residuals`; a resumed one goes on after the last part of an epoch that was kept."""
    optimizer = torch.optim.Adam(
        [*network.parameters(), *residuals.parameters()], plan.rate, weight_decay=plan.weight_decay, fused=True
    )
    things: Things = {"network": network, "residuals": residuals, "optimizer": optimizer, "best": best}
    done = checkpoint.resume("pretrain", things)
    parts, rows_in_all = plan.epochs * lessons.mixes_per_epoch, plan.epochs * lessons.rows
    rate = one_cycle(rows_in_all)
    for number in range(done, parts):
        clicks, order = lessons.mix(number, seed, stage)
        rows = number * rows_in_all // parts

        def loss(batch: Int[Tensor, " row"], clicks: Clicks = clicks) -> Tensor:
            return _loss(network, residuals, own, clicks, batch, plan)

        for batch in torch.split(order, plan.batch_size):
            rows += len(batch)
            for group in optimizer.param_groups:
                group["lr"] = plan.rate * rate(rows)
            for seen in fit([batch], loss, optimizer):
                yield Step("pretrain", min(rows, rows_in_all), rows_in_all, seen)
        if (number + 1) % lessons.mixes_per_epoch == 0:
            best.consider(network)
        checkpoint.keep("pretrain", number + 1, things, now=number + 1 == parts)


def center(network: ItemNetwork, residuals: nn.Embedding) -> None:
    """What the residuals have in common is where an item begins."""
    with torch.no_grad():
        mean = residuals.weight.mean(dim=0)
        network.start.add_(mean)
        residuals.weight -= mean


def _loss(
    network: ItemNetwork, residuals: nn.Embedding, own: Values, clicks: Clicks, rows: Tensor, plan: Pretraining
) -> Float[Tensor, ""]:
    items, of = torch.unique(clicks.item[rows], return_inverse=True)
    mine, moved = [values[items] for values in own], residuals(items)
    begun = network.begin(mine, len(items)) if plan.own_graphs else network.named(mine, len(items))
    state = {**begun, "id": begun["id"] + moved[:, :-1], "bias": begun["bias"] + moved[:, -1:]}
    logits = network.pooled(state, mine, of, clicks.values(rows))
    loss = functional.binary_cross_entropy_with_logits(logits, clicks.label[rows])
    if plan.shrinkage:
        loss = loss + plan.shrinkage * moved.square().sum(dim=1)[of].mean()
    return loss
