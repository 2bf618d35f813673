"""What follows from items' states alone, kept while these stay as they are: the same items are scored again and again."""

from threading import Lock

import torch

from newcomer.items.networks.item_network import ItemNetwork, State
from newcomer.shapes import Int, Tensor


class Prepared:
    """What `network.prepared` makes of items, by number, each beside the state that it was made of.

    An item is made ready when it is first asked for, and anew when its state is not the same numbers as then: nobody has to say
    what has changed. May be asked from several threads. A copy begins empty.
    """

    def __init__(self) -> None:
        self._network: ItemNetwork | None = None
        self._is_known = torch.zeros(0, dtype=torch.bool)
        self._of: dict[str, Tensor] = {}
        self._made: dict[str, Tensor] = {}
        self._lock = Lock()

    def __deepcopy__(self, memo: dict[int, object]) -> "Prepared":
        return Prepared()

    @torch.inference_mode()
    def states(self, network: ItemNetwork, state: State, items: Int[Tensor, " item"]) -> State:
        """The states of these items, and beside them what was made of them."""
        mine = {key: value[items] for key, value in state.items()}
        with self._lock:
            if network is not self._network or self._is_known.device != items.device:
                self._begin(network, items.device)
            self._grow(len(state["id"]), mine)
            changed = ~self._is_known[items]
            for key, value in mine.items():
                changed |= (self._of[key][items] != value).flatten(1).any(dim=1)
            if changed.any():
                self._renew(network, items[changed], {key: value[changed] for key, value in mine.items()})
            return {**mine, **{key: value[items] for key, value in self._made.items()}}

    def _begin(self, network: ItemNetwork, device: torch.device) -> None:
        self._network, self._of, self._made = network, {}, {}
        self._is_known = torch.zeros(0, dtype=torch.bool, device=device)

    def _grow(self, items: int, like: State) -> None:
        more = max(0, items - len(self._is_known))
        if more:
            self._is_known = torch.cat([self._is_known, self._is_known.new_zeros(more)])
            self._of = {key: _longer(self._of.get(key), value, items) for key, value in like.items()}
            self._made = {key: _longer(value, value, items) for key, value in self._made.items()}

    def _renew(self, network: ItemNetwork, items: Tensor, mine: State) -> None:
        for key, value in network.prepared(mine).items():
            if key not in self._made:
                self._made[key] = _longer(None, value, len(self._is_known))
            self._made[key][items] = value
        for key, value in mine.items():
            self._of[key][items] = value
        self._is_known[items] = True


def _longer(old: Tensor | None, like: Tensor, items: int) -> Tensor:
    """Room for so many; memory is only taken where something is written."""
    found = like.new_empty(items, *like.shape[1:])
    if old is not None:
        found[: len(old)] = old
    return found
