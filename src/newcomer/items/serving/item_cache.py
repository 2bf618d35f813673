"""Cache of items in this process: database rows in tensors, with their versions.

One table holds all items that the process knows. A row is written in place, and read by a copy: what a request costs depends on its
own items alone, and it computes with whole rows of one moment, whatever is written meanwhile.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch

from newcomer.items.encoding.bounds import out_of_bounds, within_bounds
from newcomer.items.encoding.encoder import Values, concat_values
from newcomer.items.networks.item_network import ItemNetwork, State
from newcomer.items.serving.finite_checks import all_finite
from newcomer.items.serving.serialization import from_parameters, phase
from newcomer.shapes import Bool, Int, Tensor
from newcomer.store.states import ItemHeader, ItemState


@dataclass(frozen=True)
class ItemCache:
    """Some items by index, as they were at one moment. Immutable."""

    numbers: Mapping[str, int] = field(default_factory=dict)
    item_features: Values = field(default_factory=list)
    state: State = field(default_factory=dict)
    headers: Sequence[ItemHeader] = ()
    readded: frozenset[str] = frozenset()
    """Items that were deleted and added again; the learner's store knows other items by these names."""
    erased: Mapping[str, int] = field(default_factory=dict)
    """Number of events that were erased with their users, of items that have such."""
    non_finite: frozenset[str] = frozenset()
    """Items with non-finite states."""
    far_out: frozenset[str] = frozenset()
    """Items whose stored features are out of bounds; here they are clipped."""
    precomputed: State = field(default_factory=dict)
    """Values of `ItemNetwork.precompute`, for scores."""

    def with_new(self, names: Sequence[str], item_features: Values, state: State, precomputed: State) -> Self:
        """The cache with items that no database has, in their initial states."""

        def extended(values: State, new: State) -> State:
            return {key: torch.cat([values[key], value]) for key, value in new.items()} if self.headers else new

        return replace(
            self,
            numbers={**self.numbers, **{name: len(self.headers) + n for n, name in enumerate(names)}},
            item_features=concat_values([self.item_features, item_features]) if self.headers else item_features,
            state=extended(self.state, state),
            precomputed=extended(self.precomputed, precomputed),
            headers=[*self.headers, *[ItemHeader(0, phase(0), 0)] * len(names)],
        )


class ItemTable:
    """All items that were read, in tensors with room for more. Not thread-safe."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.numbers: dict[str, int] = {}
        """Item → row. Rows of deleted items stay, unused."""
        self._headers: list[ItemHeader] = []
        self._item_features: Values = []
        self._state: dict[str, Tensor] = {}
        self._precomputed: dict[str, Tensor] = {}
        self._is_precomputed: Bool[Tensor, " item"] = torch.zeros(0, dtype=torch.bool, device=device)
        self._readded, self._non_finite, self._far_out = set[str](), set[str](), set[str]()
        self._erased = dict[str, int]()

    def outdated(self, headers: Mapping[str, ItemHeader]) -> list[str]:
        """Items that are missing here, or have another version."""
        return [
            name
            for name, header in headers.items()
            if (number := self.numbers.get(name)) is None or self._headers[number] != header
        ]

    def write(self, rows: Sequence[ItemState]) -> None:
        """Add or replace these rows."""
        if not rows:
            return
        stored, state, readded, erased = from_parameters(rows, self.device)
        item_features, out, whole = within_bounds(stored), set(out_of_bounds(stored)), all_finite(state).tolist()
        for n, row in enumerate(rows):
            number = self.numbers.setdefault(row.item, len(self._headers))
            self._headers[number : number + 1] = [row.header]
            marks = ((self._readded, readded[n]), (self._non_finite, not whole[n]), (self._far_out, n in out))
            for marked, is_one in marks:
                (marked.add if is_one else marked.discard)(row.item)
            self._erased.pop(row.item, None)
            self._erased |= {row.item: erased[n]} if erased[n] else {}
        at, count = torch.tensor([self.numbers[row.item] for row in rows], device=self.device), len(self._headers)
        if not self._state:
            self._item_features, self._state = (
                [value[:0] for value in item_features],
                {k: v[:0] for k, v in state.items()},
            )
        self._item_features = [_put(*pair, at, count) for pair in zip(self._item_features, item_features, strict=True)]
        self._state = {key: _put(value, state[key], at, count) for key, value in self._state.items()}
        self._is_precomputed = _put(self._is_precomputed, torch.zeros_like(at, dtype=torch.bool), at, count)

    def remove(self, names: Collection[str]) -> None:
        """Forget these items."""
        for name in names:
            self.numbers.pop(name, None)
            self._erased.pop(name, None)
            for marked in (self._readded, self._non_finite, self._far_out):
                marked.discard(name)

    def take(self, names: Collection[str], network: ItemNetwork | None = None) -> ItemCache:
        """A copy of these items, as far as they are here; with the values that `network` precomputes, once a state."""
        known = [name for name in dict.fromkeys(names) if name in self.numbers]
        rows = [self.numbers[name] for name in known]
        at = torch.tensor(rows, dtype=torch.int64, device=self.device)
        state = {key: value.index_select(0, at) for key, value in self._state.items()}
        return ItemCache(
            {name: n for n, name in enumerate(known)},
            [values.index_select(0, at) for values in self._item_features],
            state,
            [self._headers[row] for row in rows],
            readded=frozenset(self._readded.intersection(known)),
            erased={name: self._erased[name] for name in known if name in self._erased},
            non_finite=frozenset(self._non_finite.intersection(known)),
            far_out=frozenset(self._far_out.intersection(known)),
            precomputed={} if network is None or not rows else self._precomputed_of(network, at, state),
        )

    @torch.no_grad()
    def _precomputed_of(self, network: ItemNetwork, at: Int[Tensor, " item"], state: State) -> State:
        stale = (~self._is_precomputed[at]).nonzero()[:, 0]
        if len(stale):
            new, count = network.precompute({key: value[stale] for key, value in state.items()}), len(self._headers)
            for key, value in new.items():
                self._precomputed[key] = _put(self._precomputed.get(key, value[:0]), value, at[stale], count)
            self._is_precomputed[at[stale]] = True
        return {key: value.index_select(0, at) for key, value in self._precomputed.items()}


def _put(values: Tensor, new: Tensor, at: Int[Tensor, " item"], count: int) -> Tensor:
    """`values` with rows `at` replaced, in place, or in a copy with room for more if they are fewer than `count`, or too narrow."""
    if new.ndim == 2 and not new.is_floating_point():  # several values: both are padded with zeros to the wider
        width = max(values.shape[1], new.shape[1])
        new = torch.nn.functional.pad(new, (0, width - new.shape[1]))
        if values.shape[1] < width:
            values = torch.nn.functional.pad(values, (0, width - values.shape[1]))
    if len(values) < count:
        grown = values.new_empty(max(count, 2 * len(values)), *values.shape[1:])
        grown[: len(values)] = values
        values = grown
    values[at] = new
    return values
