"""What a database keeps of an item, as bytes, and back: its own fields and its state. Its events: `kept_values`.

Places that only fill up a table of several items are left out, so that a row does not depend on who else was there.
"""

import math
from collections.abc import Sequence

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from newcomer.errors import StoreError
from newcomer.items.encoding.bounds import within_bounds
from newcomer.items.encoding.encoder import Values, joined
from newcomer.items.networks.item_network import State, under
from newcomer.shapes import Tensor
from newcomer.store.states import ItemState, now

ANEW = "anew"
"""Stands in the parameters of an item that was forgotten and added again: it does not begin as the one that was learned."""

SUFFICIENT = 200
"""Events from which on an item is called 'sufficient'."""


def phase(events: int) -> str:
    """What an item is called after so many events.

    >>> [phase(events) for events in (0, 1, 199, 200)]
    ['cold', 'warm', 'warm', 'sufficient']
    """
    if not events:
        return "cold"
    return "warm" if events < SUFFICIENT else "sufficient"


def to_row(name: str, version: int, events: int, own: Values, state: State, item: int, anew: bool = False) -> ItemState:
    """The row of an item after so many events; `item` says which of `own` and `state` it is.

    `anew`: the item was there before, was forgotten, and began once more with its fields alone.
    """
    return ItemState(name, version, phase(events), events, to_parameters(own, state, item, anew), now())


def to_parameters(own: Values, state: State, item: int, anew: bool = False) -> bytes:
    """The fields and the state of one of these items."""
    fields = {f"own.{n}": trimmed(values[item]) for n, values in enumerate(own)}
    states = {f"state.{key}": value[item] for key, value in state.items()}
    again = {ANEW: torch.ones(1, dtype=torch.uint8)} if anew else {}
    return save({key: value.detach().cpu().contiguous().clone() for key, value in (fields | states | again).items()})


def from_parameters(rows: Sequence[ItemState], device: torch.device) -> tuple[Values, State, list[bool]]:
    """The fields and the states of these items, in this order, and which of them began anew after they were forgotten.

    Raises StoreError for bytes that are no safetensors.
    """
    parts = [_read(row) for row in rows]
    own = [under("own.", part) for part in parts]
    state = [under("state.", part) for part in parts]
    fields = joined([[values[str(n)][None] for n in range(len(values))] for values in own]) if own[0] else []
    return (
        [values.to(device) for values in fields],
        {key: torch.stack([part[key] for part in state]).to(device) for key in state[0]},
        [ANEW in part for part in parts],
    )


def same_fields(one: Values, at: int, other: Values, there: int) -> bool:
    """Whether two items read alike to the model; the order of several values of one field tells nothing."""
    mine, theirs = (within_bounds([v[n : n + 1] for v in values]) for values, n in ((one, at), (other, there)))
    pairs = ((_ordered(a[0]), _ordered(b[0])) for a, b in zip(mine, theirs, strict=True))
    return all(a.shape == b.shape and torch.equal(a.nan_to_num(-math.inf), b.nan_to_num(-math.inf)) for a, b in pairs)


def _read(row: ItemState) -> dict[str, Tensor]:
    try:
        return load(row.parameters)
    except SafetensorError as error:
        raise StoreError(f"item '{row.item}': its parameters are no safetensors ({error}); add it again") from None


def trimmed(value: Tensor) -> Tensor:
    """Several values without the padding behind them; anything else as it is."""
    if value.ndim == 0 or value.is_floating_point():
        return value
    return value[: max(1, int((value != 0).sum()))]


def _ordered(value: Tensor) -> Tensor:
    value = trimmed(value)
    return value if value.ndim == 0 or value.is_floating_point() else value.sort().values
