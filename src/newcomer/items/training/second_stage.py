"""The old items' events once more, for what a method has beside the pre-trained network."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.networks.item_network import ItemNetwork, State
from newcomer.items.training.model_selection import Best
from newcomer.items.training.training_data import Lessons
from newcomer.seeds import spawn
from newcomer.shapes import Float, Int, Tensor
from newcomer.training.checkpoint import Checkpoint, Things
from newcomer.training.learner import Step

TakeStep = Callable[["Batch"], Mapping[str, float]]


@dataclass(frozen=True)
class Batch:
    """Rows of which `of` says whose they are: a place among `items`, the numbers of the items that occur."""

    clicks: Clicks
    rows: Int[Tensor, " row"]
    items: Int[Tensor, " item"]
    of: Int[Tensor, " row"]
    chance: torch.Generator

    def loss(self, network: ItemNetwork, state: State, own: Values) -> Float[Tensor, ""]:
        """Mean binary cross entropy in nats; `state` is of `items`, `own` of all."""
        mine = [values[self.items] for values in own]
        logits = network.pooled(state, mine, self.of, self.clicks.values(self.rows))
        return functional.binary_cross_entropy_with_logits(logits, self.clicks.label[self.rows])


@dataclass(frozen=True)
class Rehearsal:
    """So many `epochs` in batches of so many rows, in an order that follows from the number of the part."""

    lessons: Lessons
    epochs: int
    batch_size: int
    seed: int
    stage: str
    checkpoint: Checkpoint
    best: Best

    def go(self, network: ItemNetwork, trained: nn.Module, things: Things, take_step: TakeStep) -> Iterator[Step]:
        """`take_step` with every batch, while of the network only `trained` takes gradients; resumed where it was kept."""
        done, per_epoch = self.checkpoint.resume("rehearse", things), self.lessons.mixes_per_epoch
        parts, rows_in_all = self.epochs * per_epoch, self.epochs * self.lessons.rows
        for number in range(done, parts):
            clicks, order = self.lessons.mix(number, self.seed, f"{self.stage} rehearse")
            chance, rows = spawn(self.seed, self.stage, "rehearse", number), number * rows_in_all // parts
            for batch in torch.split(order, self.batch_size):
                items, of = torch.unique(clicks.item[batch], return_inverse=True)
                with alone(network, trained):
                    seen = take_step(Batch(clicks, batch, items, of, chance))
                rows += len(batch)
                yield Step("rehearse", min(rows, rows_in_all), rows_in_all, seen)
            if (number + 1) % per_epoch == 0:
                self.best.consider(network)
            self.checkpoint.keep("rehearse", number + 1, things, now=number + 1 == parts)


@contextmanager
def alone(network: nn.Module, trained: nn.Module) -> Iterator[None]:
    """Within, no parameter of the network but those of `trained` receives a gradient; afterwards those do that did."""
    kept = {id(parameter) for parameter in trained.parameters()}
    others = [p for p in network.parameters() if p.requires_grad and id(p) not in kept]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
