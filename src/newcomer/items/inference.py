"""Initial states, prediction and adaptation of items, given a frozen network."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from newcomer.items.adaptation.item_summary import ItemSummary, Summaries, stack, unstack
from newcomer.items.adaptation.rules import (
    MAX_PADDED_ROWS,
    Adaptation,
    EventLikelihood,
    MAPAdaptation,
    flatten_state,
    prior_std,
)
from newcomer.items.adaptation.single_event import map_estimate_of_one, posterior_of_one
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.networks.graph_cache import GraphCache
from newcomer.items.networks.item_network import ItemNetwork, State
from newcomer.items.padding import PaddedBatch, by_item
from newcomer.nn.optim.laplace_posterior import logit_std, posterior_factor, without_negligible
from newcomer.shapes import Float, Tensor
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
    """Click probabilities, one per row; see `predict_logits`."""
    return sigmoid(predict_logits(network, state, item_features, clicks, graph_cache))


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Click probabilities of logits."""
    scores: NDArray[np.float64] = torch.sigmoid(torch.from_numpy(logits)).numpy()
    return scores


def predict_logits(
    network: ItemNetwork, state: State, item_features: Values, clicks: Clicks, graph_cache: GraphCache | None = None
) -> NDArray[np.float64]:
    """Logits, one per row; `clicks.item` indexes the rows of `state` and `item_features`.

    `graph_cache` supplies, and is updated with, the values precomputed from these items' states.
    """
    found = np.empty(len(clicks), dtype=np.float64)
    with evaluating(network):
        for batch in by_item(clicks.item, MAX_PADDED_ROWS, max_rows_per_item=ROWS_PER_ITEM):
            chosen = (
                graph_cache.states(network, state, batch.items)
                if graph_cache is not None
                else select(state, batch.items)
            )
            logits = EventLikelihood(network, item_features, clicks, batch).logits(chosen)
            found[batch.rows[batch.real].cpu().numpy()] = logits[batch.real].double().cpu().numpy()
    return found


def predict_with_std(
    network: ItemNetwork,
    state: State,
    item_features: Values,
    clicks: Clicks,
    factors: Float[Tensor, "item direction number"],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logits and their posterior stds, one per row; `factors` of the items' posteriors, NaN where there is none.

    The gradient of a logit takes a backward pass, in which each row has a state of its own.
    """
    logits, stds = np.empty(len(clicks)), np.empty(len(clicks))
    with frozen(network), torch.no_grad():
        scale = prior_std(network)
        for batch in by_item(clicks.item, MAX_PADDED_ROWS, max_rows_per_item=ROWS_PER_ITEM):
            fixed, tunable = network.split_state(select(state, batch.items))
            found, jacobian = EventLikelihood.of(network, item_features, clicks, batch, fixed).jacobian(tunable)
            of = torch.arange(len(batch.items), device=batch.items.device)[:, None].expand_as(batch.rows)[batch.real]
            rows = batch.rows[batch.real].cpu().numpy()
            logits[rows] = found[batch.real].double().cpu().numpy()
            stds[rows] = logit_std(jacobian[batch.real] * scale, factors[batch.items[of]]).double().cpu().numpy()
    return logits, stds


def posterior(
    network: ItemNetwork, items: Tensor, state: State, item_features: Values, clicks: Clicks, summaries: Summaries
) -> Iterator[tuple[int, Float[Tensor, "direction number"]]]:
    """Of each of these items with events its row and the factor of its posterior (`nn.optim.laplace_posterior`).

    `state` has the MAP estimates of `items`, in their order.
    """
    if len(items) == len(clicks) == 1 and not summaries:
        factor = posterior_of_one(network, state, item_features, clicks)
        if factor is not None:
            yield int(items), without_negligible(factor)
            return
    items, order = items.sort()
    clicks = clicks.by_row(torch.isin(clicks.item, items).nonzero()[:, 0])
    with frozen(network), torch.no_grad():
        scale = prior_std(network)
        for batch in by_item(clicks.item, MAX_PADDED_ROWS):
            numbers = batch.items.tolist()
            fixed, tunable = network.split_state(select(state, order[torch.searchsorted(items, batch.items)]))
            events = EventLikelihood.of(network, item_features, clicks, batch, fixed)
            logits, jacobian = events.jacobian(tunable)
            root = stack([summaries.get(number) for number in numbers], flatten_state(tunable)).root
            factors = posterior_factor(jacobian * scale, logits, events.weights(), root)
            yield from zip(numbers, map(without_negligible, factors), strict=True)


def adapt(
    network: ItemNetwork,
    state: State,
    item_features: Values,
    clicks: Clicks,
    adaptation: Adaptation,
    summaries: Summaries | None = None,
) -> Iterator[tuple[Tensor, State]]:
    """Adapted states of the items that have events, batch by batch, as (item rows, states).

    Items are independent given the frozen network: the result does not depend on the batching. `summaries`: of earlier events, if
    `adaptation` is the MAP estimate.
    """
    state = {key: state[key] for key in (*network.tuned_shapes(), *network.statistics)}
    if summaries:
        has_summary = torch.isin(clicks.item, torch.tensor(list(summaries), device=clicks.item.device))
        later = clicks.by_row(has_summary.nonzero()[:, 0])
        yield from _adapt(network, state, item_features, later, adaptation, summaries)
        clicks = clicks.by_row((~has_summary).nonzero()[:, 0])
    if len(clicks) == 1 and isinstance(adaptation, MAPAdaptation):
        found = map_estimate_of_one(network, state, item_features, clicks, adaptation)
        if found is not None:
            yield found
            return
    yield from _adapt(network, state, item_features, clicks, adaptation, None)


def absorb(
    network: ItemNetwork,
    initial: State,
    item_features: Values,
    clicks: Clicks,
    adaptation: MAPAdaptation,
    summaries: Summaries,
    rows: int,
) -> dict[int, ItemSummary]:
    """Summaries of the items in `clicks` with their first `rows` events, expanded at the MAP estimate from all of them.

    All of these items have equally many events.
    """
    found: dict[int, ItemSummary] = {}
    with frozen(network):
        for batch in by_item(clicks.item, MAX_PADDED_ROWS):
            numbers = batch.items.tolist()
            before = [summaries.get(number) for number in numbers]
            start = _with_statistics(network, select(initial, batch.items), before)
            fixed, tunable = _split(network, start, clicks, batch, after_others=True)
            events = EventLikelihood.of(network, item_features, clicks, batch, fixed)
            summary = adaptation.absorb(events, tunable, stack(before, flatten_state(tunable)), rows)
            statistics, _ = _split(network, start, clicks, batch.first(rows), after_others=True)
            found |= dict(zip(numbers, unstack(summary, statistics), strict=True))
    return found


def correct(
    network: ItemNetwork, state: State, item_features: Values, clicks: Clicks, summaries: Summaries
) -> dict[int, ItemSummary]:
    """Summaries of the items of `clicks`, events that entered them as no clicks, as if they had been clicks.

    log p(click) − log p(no click) is the logit z, whatever else happened. So g gains the gradient of z times the event's weight,
    here at the items' current `state` and not where the summary was expanded: logits are nearly linear.
    """
    found: dict[int, ItemSummary] = {}
    with frozen(network), torch.no_grad():
        scale = prior_std(network)
        for batch in by_item(clicks.item, MAX_PADDED_ROWS):
            fixed, tunable = network.split_state(select(state, batch.items))
            events = EventLikelihood.of(network, item_features, clicks, batch, fixed)
            _, jacobian = events.jacobian(tunable)
            gain = (jacobian * events.weights()[..., None]).sum(dim=1) * scale
            for number, more in zip(batch.items.tolist(), gain, strict=True):
                before = summaries[number]
                found[number] = replace(before, linear=before.linear + more.to(before.linear))
    return found


def moved(network: ItemNetwork, old: State, new: State, summaries: Summaries) -> dict[int, ItemSummary]:
    """The same likelihoods of states, told from other initial states: rows of `old` and `new` by item row.

    gᵀδ − |Aδ|² / 2 at δ = δ' + c, c = (φ₀' − φ₀) / s, has the linear term g − AᵀA c in δ'.
    """
    if not summaries:
        return {}
    before, after = (flatten_state(network.split_state(state)[1]) for state in (old, new))
    shift = (after - before) / prior_std(network).detach()
    return {
        number: replace(one, linear=one.linear - (one.root.mT @ (one.root @ shift[number].to(one.root))))
        for number, one in summaries.items()
    }


def _adapt(
    network: ItemNetwork,
    state: State,
    item_features: Values,
    clicks: Clicks,
    adaptation: Adaptation,
    summaries: Summaries | None,
) -> Iterator[tuple[Tensor, State]]:
    """`adapt` where all items have summaries, or none has."""
    with frozen(network):
        for batch in by_item(clicks.item, MAX_PADDED_ROWS):
            start, summary = select(state, batch.items), None
            if summaries is not None:
                before = [summaries[number] for number in batch.items.tolist()]
                start = _with_statistics(network, start, before)
                summary = stack(before, flatten_state(network.split_state(start)[1]))
            fixed, tunable = _split(network, start, clicks, batch, after_others=summaries is not None)
            events = EventLikelihood.of(network, item_features, clicks, batch, fixed)
            yield batch.items, network.after_adaptation({**fixed, **adaptation.warm(events, tunable, summary)})


def _split(
    network: ItemNetwork, start: State, clicks: Clicks, batch: PaddedBatch, after_others: bool
) -> tuple[State, State]:
    """Statistics after a batch's events, and the tuned part of the states."""
    return network.split_state({**start, **network.update_statistics(start, clicks, batch, after_others)})


def _with_statistics(network: ItemNetwork, state: State, before: Sequence[ItemSummary | None]) -> State:
    """The states with the statistics of the items' summaries."""
    statistics = {
        key: torch.stack([value[n] if one is None else one.statistics[key].to(value) for n, one in enumerate(before)])
        for key, value in network.split_state(state)[0].items()
    }
    return {**state, **statistics}


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Disable gradients of the network's parameters inside the context."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
