"""Items whose states or values are no sound numbers, made anew from where they began and from the events that are kept of them."""

from collections.abc import Iterator, Mapping, Sequence

import torch

from newcomer.items.encoding.encoder import Values
from newcomer.items.learner import ItemLearner
from newcomer.items.networks.item_network import State
from newcomer.items.serving.event_serialization import far_out, to_clicks
from newcomer.items.serving.finite_checks import sound
from newcomer.items.serving.item_cache import Known
from newcomer.items.serving.serialization import to_row
from newcomer.store.states import Change, Event

Past = Mapping[str, Sequence[Event]]


def in_need(known: Known, names: Sequence[str], past: Past) -> list[str]:
    """Those of these items whose state is not of finite numbers, or was made of values further out than any is read today."""
    return [name for name in names if name in known.unsound | known.far or far_out(past.get(name, ()))]


def healed(learner: ItemLearner, known: Known, names: Sequence[str], past: Past) -> Iterator[Change | str]:
    """The next row of each of these items, or its name where it has no sound state even so. Changes nothing here.

    An item that has such a state already has no next row. As many events count as before; of those that are not kept what
    they made of the item is gone.
    """
    numbers = [known.numbers[name] for name in names]
    own = [values[numbers] for values in known.own]
    state = dict(states_at_start(learner, names, own, known.anew))
    events = [(n, event) for n, name in enumerate(names) for event in past.get(name, ())]
    if events:
        clicks = to_clicks(events, learner.encoder, learner.device)
        for items, found in learner.tuned(state, own, clicks):
            state = {
                key: value.index_copy(0, items, found[key]) if key in found else value for key, value in state.items()
            }
    now = {key: value[numbers] for key, value in known.state.items()}
    for n, (name, whole) in enumerate(zip(names, sound(state).tolist(), strict=True)):
        if whole and name not in known.unsound | known.far and _are_alike(state, now, n):
            continue
        head = known.heads[known.numbers[name]]
        row = to_row(name, head.version + 1, head.events, own, state, n, anew=name in known.anew)
        yield Change(row, []) if whole else name


def _are_alike(one: State, other: State, item: int) -> bool:
    """Whether an item has, but for rounding, the state already that it would be given."""
    return all(torch.allclose(value[item], other[key][item], rtol=1e-3, atol=1e-4) for key, value in one.items())


def states_at_start(learner: ItemLearner, names: Sequence[str], own: Values, anew: frozenset[str]) -> State:
    """The states of these items as they began: the learner's own as it left them, all others by their fields."""
    state = learner.begin(own, len(names))
    mine = [n for n, name in enumerate(names) if name in learner.known and name not in anew]
    numbers = [learner.known[names[n]] for n in mine]
    found = {key: learner.begun[key][numbers] for key in state}
    whole = sound(found) if mine else torch.zeros(0, dtype=torch.bool)
    for key, value in state.items():
        value[torch.tensor(mine, dtype=torch.int64, device=value.device)[whole]] = found[key][whole]
    return state
