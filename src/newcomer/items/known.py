"""The items a process knows at the moment: rows of a database side by side in tensors, each with the version it has here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch

from newcomer.items.encoding import Values, joined
from newcomer.items.kept import from_parameters
from newcomer.items.network import State
from newcomer.store.states import Head, ItemState


@dataclass(frozen=True)
class Known:
    """Items by number. Never changed: whoever holds it goes on with what it was when they took it."""

    numbers: Mapping[str, int] = field(default_factory=dict)
    own: Values = field(default_factory=list)
    state: State = field(default_factory=dict)
    heads: Sequence[Head] = ()

    def stale(self, heads: Mapping[str, Head]) -> list[str]:
        """Those that are not here, or that have another version here."""
        return [name for name, head in heads.items() if self.head(name) != head]

    def head(self, name: str) -> Head | None:
        number = self.numbers.get(name)
        return None if number is None else self.heads[number]

    def updated(self, rows: Sequence[ItemState], device: torch.device) -> Self:
        """With these rows in place of the older ones."""
        old, new = ([row for row in rows if (row.item in self.numbers) == known] for known in (True, False))
        return self._changed(old, device)._extended(new, device)

    def _changed(self, rows: Sequence[ItemState], device: torch.device) -> Self:
        if not rows:
            return self
        _, state = from_parameters(rows, device)
        places = [self.numbers[row.item] for row in rows]
        index, heads = torch.tensor(places, device=device), list(self.heads)
        for place, row in zip(places, rows, strict=True):
            heads[place] = row.head
        changed = {key: value.index_copy(0, index, state[key]) for key, value in self.state.items()}
        return replace(self, state=changed, heads=heads)

    def _extended(self, rows: Sequence[ItemState], device: torch.device) -> Self:
        if not rows:
            return self
        own, state = from_parameters(rows, device)
        return replace(
            self,
            numbers={**self.numbers, **{row.item: len(self.heads) + n for n, row in enumerate(rows)}},
            own=joined([self.own, own]) if self.numbers else own,
            state={key: torch.cat([self.state[key], value]) if self.numbers else value for key, value in state.items()},
            heads=[*self.heads, *(row.head for row in rows)],
        )
