"""Low-rank updates that share out the output space of each layer among tasks (E²-LoRA, arXiv 2605.27482).

Every adapted layer p with m outputs has the weight W_p = W0_p + Σ_k B_{k,p} A_{k,p}, whose columns of B number m over all tasks:

- The first task trains a full rank: A (m × in) drawn as in LoRA, B (m × m) from zero.
- A task is closed by a rotation: with V the principal directions of its update's outputs B A x, V ← as many as B has columns,
  B ← V and A ← Vᵀ B A. The columns of B are then ordered by the energy of the outputs along them.
- Before the next task t only the directions of closed tasks that carry energy are kept, each with its row of A; the rest, whose
  rows of A are dropped, are the new task's B, and its A begins at zero. Kept are the directions before which less than
  `threshold` of their task's energy lies, or fewer by a lower threshold where these are more than (t − 1) m / t.

So all terms of a layer are one m × m and one m × in matrix whatever the number of tasks, and fold into its weight.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from newcomer.nn.lora.decoupled_linear import WEIGHTS, Terms, adapted_linear, widened
from newcomer.shapes import Float, Tensor

FLOOR = 1e-6
"""Added to the inputs' second moments, in units of their mean: it keeps the update on directions that no input has."""


class OutputSpaceLoRA:
    """The updates of all tasks, for the linear layers of `model` named in `projections`.

    Outside of `applied()` and `applied_before()` the model computes the plain model, so several updates may share one model.
    """

    def __init__(self, model: nn.Module, projections: Sequence[str]) -> None:
        self._layers = [adapted_linear(model, name) for name in projections]
        self.clear()

    def clear(self) -> None:
        """Remove all updates."""
        weights = [widened(layer.frozen.weight.detach()) for layer in self._layers]
        self.tasks = 0
        """Number of closed tasks."""
        self.up: list[Tensor] = [weight.new_zeros(weight.shape[0], 0) for weight in weights]
        """B of the closed tasks side by side."""
        self.down: list[Tensor] = [weight.new_zeros(0, weight.shape[1]) for weight in weights]
        """A of the closed tasks, one below the other."""
        self.before: list[Tensor] = [weight.new_zeros(0) for weight in weights]
        """Of each column of `up`: the share of its task's energy in the columns before it."""
        self.open_up: list[nn.Parameter] = []
        self.open_down: list[nn.Parameter] = []
        self._merged = self._closed_weights()

    @torch.no_grad()
    def open(self, threshold: float, generator: torch.Generator) -> None:
        """Begin a task: hand it the directions of closed tasks that carry less energy, or all of the space if it is the first."""
        for p, layer in enumerate(self._layers):
            outputs, inputs = layer.frozen.weight.shape
            if not self.tasks:
                bound = inputs**-0.5
                down = torch.empty(outputs, inputs).uniform_(-bound, bound, generator=generator).to(self.down[p])
                up = self.up[p].new_zeros(outputs, outputs)
            else:
                order = self.before[p].argsort(stable=True)[: outputs * self.tasks // (self.tasks + 1)]
                kept = torch.zeros_like(self.before[p], dtype=torch.bool)
                kept[order] = self.before[p][order] < threshold
                up = self.up[p][:, ~kept]
                down = self.down[p].new_zeros(up.shape[1], inputs)
                self.up[p], self.down[p] = self.up[p][:, kept], self.down[p][kept]
                self.before[p] = self.before[p][kept]
            self.open_up.append(nn.Parameter(up))
            self.open_down.append(nn.Parameter(down))
        self._merged = self._closed_weights()

    @torch.no_grad()
    def close(self, moments: Sequence[Tensor]) -> None:
        """End a task; `moments` are Σ x xᵀ of its inputs x to each layer, which give the principal directions."""
        for p, (up, down) in enumerate(zip(self.open_up, self.open_down, strict=True)):
            moment = moments[p].to(torch.float64, copy=True)
            moment.diagonal().add_((FLOOR * moment.diagonal().mean()).clamp(min=1e-30))
            update = up.double() @ down.double()
            values, vectors = torch.linalg.eigh(update @ moment.to(update) @ update.T)  # ascending
            rank = up.shape[1]
            energy, directions = values.flip(0)[:rank].clamp(min=0), vectors.flip(1)[:, :rank]
            whole = energy.sum()
            before = (energy.cumsum(0) - energy) / whole if whole > 0 else torch.ones_like(energy)
            self.up[p] = torch.cat([self.up[p], directions.to(up)], dim=1)
            self.down[p] = torch.cat([self.down[p], (directions.T @ update).to(down)])
            self.before[p] = torch.cat([self.before[p], before.to(self.before[p])])
        self.tasks += 1
        self.open_up, self.open_down = [], []
        self._merged = self._closed_weights()

    def trainable(self) -> list[nn.Parameter]:
        """Factors of the open task."""
        return [*self.open_up, *self.open_down]

    @torch.no_grad()
    def weight(self, p: int) -> Float[Tensor, "width_out width_in"]:
        """W0 + ΔW of layer p, in the weights' dtype, also under autocast."""
        merged = self._merged[p]
        if not self.open_up:
            return merged
        with torch.autocast(merged.device.type, enabled=False):
            return torch.addmm(widened(merged), self.open_up[p], self.open_down[p]).to(merged.dtype)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the model computes with W0 + ΔW, for the current thread only."""
        learns = bool(self.open_up) and torch.is_grad_enabled()
        weights = [self._terms(p) if learns else self.weight(p) for p in range(len(self._layers))]
        with WEIGHTS.override(dict(zip(self._layers, weights, strict=True))):
            yield

    @contextmanager
    def applied_before(self) -> Iterator[None]:
        """Within, the model computes with the weights before the open task; for passes without gradients."""
        with WEIGHTS.override(dict(zip(self._layers, self._merged, strict=True))):
            yield

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors of the closed tasks."""
        found = {"tasks": torch.tensor(self.tasks)}
        for p, parts in enumerate(zip(self.up, self.down, self.before, strict=True)):
            found |= {f"{p}.{name}": part for name, part in zip(("up", "down", "before"), parts, strict=True)}
        return found

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        self.clear()
        with torch.inference_mode(False):
            self.tasks = int(state["tasks"])
            for name, parts in (("up", self.up), ("down", self.down), ("before", self.before)):
                parts[:] = [state[f"{p}.{name}"].to(like, copy=True) for p, like in enumerate(parts)]
            self._merged = self._closed_weights()

    def _terms(self, p: int) -> Terms:
        """The open task's factors of layer p, added to the merged weight of the closed tasks."""
        up, down = self.open_up[p], self.open_down[p]
        closed = up.detach()[:, :0], down.detach()[:0]
        return Terms(up.new_ones(up.shape[1]), up, down, *closed, self._merged[p])

    @torch.no_grad()
    def _closed_weights(self) -> list[Tensor]:
        """W0 + Σ B A of the closed tasks, of every layer."""
        return [
            torch.addmm(widened(layer.frozen.weight), self.up[p], self.down[p]).to(layer.frozen.weight.dtype)
            for p, layer in enumerate(self._layers)
        ]
