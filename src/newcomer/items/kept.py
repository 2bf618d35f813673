"""What a database keeps of an item, as bytes and JSON, and back: its own fields, its state, its events.

Places that only fill up a table of several items are left out, so that a row does not depend on who else was there.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from newcomer.errors import StoreError
from newcomer.items.encoding import Clicks, Values, joined
from newcomer.items.network import State, under
from newcomer.settings import Json
from newcomer.shapes import Tensor
from newcomer.store.states import Event, ItemState, now

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


def to_row(name: str, version: int, events: int, own: Values, state: State, item: int) -> ItemState:
    """The row of an item after so many events; `item` says which of `own` and `state` it is."""
    return ItemState(name, version, phase(events), events, to_parameters(own, state, item), now())


def to_parameters(own: Values, state: State, item: int) -> bytes:
    """The fields and the state of one of these items."""
    fields = {f"own.{n}": _trimmed(values[item]) for n, values in enumerate(own)}
    states = {f"state.{key}": value[item] for key, value in state.items()}
    return save({key: value.detach().cpu().contiguous().clone() for key, value in (fields | states).items()})


def from_parameters(rows: Sequence[ItemState], device: torch.device) -> tuple[Values, State]:
    """The fields and the states of these items, in this order.

    Raises StoreError for bytes that are no safetensors.
    """
    parts = [_read(row) for row in rows]
    own = [under("own.", part) for part in parts]
    state = [under("state.", part) for part in parts]
    fields = joined([[values[str(n)][None] for n in range(len(values))] for values in own]) if own[0] else []
    return (
        [values.to(device) for values in fields],
        {key: torch.stack([part[key] for part in state]).to(device) for key in state[0]},
    )


def same_fields(one: Values, at: int, other: Values, there: int) -> bool:
    """Whether two items read alike to the model; the order of several values of one field tells nothing."""
    pairs = ((_ordered(a[at]), _ordered(b[there])) for a, b in zip(one, other, strict=True))
    return all(a.shape == b.shape and torch.equal(a.nan_to_num(-math.inf), b.nan_to_num(-math.inf)) for a, b in pairs)


def to_values(clicks: Clicks, row: int) -> list[Json]:
    """The encoded fields of one event that stands for itself; a number that is not known is None."""
    return [_to_json(_trimmed(values[row]).tolist()) for values in clicks.of_rows]


def to_clicks(events: Sequence[tuple[int, Event]], like: Clicks) -> Clicks:
    """Events that are kept, each with its item's number, encoded as `like` is."""
    device = like.item.device
    columns = [
        [
            torch.tensor(_from_json(event.values[n] if event.values else None), dtype=values.dtype)[None]
            for _, event in events
        ]
        for n, values in enumerate(like.of_rows)
    ]
    rows = [joined([[value] for value in column])[0].to(device) for column in columns]
    return Clicks(
        item=torch.tensor([item for item, _ in events], device=device),
        label=torch.tensor([event.label for _, event in events], dtype=like.label.dtype, device=device),
        user=torch.arange(len(events), device=device),
        of_users=[],
        of_rows=rows,
    )


def _read(row: ItemState) -> dict[str, Tensor]:
    try:
        return load(row.parameters)
    except SafetensorError as error:
        raise StoreError(f"item '{row.item}': its parameters are no safetensors ({error}); add it again") from None


def _trimmed(value: Tensor) -> Tensor:
    """Several values without the padding behind them; anything else as it is."""
    if value.ndim == 0 or value.is_floating_point():
        return value
    return value[: max(1, int((value != 0).sum()))]


def _ordered(value: Tensor) -> Tensor:
    value = _trimmed(value)
    return value if value.ndim == 0 or value.is_floating_point() else value.sort().values


def _to_json(value: Any) -> Json:
    if isinstance(value, list):
        return [_to_json(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _from_json(value: Json) -> Any:
    if isinstance(value, list):
        return [_from_json(part) for part in value]
    return math.nan if value is None else value
