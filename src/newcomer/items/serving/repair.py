"""Repair of items with non-finite states or out-of-bounds values: recomputed from initial states and stored events."""

from collections.abc import Iterator, Sequence

import torch

from newcomer.items.adaptation.item_summary import Summaries
from newcomer.items.encoding.encoder import Values
from newcomer.items.learner import ItemLearner
from newcomer.items.lifecycle import updated
from newcomer.items.networks.item_network import State
from newcomer.items.serving.event_serialization import has_outliers, to_clicks
from newcomer.items.serving.finite_checks import all_finite
from newcomer.items.serving.item_cache import ItemCache
from newcomer.items.serving.past_events import PastEvents
from newcomer.items.serving.serialization import to_row
from newcomer.shapes import Tensor
from newcomer.store.states import Change, Event


def needs_repair(known: ItemCache, names: Sequence[str], past: PastEvents) -> list[str]:
    """Items with a non-finite state or summary, or with stored features or events out of bounds."""
    damaged = known.non_finite | known.far_out | past.lost
    return [name for name in names if name in damaged or has_outliers(past.windows.get(name, ()))]


def repaired(learner: ItemLearner, known: ItemCache, names: Sequence[str], past: PastEvents) -> Iterator[Change | str]:
    """The repaired row of each of these items, or its name if no finite state can be computed.

    An item that has such a state already has no next row. As many events count as before; of those that are not kept the summary
    is used if it is finite (`PastEvents.lost`).
    """
    numbers = [known.numbers[name] for name in names]
    item_features = [values[numbers] for values in known.item_features]
    initial = initial_states(learner, names, item_features, known.readded)
    events, summaries = past.by_number({name: n for n, name in enumerate(names)})
    state, factors = recomputed(learner, initial, item_features, events, summaries)
    now = {key: value[numbers] for key, value in known.state.items()}
    for n, (name, whole) in enumerate(zip(names, all_finite(state).tolist(), strict=True)):
        broken = known.non_finite | known.far_out | past.lost
        if whole and name not in broken and _are_alike(state, now, n):
            continue
        head, again, summary = known.headers[known.numbers[name]], name in known.readded, summaries.get(n)
        factor, erased = factors.get(n), known.erased.get(name, 0)
        row = to_row(name, head.version + 1, head.events, item_features, state, n, again, summary, factor, erased)
        yield Change(row, []) if whole else name


def recomputed(
    learner: ItemLearner,
    initial: State,
    item_features: Values,
    events: Sequence[tuple[int, Event]],
    summaries: Summaries,
) -> tuple[State, dict[int, Tensor]]:
    """States of items from these initial ones, past events and summaries, and the factors of their posteriors by row."""
    if not events:
        return initial, {}
    state, clicks = initial, to_clicks(events, learner.encoder, learner.device)
    for items, found in learner.adapt(initial, item_features, clicks, summaries):
        state = updated(state, items, found)
    sound = all_finite(state).nonzero()[:, 0]
    of_sound = {key: value[sound] for key, value in state.items()}
    return state, learner.lifecycle.posterior(sound, of_sound, item_features, clicks, summaries)


def _are_alike(one: State, other: State, item: int) -> bool:
    """Whether two states of an item agree up to rounding."""
    return all(torch.allclose(value[item], other[key][item], rtol=1e-3, atol=1e-4) for key, value in one.items())


def initial_states(learner: ItemLearner, names: Sequence[str], item_features: Values, readded: frozenset[str]) -> State:
    """Initial states of these items: from the learner's store for trained items, from features for the others."""
    mine = [n for n, name in enumerate(names) if name in learner.known and name not in readded]
    numbers = [learner.known[names[n]] for n in mine]
    trained = {key: value[numbers] for key, value in learner.initial_state.items()}
    whole = all_finite(trained) if mine else torch.zeros(0, dtype=torch.bool)
    if len(mine) == len(names) and whole.all():
        return trained
    state = learner.cold_state(item_features, len(names))
    for key, value in state.items():
        value[torch.tensor(mine, dtype=torch.int64, device=value.device)[whole]] = trained[key][whole]
    return state
