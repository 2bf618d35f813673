"""Immutable cache of items: database rows stacked in tensors, with their versions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch

from newcomer.items.encoding.bounds import out_of_bounds, within_bounds
from newcomer.items.encoding.encoder import Values, concat_values
from newcomer.items.networks.item_network import State
from newcomer.items.serving.finite_checks import all_finite
from newcomer.items.serving.serialization import from_parameters, phase, same_features
from newcomer.store.states import ItemHeader, ItemState


@dataclass(frozen=True)
class ItemCache:
    """Items by index. Immutable, so that a reader keeps a consistent snapshot."""

    numbers: Mapping[str, int] = field(default_factory=dict)
    item_features: Values = field(default_factory=list)
    state: State = field(default_factory=dict)
    headers: Sequence[ItemHeader] = ()
    readded: frozenset[str] = frozenset()
    """Items that were deleted and added again; the learner's store knows other items by these names."""
    non_finite: frozenset[str] = frozenset()
    """Items with non-finite states."""
    far_out: frozenset[str] = frozenset()
    """Items whose stored features are out of bounds; here they are clipped."""

    def outdated(self, headers: Mapping[str, ItemHeader]) -> list[str]:
        """Items that are missing here, or have another version."""
        return [name for name, header in headers.items() if self.header(name) != header]

    def header(self, name: str) -> ItemHeader | None:
        number = self.numbers.get(name)
        return None if number is None else self.headers[number]

    def updated(self, rows: Sequence[ItemState], device: torch.device) -> Self:
        """The cache with these rows added or replaced."""
        if not rows:
            return self
        stored, state, readded = from_parameters(rows, device)
        item_features, out = within_bounds(stored), set(out_of_bounds(stored))
        whole = all_finite(state).tolist()
        names = {row.item for row in rows}
        begun = {row.item for row, again in zip(rows, readded, strict=True) if again}
        broken = {row.item for row, is_sound in zip(rows, whole, strict=True) if not is_sound}
        far_out = {row.item for n, row in enumerate(rows) if n in out}
        found = replace(
            self,
            readded=(self.readded - names) | begun,
            non_finite=(self.non_finite - names) | broken,
            far_out=(self.far_out - names) | far_out,
        )
        old = [
            n
            for n, row in enumerate(rows)
            if row.item in self.numbers and not self._is_another(row, item_features, n, readded[n])
        ]
        new = sorted(set(range(len(rows))) - set(old))
        return found._changed(rows, old, state, device)._extended(rows, new, item_features, state)

    def with_new(self, names: Sequence[str], item_features: Values, state: State) -> Self:
        """The cache with items that no database has, in their initial states."""
        stacked = {key: torch.cat([self.state[key], value]) if self.headers else value for key, value in state.items()}
        return replace(
            self,
            numbers={**self.numbers, **{name: len(self.headers) + n for n, name in enumerate(names)}},
            item_features=concat_values([self.item_features, item_features]) if self.headers else item_features,
            state=stacked,
            headers=[*self.headers, *[ItemHeader(0, phase(0), 0)] * len(names)],
        )

    def _is_another(self, row: ItemState, item_features: Values, at: int, readded: bool) -> bool:
        """Whether the item was deleted and added again with other features."""
        return readded and not same_features(item_features, at, self.item_features, self.numbers[row.item])

    def _changed(self, rows: Sequence[ItemState], which: Sequence[int], state: State, device: torch.device) -> Self:
        if not which:
            return self
        positions = [self.numbers[rows[n].item] for n in which]
        index, headers = torch.tensor(positions, device=device), list(self.headers)
        for position, n in zip(positions, which, strict=True):
            headers[position] = rows[n].header
        changed = {key: value.index_copy(0, index, state[key][which]) for key, value in self.state.items()}
        return replace(self, state=changed, headers=headers)

    def _extended(self, rows: Sequence[ItemState], which: Sequence[int], item_features: Values, state: State) -> Self:
        if not which:
            return self
        mine, first = [values[which] for values in item_features], len(self.headers)
        return replace(
            self,
            numbers={**self.numbers, **{rows[n].item: first + k for k, n in enumerate(which)}},
            item_features=concat_values([self.item_features, mine]) if self.headers else mine,
            state={k: torch.cat([self.state[k], v[which]]) if self.headers else v[which] for k, v in state.items()},
            headers=[*self.headers, *(rows[n].header for n in which)],
        )
