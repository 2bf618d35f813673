"""The items a process knows at the moment: rows of a database side by side in tensors, each with the version it has here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch

from newcomer.items.encoding.bounds import out_of_bounds, within_bounds
from newcomer.items.encoding.encoder import Values, joined
from newcomer.items.networks.item_network import State
from newcomer.items.serving.finite_checks import sound
from newcomer.items.serving.serialization import from_parameters, same_fields
from newcomer.store.states import Head, ItemState


@dataclass(frozen=True)
class Known:
    """Items by number. Never changed: whoever holds it goes on with what it was when they took it."""

    numbers: Mapping[str, int] = field(default_factory=dict)
    own: Values = field(default_factory=list)
    state: State = field(default_factory=dict)
    heads: Sequence[Head] = ()
    anew: frozenset[str] = frozenset()
    """Those that were forgotten and added again: whatever a learner knows of their names is about others."""
    unsound: frozenset[str] = frozenset()
    """Those whose states are no finite numbers."""
    far: frozenset[str] = frozenset()
    """Those whose rows hold fields further out than any is read today; here they are within bounds."""

    def stale(self, heads: Mapping[str, Head]) -> list[str]:
        """Those that are not here, or that have another version here."""
        return [name for name, head in heads.items() if self.head(name) != head]

    def head(self, name: str) -> Head | None:
        number = self.numbers.get(name)
        return None if number is None else self.heads[number]

    def updated(self, rows: Sequence[ItemState], device: torch.device) -> Self:
        """With these rows in place of the older ones."""
        if not rows:
            return self
        stored, state, anew = from_parameters(rows, device)
        own, out = within_bounds(stored), set(out_of_bounds(stored))
        whole = sound(state).tolist()
        names = {row.item for row in rows}
        begun = {row.item for row, again in zip(rows, anew, strict=True) if again}
        broken = {row.item for row, is_sound in zip(rows, whole, strict=True) if not is_sound}
        far = {row.item for n, row in enumerate(rows) if n in out}
        found = replace(
            self,
            anew=(self.anew - names) | begun,
            unsound=(self.unsound - names) | broken,
            far=(self.far - names) | far,
        )
        old = [
            n for n, row in enumerate(rows) if row.item in self.numbers and not self._is_another(row, own, n, anew[n])
        ]
        new = sorted(set(range(len(rows))) - set(old))
        return found._changed(rows, old, state, device)._extended(rows, new, own, state)

    def _is_another(self, row: ItemState, own: Values, at: int, anew: bool) -> bool:
        """Whether what is known under this name was forgotten meanwhile, and has come back with other fields."""
        return anew and not same_fields(own, at, self.own, self.numbers[row.item])

    def _changed(self, rows: Sequence[ItemState], which: Sequence[int], state: State, device: torch.device) -> Self:
        if not which:
            return self
        places = [self.numbers[rows[n].item] for n in which]
        index, heads = torch.tensor(places, device=device), list(self.heads)
        for place, n in zip(places, which, strict=True):
            heads[place] = rows[n].head
        changed = {key: value.index_copy(0, index, state[key][which]) for key, value in self.state.items()}
        return replace(self, state=changed, heads=heads)

    def _extended(self, rows: Sequence[ItemState], which: Sequence[int], own: Values, state: State) -> Self:
        if not which:
            return self
        mine, first = [values[which] for values in own], len(self.heads)
        return replace(
            self,
            numbers={**self.numbers, **{rows[n].item: first + k for k, n in enumerate(which)}},
            own=joined([self.own, mine]) if self.heads else mine,
            state={k: torch.cat([self.state[k], v[which]]) if self.heads else v[which] for k, v in state.items()},
            heads=[*self.heads, *(rows[n].head for n in which)],
        )
