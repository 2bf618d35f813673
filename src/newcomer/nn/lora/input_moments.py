"""Second moments of the inputs of linear layers, accumulated by hooks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from newcomer.nn.forward_context import ForwardContext, hooked
from newcomer.shapes import Float, Int, Tensor


@dataclass(frozen=True)
class _Watch:
    """Accumulator of a layer's moments, and the token mask."""

    found: Float[Tensor, "width width"]
    mask: Int[Tensor, "batch token"] | None


_WATCHED: ForwardContext[_Watch] = ForwardContext()


class InputMoments:
    """C = Σ h hᵀ over all input tokens of each of these layers of `model` within `watched`.

    >>> from torch import tensor
    >>> layer = nn.Sequential(nn.Linear(2, 3))
    >>> moments = InputMoments(layer, ["0"])
    >>> with moments.watched():
    ...     _ = layer(tensor([[1.0, 2.0], [0.0, 1.0]]))
    >>> moments.found[0].tolist()
    [[1.0, 2.0], [2.0, 5.0]]
    """

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        self._layers = [model.get_submodule(name) for name in layers]
        weights = [next(layer.parameters()) for layer in self._layers]
        self.found: list[Float[Tensor, "width width"]] = [
            torch.zeros(w.shape[1], w.shape[1], dtype=w.dtype, device=w.device) for w in weights
        ]
        """One matrix a layer."""

    @contextmanager
    def watched(self, mask: Int[Tensor, "batch token"] | None = None) -> Iterator[None]:
        """Within, the inputs of this thread's passes are accumulated; tokens with `mask` 0 are padding."""
        for layer in self._layers:
            hooked(layer, before=_add)
        pairs = zip(self._layers, self.found, strict=True)
        with _WATCHED.override({layer: _Watch(found, mask) for layer, found in pairs}):
            yield


def _add(module: nn.Module, args: tuple[Any, ...], _: dict[str, Any]) -> None:
    watch = _WATCHED.of(module)
    if watch is not None:
        (x,) = args
        tokens = (x if watch.mask is None else x[watch.mask.bool()]).detach().flatten(0, -2).to(watch.found)
        with torch.autocast(tokens.device.type, enabled=False):  # small directions would be lost in a pass in bf16
            watch.found.add_(tokens.T @ tokens)
