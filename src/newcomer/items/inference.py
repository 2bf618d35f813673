"""Initial states, prediction and adaptation of items, given a frozen network."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from newcomer.items.adaptation.rules import MAX_PADDED_ROWS, Adaptation, EventLikelihood, MAPAdaptation
from newcomer.items.adaptation.single_event import map_estimate_of_one
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.networks.graph_cache import GraphCache
from newcomer.items.networks.item_network import ItemNetwork, State
from newcomer.items.padding import by_item
from newcomer.shapes import Tensor
from newcomer.training.fit import evaluating

ROWS_PER_ITEM = 512
"""Rows of one item scored in one batch row."""

WarmupEvents = Literal["new", "all"]


def initial_state(network: ItemNetwork, item_features: Values, items: int) -> dict[str, Tensor]:
    """States of `items` items without events, generated from their fields."""
    with evaluating(network):
        written = network.initial_state(item_features, items)
    return {key: value.detach().clone() for key, value in written.items()}


def select(state: State, items: Tensor) -> State:
    """The states of these items."""
    return {key: value[items] for key, value in state.items()}


def predict(
    network: ItemNetwork, state: State, item_features: Values, clicks: Clicks, graph_cache: GraphCache | None = None
) -> NDArray[np.float64]:
    """Click probabilities, one per row; `clicks.item` indexes the rows of `state` and `item_features`.

    `graph_cache` supplies, and is updated with, the values precomputed from these items' states.
    """
    scores = np.empty(len(clicks), dtype=np.float64)
    with evaluating(network):
        for batch in by_item(clicks.item, MAX_PADDED_ROWS, max_rows_per_item=ROWS_PER_ITEM):
            chosen = (
                graph_cache.states(network, state, batch.items)
                if graph_cache is not None
                else select(state, batch.items)
            )
            logits = EventLikelihood(network, item_features, clicks, batch).logits(chosen)
            scores[batch.rows[batch.real].cpu().numpy()] = torch.sigmoid(logits[batch.real].double()).cpu().numpy()
    return scores


def adapt(
    network: ItemNetwork, state: State, item_features: Values, clicks: Clicks, adaptation: Adaptation
) -> Iterator[tuple[Tensor, State]]:
    """Adapted states of the items that have events, batch by batch, as (item rows, states).

    Items are independent given the frozen network: the result does not depend on the batching.
    """
    state = {key: state[key] for key in (*network.tuned_shapes(), *network.statistics)}
    if len(clicks) == 1 and isinstance(adaptation, MAPAdaptation):
        found = map_estimate_of_one(network, state, item_features, clicks, adaptation)
        if found is not None:
            yield found
            return
    with _frozen(network):
        for batch in by_item(clicks.item, MAX_PADDED_ROWS):
            batch_state = select(state, batch.items)
            fixed, tunable = network.split_state(
                {**batch_state, **network.update_statistics(batch_state, clicks, batch)}
            )
            events = EventLikelihood.of(network, item_features, clicks, batch, fixed)
            yield batch.items, network.after_adaptation({**fixed, **adaptation.warm(events, tunable)})


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Disable gradients of the network's parameters inside the context."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
