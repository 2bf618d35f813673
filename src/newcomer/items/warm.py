"""Scoring items and warming them up: what happens to states, given a network that stays as it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from newcomer.items.batches import Padded, by_item
from newcomer.items.encoding import Clicks, Values
from newcomer.items.network import ItemNetwork, State
from newcomer.shapes import Float, Tensor
from newcomer.training.fit import evaluating, fit

PLACES = 8192
"""Rows at once, the filled-up ones too: enough to be quick, few enough for any machine's memory."""

PIECE = 512
"""Rows of one item that are scored at once."""

History = Literal["phase", "all"]


@dataclass(frozen=True)
class WarmUp:
    """How items' states are tuned on events: so many steps of Adam on all of an item's events at once."""

    rate: float
    steps: int


def click_losses(
    network: ItemNetwork, state: State, own: Values, clicks: Clicks, batch: Padded
) -> Float[Tensor, " item"]:
    """Each item's mean binary cross entropy in nats, `state` being that of the batch's items, `own` that of all."""
    logits = _logits(network, state, own, clicks, batch)
    losses = functional.binary_cross_entropy_with_logits(logits, clicks.label[batch.rows], reduction="none")
    return batch.mean(losses)


def part_of(state: State, items: Tensor) -> State:
    """The states of these items."""
    return {key: value[items] for key, value in state.items()}


def scored(network: ItemNetwork, state: State, own: Values, clicks: Clicks) -> NDArray[np.float64]:
    """Click probabilities, one a row; `clicks.item` numbers the items of `state` and `own`."""
    scores = np.empty(len(clicks), dtype=np.float64)
    with evaluating(network):
        for batch in by_item(clicks.item, PLACES, longest=PIECE):
            logits = _logits(network, part_of(state, batch.items), own, clicks, batch)
            scores[batch.rows[batch.real].cpu().numpy()] = torch.sigmoid(logits[batch.real].double()).cpu().numpy()
    return scores


def tuned(
    network: ItemNetwork, state: State, own: Values, clicks: Clicks, warm_up: WarmUp
) -> Iterator[tuple[Tensor, State, float]]:
    """Batch by batch of the items that have events: their numbers, their new states, and their mean loss before.

    Items have nothing in common but the network, and that is not touched: together or one by one, the result is the same.
    """
    with _frozen(network):
        for batch in by_item(clicks.item, PLACES):
            mine = {key: value[batch.items].clone().requires_grad_() for key, value in state.items()}
            optimizer = torch.optim.Adam(mine.values(), lr=warm_up.rate)

            def loss(batch: Padded, mine: State = mine) -> Tensor:
                return click_losses(network, mine, own, clicks, batch).sum()

            seen = [step["loss"] for step in fit([batch] * warm_up.steps, loss, optimizer)]
            yield batch.items, {key: value.detach() for key, value in mine.items()}, seen[0] / len(batch.items)


def _logits(
    network: ItemNetwork, state: State, own: Values, clicks: Clicks, batch: Padded
) -> Float[Tensor, "item row"]:
    logits: Tensor = network(state, [values[batch.items] for values in own], clicks.values(batch.rows.flatten()))
    return logits


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Within, no parameter of the network receives a gradient; afterwards those do that did."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
