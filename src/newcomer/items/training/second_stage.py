"""Second training stage: a method's extra modules on the old items' events, after pre-training."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.networks.item_network import ItemNetwork, State
from newcomer.items.training.model_selection import ModelSelection
from newcomer.items.training.training_data import TrainingData
from newcomer.seeds import spawn
from newcomer.shapes import Float, Int, Tensor
from newcomer.training.checkpoint import Checkpoint, Things
from newcomer.training.learner import Step

TakeStep = Callable[["Batch"], Mapping[str, float]]


@dataclass(frozen=True)
class Batch:
    """A batch of rows; `items`: the distinct items, `of`: each row's index into `items`."""

    clicks: Clicks
    rows: Int[Tensor, " row"]
    items: Int[Tensor, " item"]
    of: Int[Tensor, " row"]
    weights: Float[Tensor, " row"]
    """Weights of the rows over the mean weight of the log; see `pretraining.pretrain`."""
    chance: torch.Generator

    def loss(self, network: ItemNetwork, state: State, item_features: Values) -> Float[Tensor, ""]:
        """Weighted mean binary cross entropy in nats; `state` covers `items`, `item_features` all items."""
        batch_features = [values[self.items] for values in item_features]
        logits = network.forward_rows(state, batch_features, self.of, self.clicks.values(self.rows))
        return functional.binary_cross_entropy_with_logits(logits, self.clicks.label[self.rows], self.weights)

    def mean(self, values: Float[Tensor, " item"]) -> Float[Tensor, ""]:
        """Weighted mean over the rows of a value of their items."""
        return (self.weights * values[self.of]).mean()


@dataclass(frozen=True)
class SecondStage:
    """Training loop over shuffled chunks, resumable from a checkpoint."""

    data: TrainingData
    epochs: int
    batch_size: int
    seed: int
    stage: str
    checkpoint: Checkpoint
    selection: ModelSelection

    def run(
        self, network: ItemNetwork, trained: nn.Module, checkpointed: Things, take_step: TakeStep
    ) -> Iterator[Step]:
        """Call `take_step` on every batch, with gradients for `trained` alone; resumes from the checkpoint."""
        done, per_epoch = self.checkpoint.resume("second-stage", checkpointed), self.data.chunks_per_epoch
        parts, rows_in_all = self.epochs * per_epoch, self.epochs * self.data.rows
        for number in range(done, parts):
            clicks, order = self.data.shuffled_chunk(number, self.seed, f"{self.stage} rehearse")
            chance, rows = spawn(self.seed, self.stage, "rehearse", number), number * rows_in_all // parts
            for batch in torch.split(order, self.batch_size):
                items, of = torch.unique(clicks.item[batch], return_inverse=True)
                weights = clicks.weights(batch) / self.data.mean_weight
                with only_trainable(network, trained):
                    metrics = take_step(Batch(clicks, batch, items, of, weights, chance))
                rows += len(batch)
                yield Step("second-stage", min(rows, rows_in_all), rows_in_all, metrics)
            if (number + 1) % per_epoch == 0:
                self.selection.update(network)
            self.checkpoint.keep("second-stage", number + 1, checkpointed, now=number + 1 == parts)


@contextmanager
def only_trainable(network: nn.Module, trained: nn.Module) -> Iterator[None]:
    """Disable gradients of the network's parameters, except those of `trained`, inside the context."""
    kept = {id(parameter) for parameter in trained.parameters()}
    others = [p for p in network.parameters() if p.requires_grad and id(p) not in kept]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
