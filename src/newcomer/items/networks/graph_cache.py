"""Cache of values derived from item states (higher-order graphs), reused while the states do not change."""

from threading import Lock

import torch

from newcomer.items.networks.item_network import ItemNetwork, State
from newcomer.shapes import Int, Tensor


class GraphCache:
    """Results of `network.precompute` per item row, each with the state it was computed from.

    Computed at first use, and again when the state's values differ: no invalidation is needed. Thread-safe. A copy is empty.
    """

    def __init__(self) -> None:
        self._network: ItemNetwork | None = None
        self._is_known = torch.zeros(0, dtype=torch.bool)
        self._source: dict[str, Tensor] = {}
        self._derived: dict[str, Tensor] = {}
        self._lock = Lock()

    def __deepcopy__(self, memo: dict[int, object]) -> "GraphCache":
        return GraphCache()

    @torch.inference_mode()
    def states(self, network: ItemNetwork, state: State, items: Int[Tensor, " item"]) -> State:
        """The states of these items, with the precomputed values added."""
        batch_state = {key: value[items] for key, value in state.items()}
        with self._lock:
            if network is not self._network or self._is_known.device != items.device:
                self._reset(network, items.device)
            self._grow(len(state["bias"]), batch_state)
            changed = ~self._is_known[items]
            for key, value in batch_state.items():
                changed |= (self._source[key][items] != value).flatten(1).any(dim=1)
            if changed.any():
                self._recompute(network, items[changed], {key: value[changed] for key, value in batch_state.items()})
            return {**batch_state, **{key: value[items] for key, value in self._derived.items()}}

    def _reset(self, network: ItemNetwork, device: torch.device) -> None:
        self._network, self._source, self._derived = network, {}, {}
        self._is_known = torch.zeros(0, dtype=torch.bool, device=device)

    def _grow(self, items: int, like: State) -> None:
        more = max(0, items - len(self._is_known))
        if more:
            self._is_known = torch.cat([self._is_known, self._is_known.new_zeros(more)])
            self._source = {key: _grown(self._source.get(key), value, items) for key, value in like.items()}
            self._derived = {key: _grown(value, value, items) for key, value in self._derived.items()}

    def _recompute(self, network: ItemNetwork, items: Tensor, batch_state: State) -> None:
        for key, value in network.precompute(batch_state).items():
            if key not in self._derived:
                self._derived[key] = _grown(None, value, len(self._is_known))
            self._derived[key][items] = value
        for key, value in batch_state.items():
            self._source[key][items] = value
        self._is_known[items] = True


def _grown(old: Tensor | None, like: Tensor, items: int) -> Tensor:
    """An uninitialized tensor of `items` rows with `old` copied in; pages are only committed when written."""
    grown = like.new_empty(items, *like.shape[1:])
    if old is not None:
        grown[: len(old)] = old
    return grown
