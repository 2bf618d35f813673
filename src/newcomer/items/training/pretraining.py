"""Learning the old items' events together: what every method of this family begins with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.networks.item_network import ItemNetwork
from newcomer.items.training.model_selection import Best
from newcomer.items.training.training_data import Lessons
from newcomer.seeds import spawn
from newcomer.shapes import Bool, Float, Int, Tensor
from newcomer.training.averaging import Average
from newcomer.training.checkpoint import Checkpoint, Things
from newcomer.training.fit import fit, one_cycle
from newcomer.training.learner import Step

BITS = 20
"""So many bits at a time are joined to an item's number: together with it, or with a rank of rows, they fit into an int64."""


@dataclass(frozen=True)
class Pretraining:
    """Adam over shuffled rows, its rate rising and falling in one cycle; `weight_decay` is an L2 term in the gradient.

    An old item's id and bias are where it begins plus a residual of its own; `shrinkage` · |residual|² joins each row's loss, so
    that what an item's fields can say is said by them. `own_graphs`: each row is seen through its item's state as it begins, not
    through what all items share. `dropout`: the share of rows that see their item without its residual; `drop`: of each of the
    item's fields, the share that does not see it. Both are drawn anew each time. `average`: what is learned is the mean over so
    large a part of all steps, the last ones (Izmailov et al. 2018).
    """

    epochs: int
    batch_size: int
    rate: float
    weight_decay: float
    shrinkage: float
    own_graphs: bool
    dropout: float = 0.0
    drop: Sequence[float] = ()
    average: float = 0.0


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
    trained = nn.ParameterList([*network.parameters(), *residuals.parameters()])
    optimizer = torch.optim.Adam(trained, plan.rate, weight_decay=plan.weight_decay, fused=True)
    mean = Average(trained, plan.average)
    things: Things = {"network": network, "residuals": residuals, "optimizer": optimizer, "best": best, "mean": mean}
    done = checkpoint.resume("pretrain", things)
    parts, rows_in_all = plan.epochs * lessons.mixes_per_epoch, plan.epochs * lessons.rows
    rate = one_cycle(rows_in_all)
    for number in range(done, parts):
        clicks, order = lessons.mix(number, seed, stage)
        rows = number * rows_in_all // parts
        hidden = _hidden(len(clicks), plan, spawn(seed, stage, "pretrain", "dropout", number)).to(order.device)

        def loss(batch: Int[Tensor, " row"], clicks: Clicks = clicks, hidden: Tensor = hidden) -> Tensor:
            return _loss(network, residuals, own, clicks, batch, plan, hidden[batch])

        for batch in torch.split(order, plan.batch_size):
            rows += len(batch)
            for group in optimizer.param_groups:
                group["lr"] = plan.rate * rate(rows)
            for seen in fit([batch], loss, optimizer):
                yield Step("pretrain", min(rows, rows_in_all), rows_in_all, seen)
            mean.see(trained, rows / rows_in_all)
        if (number + 1) % lessons.mixes_per_epoch == 0:
            best.consider(network)
        checkpoint.keep("pretrain", number + 1, things, now=number + 1 == parts)
    if mean.give(trained):
        best.consider(network)


def center(network: ItemNetwork, residuals: nn.Embedding) -> None:
    """What the residuals have in common is where an item begins, each item counting once.

    Rows that do not see their item (`dropout`) count each item by its events, and what is seen often is liked better than what is
    new: on MovieLens-1M two fifths more clicks than came were expected of new films.
    """
    with torch.no_grad():
        mean = residuals.weight.mean(dim=0)
        network.start.add_(mean)
        residuals.weight -= mean


def _loss(
    network: ItemNetwork,
    residuals: nn.Embedding,
    own: Values,
    clicks: Clicks,
    rows: Tensor,
    plan: Pretraining,
    hidden: Bool[Tensor, "row part"],
) -> Float[Tensor, ""]:
    items, hidden, of = distinct(clicks.item[rows], hidden)
    without, *fields = hidden.T
    mine, moved = [values[items] for values in own], residuals(items) * ~without[:, None]
    if plan.drop:
        mine = [_without(values, field) for values, field in zip(mine, fields, strict=True)]
    begun = network.begin(mine, len(items)) if plan.own_graphs else network.named(mine, len(items))
    state = {**begun, "id": begun["id"] + moved[:, :-1], "bias": begun["bias"] + moved[:, -1:]}
    logits = network.pooled(state, mine, of, clicks.values(rows))
    loss = functional.binary_cross_entropy_with_logits(logits, clicks.label[rows])
    if plan.shrinkage:
        loss = loss + plan.shrinkage * moved.square().sum(dim=1)[of].mean()
    return loss


def distinct(
    item: Int[Tensor, " row"], hidden: Bool[Tensor, "row part"]
) -> tuple[Int[Tensor, " item"], Bool[Tensor, "item part"], Int[Tensor, " row"]]:
    """Every pair of an item and what is hidden of it that occurs, sorted, and which of them each row has.

    Exact for any number of parts: some at a time join a code as bits, and the code becomes its rank before it is too long.

    >>> item, hidden = torch.tensor([7, 7, 3, 7]), torch.tensor([[True], [False], [False], [True]])
    >>> [found.tolist() for found in distinct(item, hidden)]
    [[3, 7, 7], [[False], [False], [True]], [2, 1, 0, 2]]
    """
    of = item
    for parts in torch.split(hidden, BITS, dim=1):
        for part in parts.T:
            of = 2 * of + part
        _, of = torch.unique(of, return_inverse=True)
    row = torch.empty_like(of[: int(of.max()) + 1]).scatter_(0, of, torch.arange(len(of), device=of.device))
    return item[row], hidden[row], of


def _hidden(rows: int, plan: Pretraining, chance: torch.Generator) -> Bool[Tensor, "row part"]:
    """What rows do not see of their items: first the residual, then each of the fields."""
    shares = torch.tensor([plan.dropout, *plan.drop])
    return torch.rand(rows, len(shares), generator=chance) < shares


def _without(values: Tensor, hidden: Bool[Tensor, " item"]) -> Tensor:
    """A field's values, those that are hidden as where nothing is known."""
    if not hidden.any():
        return values
    nothing = torch.full_like(values, torch.nan if values.is_floating_point() else 0)
    return torch.where(hidden.view(-1, *[1] * (values.ndim - 1)), nothing, values)
