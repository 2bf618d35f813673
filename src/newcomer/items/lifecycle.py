"""The life of new items: initial state, warm-ups, predictions. One rule for learner, service, validation and learning curves."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.items.adaptation.item_summary import Summaries
from newcomer.items.adaptation.rules import Adaptation, MAPAdaptation
from newcomer.items.encoding.encoder import Clicks, Values, concat_clicks
from newcomer.items.inference import (
    WarmupEvents,
    absorb,
    adapt,
    correct,
    initial_state,
    moved,
    posterior,
    predict,
    predict_with_std,
)
from newcomer.items.networks.graph_cache import GraphCache
from newcomer.items.networks.item_network import ItemNetwork, State
from newcomer.shapes import Float, Tensor
from newcomer.store.states import KEPT

WINDOW = KEPT
"""Most events of an item that a MAP estimate uses one by one: those whose values are kept."""

BLOCK = 100
"""Events that leave the window together."""


@dataclass(frozen=True)
class Lifecycle:
    """Item states under a network that does not change.

    An item starts with the state that the network computes from its features. A warm-up adapts the states of the items that have
    new events. With `warmup_events` 'new' it uses these events; with 'all' the item's past events too, and an adaptation that
    always starts at the initial state (the MAP estimate) then gives the same state in one warm-up as in many: what leaves its
    window of `WINDOW` events leaves a summary of its likelihood, at numbers of events that do not depend on the warm-ups.
    """

    network: ItemNetwork
    adaptation: Adaptation
    warmup_events: WarmupEvents

    @property
    def keeps_events(self) -> bool:
        """Whether a warm-up needs the item's past events."""
        return self.warmup_events == "all"

    @property
    def from_initial_state(self) -> bool:
        """Whether a warm-up starts at the initial state and not at the current one."""
        return self.keeps_events and self.adaptation.from_initial_state

    def initial_state(self, item_features: Values, items: int) -> dict[str, Tensor]:
        """States of new items, computed from their features."""
        return initial_state(self.network, item_features, items)

    def warm_up(
        self,
        state: State,
        initial: State,
        item_features: Values,
        new: Clicks,
        past: Clicks | None = None,
        summaries: Summaries | None = None,
    ) -> Iterator[tuple[Tensor, State]]:
        """New states of the items that have new events, batch by batch: their rows in `state`, and their states there.

        `state`, `initial` and `item_features` have one row an item, and `clicks.item` counts these rows. `past` are earlier events,
        used with `warmup_events` 'all'; `summaries` are of still earlier ones (`absorb`). Changes nothing.
        """
        if self.keeps_events and past is not None:
            events = concat_clicks([past, new])
            new = events.by_row(torch.isin(events.item, new.item).nonzero()[:, 0])
        start = initial if self.from_initial_state else state
        new, summaries = self.absorb(initial, item_features, new, summaries or {})
        yield from adapt(self.network, start, item_features, new, self.adaptation, summaries)

    def states(self, item_features: Values, items: int, phases: Iterable[Clicks]) -> Iterator[State]:
        """States of `items` new items: without events, then after the events of each phase."""
        cold = self.initial_state(item_features, items)
        state, past = cold, None
        yield state
        for clicks in phases:
            now = state
            for rows, new in self.warm_up(state, cold, item_features, clicks, past):
                now = updated(now, rows, new)
            state, past = now, clicks if past is None else concat_clicks([past, clicks])
            yield state

    def absorb(
        self, initial: State, item_features: Values, clicks: Clicks, summaries: Summaries
    ) -> tuple[Clicks, Summaries]:
        """The events that stay in each item's window, and summaries of those before it.

        While an item has more than `WINDOW` events after its summary, the MAP estimate from the first `WINDOW` of them is computed,
        and the first `BLOCK` enter the summary, expanded there: at which events does not depend on the division among warm-ups.
        Only with `warmup_events` 'all' and the MAP estimate.
        """
        if not (self.keeps_events and isinstance(self.adaptation, MAPAdaptation)):
            return clicks, summaries
        while len(clicks) > WINDOW:
            counts = torch.bincount(clicks.item)
            beyond = (counts > WINDOW)[clicks.item]
            if not beyond.any():
                break
            age = _ages(clicks.item, counts)
            window = clicks.by_row((beyond & (age < WINDOW)).nonzero()[:, 0])
            new = absorb(self.network, initial, item_features, window, self.adaptation, summaries, BLOCK)
            summaries = {**summaries, **new}
            clicks = clicks.by_row((~beyond | (age >= BLOCK)).nonzero()[:, 0])
        windows = torch.bincount(clicks.item).tolist() if summaries else []
        return clicks, {item: replace(summary, window=windows[item]) for item, summary in summaries.items()}

    def correct(self, state: State, item_features: Values, clicks: Clicks, summaries: Summaries) -> Summaries:
        """Summaries of events some of which, `clicks`, were clicks: see `inference.correct`."""
        return {**summaries, **correct(self.network, state, item_features, clicks, summaries)}

    def moved(self, old: State, new: State, summaries: Summaries) -> Summaries:
        """Summaries of items whose initial states are no longer `old` but `new`: see `inference.moved`."""
        return moved(self.network, old, new, summaries)

    @property
    def has_posterior(self) -> bool:
        """Whether items have a posterior: their states are MAP estimates from all of their events."""
        return self.keeps_events and isinstance(self.adaptation, MAPAdaptation) and self.network.state_is_estimate

    def posterior(
        self, items: Tensor, state: State, item_features: Values, clicks: Clicks, summaries: Summaries
    ) -> dict[int, Float[Tensor, "direction number"]]:
        """Factors of the posteriors of `items` by row, given their adapted states as `warm_up` yields both.

        `clicks` and `summaries` are those of `absorb`. Nothing without posteriors.
        """
        if not self.has_posterior:
            return {}
        return dict(posterior(self.network, items, state, item_features, clicks, summaries))

    def predict_with_std(
        self, state: State, item_features: Values, clicks: Clicks, factors: Float[Tensor, "item direction number"]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Logits and their posterior stds, one a row; see `inference.predict_with_std`."""
        return predict_with_std(self.network, state, item_features, clicks, factors)

    def predict(
        self, state: State, item_features: Values, clicks: Clicks, graph_cache: GraphCache | None = None
    ) -> NDArray[np.float64]:
        """Click probabilities, one a row; see `inference.predict`."""
        return predict(self.network, state, item_features, clicks, graph_cache)


def _ages(item: Tensor, counts: Tensor) -> Tensor:
    """Of every event how many its item had before; `counts`: events of each item.

    >>> _ages(torch.tensor([5, 3, 5, 5]), torch.bincount(torch.tensor([5, 3, 5, 5]))).tolist()
    [0, 0, 1, 2]
    """
    order = torch.argsort(item, stable=True)
    first = counts.cumsum(0) - counts
    return torch.empty_like(order).index_copy(
        0, order, torch.arange(len(item), device=item.device) - first[item[order]]
    )


def updated(state: State, items: Tensor, new: State) -> dict[str, Tensor]:
    """`state` with the rows of these items replaced; tensors that `new` lacks stay."""
    return {key: value.index_copy(0, items, new[key]) if key in new else value for key, value in state.items()}
