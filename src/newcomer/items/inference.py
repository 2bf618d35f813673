"""Scoring items and warming them up: what happens to states, given a network that stays as it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from newcomer.items.adaptation.rules import PLACES, Adaptation, Bayes, Events
from newcomer.items.adaptation.single_event import likeliest_of_one
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.networks.graph_cache import Prepared
from newcomer.items.networks.item_network import ItemNetwork, State
from newcomer.items.padding import by_item
from newcomer.shapes import Tensor
from newcomer.training.fit import evaluating

PIECE = 512
"""Rows of one item that are scored at once."""

History = Literal["phase", "all"]


def begun(network: ItemNetwork, own: Values, items: int) -> dict[str, Tensor]:
    """The states of so many items of which nothing is known but their fields."""
    with evaluating(network):
        written = network.begin(own, items)
    return {key: value.detach().clone() for key, value in written.items()}


def part_of(state: State, items: Tensor) -> State:
    """The states of these items."""
    return {key: value[items] for key, value in state.items()}


def scored(
    network: ItemNetwork, state: State, own: Values, clicks: Clicks, prepared: Prepared | None = None
) -> NDArray[np.float64]:
    """Click probabilities, one a row; `clicks.item` numbers the items of `state` and `own`.

    What `prepared` has of these items is not worked out anew; what it has not, or not any more, is left there.
    """
    scores = np.empty(len(clicks), dtype=np.float64)
    with evaluating(network):
        for batch in by_item(clicks.item, PLACES, longest=PIECE):
            chosen = (
                prepared.states(network, state, batch.items) if prepared is not None else part_of(state, batch.items)
            )
            logits = Events(network, own, clicks, batch).logits(chosen)
            scores[batch.rows[batch.real].cpu().numpy()] = torch.sigmoid(logits[batch.real].double()).cpu().numpy()
    return scores


def tuned(
    network: ItemNetwork, state: State, own: Values, clicks: Clicks, adaptation: Adaptation
) -> Iterator[tuple[Tensor, State]]:
    """Batch by batch of the items that have events: their numbers, and their new states.

    Items have nothing in common but the network, and that is not touched: together or one by one, the result is the same.
    """
    state = {key: state[key] for key in (*network.shapes(), *network.kept)}
    if len(clicks) == 1 and isinstance(adaptation, Bayes):
        found = likeliest_of_one(network, state, own, clicks, adaptation)
        if found is not None:
            yield found
            return
    with _frozen(network):
        for batch in by_item(clicks.item, PLACES):
            mine = part_of(state, batch.items)
            beside, begun = network.divided({**mine, **network.noted(mine, clicks, batch)})
            events = Events.of(network, own, clicks, batch, beside)
            yield batch.items, network.settled({**beside, **adaptation.warm(events, begun)})


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
