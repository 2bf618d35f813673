"""The second moments of what goes into linear layers, while a model computes."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import nn

from newcomer.shapes import Float, Int, Tensor


class InputMoments:
    """C = Σ h hᵀ over all tokens that went into each of these layers of `model` within `watched`.

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
        self.found: list[Float[Tensor, "width width"]] = [w.new_zeros(w.shape[1], w.shape[1]) for w in weights]
        """One a layer."""

    @contextmanager
    def watched(self, mask: Int[Tensor, "batch token"] | None = None) -> Iterator[None]:
        """Within, inputs are added up; tokens where `mask` is 0 are padding."""
        with ExitStack() as hooks:
            for layer, found in zip(self._layers, self.found, strict=True):

                def add(_: nn.Module, inputs: tuple[Tensor, ...], found: Tensor = found) -> None:
                    (x,) = inputs
                    tokens = (x if mask is None else x[mask.bool()]).detach().flatten(0, -2).to(found)
                    found += tokens.T @ tokens

                hooks.callback(layer.register_forward_pre_hook(add).remove)
            yield
