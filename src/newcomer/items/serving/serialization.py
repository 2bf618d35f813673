"""Serialization of an item's features, state and summary as bytes; of its events see `event_serialization`.

Padding is stripped before serialization, so an item's bytes do not depend on the batch it was encoded in.
"""

import math
from collections.abc import Sequence

import torch
from safetensors import SafetensorError
from safetensors.numpy import save
from safetensors.torch import load

from newcomer.errors import StoreError
from newcomer.items.adaptation.item_summary import ItemSummary
from newcomer.items.encoding.bounds import within_bounds
from newcomer.items.encoding.encoder import Values, concat_values
from newcomer.items.networks.item_network import State, without_prefix
from newcomer.shapes import Bool, Float, Tensor
from newcomer.store.states import ItemState, now

READDED = "readded"
"""Tensor that marks an item that was deleted and added again: its initial state is not that of the trained item."""

ERASED = "erased"
"""Tensor with the number of an item's events that were erased with their users: nothing of them is in its state."""

POSTERIOR = "posterior"
"""Tensor with the factor of an item's posterior; see `nn.optim.laplace_posterior`."""

SUFFICIENT = 200
"""Number of events of phase 'sufficient'."""


def phase(events: int) -> str:
    """Phase of an item by its number of events.

    >>> [phase(events) for events in (0, 1, 199, 200)]
    ['cold', 'warm', 'warm', 'sufficient']
    """
    if not events:
        return "cold"
    return "warm" if events < SUFFICIENT else "sufficient"


def to_row(
    name: str,
    version: int,
    events: int,
    item_features: Values,
    state: State,
    item: int,
    readded: bool = False,
    summary: ItemSummary | None = None,
    posterior: Float[Tensor, "direction number"] | None = None,
    erased: int = 0,
) -> ItemState:
    """Database row of an item; `item` is its index in `item_features` and `state`.

    `readded`: the item was deleted and added again. `posterior`: the factor of its posterior. `erased`: events of users who were
    forgotten.
    """
    parameters = to_parameters(item_features, state, item, readded, summary, posterior, erased)
    return ItemState(name, version, phase(events), events, parameters, now())


def to_parameters(
    item_features: Values,
    state: State,
    item: int,
    readded: bool = False,
    summary: ItemSummary | None = None,
    posterior: Float[Tensor, "direction number"] | None = None,
    erased: int = 0,
) -> bytes:
    """Features, state, summary and posterior of one item as safetensors bytes."""
    fields = {f"own.{n}": trimmed(values[item]) for n, values in enumerate(item_features)}
    states = {f"state.{key}": value[item] for key, value in state.items()}
    again = {READDED: torch.ones(1, dtype=torch.uint8)} if readded else {}
    parts = fields | states | again | (_summary_tensors(summary) if summary is not None else {})
    parts |= {POSTERIOR: posterior} if posterior is not None else {}
    parts |= {ERASED: torch.tensor(erased)} if erased else {}
    return save({key: value.detach().cpu().contiguous().numpy() for key, value in parts.items()})


def from_parameters(rows: Sequence[ItemState], device: torch.device) -> tuple[Values, State, list[bool], list[int]]:
    """Features and states of these items, in order; which were added again after deletion; how many events of each were erased.

    Raises StoreError for bytes that are no safetensors.
    """
    parts = [_read(row) for row in rows]
    item_features = [without_prefix("own.", part) for part in parts]
    state = [without_prefix("state.", part) for part in parts]
    fields = (
        concat_values([[values[str(n)][None] for n in range(len(values))] for values in item_features])
        if item_features[0]
        else []
    )
    return (
        [values.to(device) for values in fields],
        {key: torch.stack([part[key] for part in state]).to(device) for key in state[0]},
        [READDED in part for part in parts],
        [int(part[ERASED]) if ERASED in part else 0 for part in parts],
    )


def summary_of(row: ItemState, device: torch.device) -> ItemSummary | None:
    """The summary in an item's row; None if all of its events are kept, or were not summarized."""
    part = without_prefix("summary.", _read(row))
    if not part:
        return None
    part = {key: value.to(device) for key, value in part.items()}
    statistics = without_prefix("statistics.", part)
    return ItemSummary(part["root"], part["linear"], statistics, int(part["window"]))


def posterior_of(row: ItemState, device: torch.device) -> Float[Tensor, "direction number"] | None:
    """The factor of the posterior in an item's row, if it has one."""
    factor = _read(row).get(POSTERIOR)
    return None if factor is None else factor.to(device)


def _summary_tensors(summary: ItemSummary) -> dict[str, Tensor]:
    statistics = {f"summary.statistics.{key}": value for key, value in summary.statistics.items()}
    window = torch.tensor(summary.window)
    return {"summary.root": summary.root, "summary.linear": summary.linear, "summary.window": window, **statistics}


def same_features(one: Values, at: int, other: Values, there: int) -> bool:
    """Whether two items have equal encoded features, irrespective of the order of several values."""
    pairs = zip(one, other, strict=True)
    return all(bool(equal_values(a[at : at + 1], b[there : there + 1])) for a, b in pairs)


def equal_values(one: Tensor, other: Tensor) -> Bool[Tensor, " row"]:
    """Whether encoded values of one field are equal, row by row, irrespective of padding and the order of several values."""
    one, other = within_bounds([one, other])
    if one.is_floating_point():
        if one.shape != other.shape:
            return torch.zeros(len(one), dtype=torch.bool, device=one.device)
        equal = one.nan_to_num(-math.inf) == other.nan_to_num(-math.inf)
    else:
        width = max(value.shape[1] if value.ndim > 1 else 1 for value in (one, other))
        equal = _sorted(one, width) == _sorted(other, width)
    return equal if equal.ndim == 1 else equal.all(dim=1)


def _read(row: ItemState) -> dict[str, Tensor]:
    try:
        return load(row.parameters)
    except SafetensorError as error:
        raise StoreError(f"item '{row.item}': its parameters are no safetensors ({error}); add it again") from None


def trimmed(value: Tensor) -> Tensor:
    """Several values without padding; other values unchanged."""
    if value.ndim == 0 or value.is_floating_point():
        return value
    return value[: max(1, int((value != 0).sum()))]


def _sorted(value: Tensor, width: int) -> Tensor:
    value = value if value.ndim > 1 else value[:, None]
    return torch.nn.functional.pad(value, (0, width - value.shape[1])).sort(dim=1).values
