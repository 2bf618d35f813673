"""LoRAs that all tasks share in the first layers, and LoRAs of each task in the others (CL-LoRA, arXiv 2505.24816).

A shared layer p has the weight W0_p + B_p A_p with A_p fixed, of random orthonormal rows, and B_p trained by every task. For task
k another layer has W0_p + μ_{k,p} B_{k,p} A_{k,p}, all three trained by task k alone: A from orthonormal rows, B from zero, the
layer's weight μ from a uniform distribution in [0.5, 1.5].
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from newcomer.nn.lora.decoupled_linear import WEIGHTS, AdaptedLinear, Terms, adapted_linear, widened
from newcomer.shapes import Float, Tensor


@dataclass(frozen=True)
class TaskFactors:
    """One task's B and A of each layer that is not shared, and their weights μ."""

    up: Sequence[Tensor]
    down: Sequence[Tensor]
    weights: Float[Tensor, " layer"]

    def tensors(self) -> dict[str, Tensor]:
        """By names."""
        pairs = enumerate(zip(self.up, self.down, strict=True))
        named = {f"{p}.{name}": t for p, pair in pairs for name, t in zip(("up", "down"), pair, strict=True)}
        return {**named, "weights": self.weights}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "TaskFactors":
        """Inverse of `tensors`."""
        layers = range(len(tensors["weights"]))
        up, down = ([tensors[f"{p}.{name}"] for p in layers] for name in ("up", "down"))
        return cls(up, down, tensors["weights"])


class SharedAndTaskLoRA:
    """The LoRAs of the linear layers of `model` named in `projections`, the first `shared` of which are shared.

    Outside of the `applied` contexts the model computes the plain model, so several updates may share one model.
    """

    def __init__(self, model: nn.Module, projections: Sequence[str], shared: int, rank: int) -> None:
        layers = [adapted_linear(model, name) for name in projections]
        self._shared, self._own, self.rank = layers[:shared], layers[shared:], rank

    def start(self, generator: torch.Generator) -> None:
        """Set to the state before the first task."""
        self.tasks: list[TaskFactors] = []
        """Factors of the closed tasks."""
        self.down = [self._orthonormal(layer, generator) for layer in self._shared]
        """A of the shared layers."""
        self.up = [nn.Parameter(self._zeros(layer)) for layer in self._shared]
        """B of the shared layers."""
        self.open_task: TaskFactors | None = None
        self._old_up = [up.detach().clone() for up in self.up]
        self._own_weights: list[list[Tensor]] = []
        self._merge_shared()

    def open(self, generator: torch.Generator) -> list[nn.Parameter]:
        """Begin a task; returns all parameters that it trains."""
        up = [nn.Parameter(self._zeros(layer)) for layer in self._own]
        down = [nn.Parameter(self._orthonormal(layer, generator)) for layer in self._own]
        weights = nn.Parameter(torch.empty(len(up)).uniform_(0.5, 1.5, generator=generator).to(self.up[0]))
        self._old_up = [own.detach().clone() for own in self.up]
        self.open_task = TaskFactors(up, down, weights)
        return [*self.up, *up, *down, weights]

    def close(self) -> TaskFactors:
        """End a task; returns its factors."""
        assert self.open_task is not None
        task = self.open_task
        self.append(TaskFactors([t.detach() for t in task.up], [t.detach() for t in task.down], task.weights.detach()))
        self.open_task = None
        self._merge_shared()
        return self.tasks[-1]

    def append(self, task: TaskFactors) -> None:
        """Append a closed task's factors."""
        like = self.up[0]
        up, down = ([t.to(like.device) for t in factors] for factors in (task.up, task.down))
        weights = task.weights.to(like.device)
        self.tasks.append(TaskFactors(up, down, weights))
        with torch.inference_mode(False):
            scaled = [weight * t for weight, t in zip(weights, up, strict=True)]
            self._own_weights.append(_merged(self._own, scaled, down))

    def set_shared(self, up: Sequence[Tensor], down: Sequence[Tensor]) -> None:
        """Replace the shared factors."""
        with torch.inference_mode(False):
            self.up = [nn.Parameter(new.to(old.device, copy=True)) for new, old in zip(up, self.up, strict=True)]
            self.down = [new.to(old.device, copy=True) for new, old in zip(down, self.down, strict=True)]
            self._merge_shared()

    def overlap(self) -> Float[Tensor, ""]:
        """Mean |cos| of the open task's weights with those of each closed task."""
        assert self.open_task is not None
        own = self.open_task.weights
        cosines = [torch.cosine_similarity(own, task.weights, dim=0).abs() for task in self.tasks]
        return torch.stack(cosines).mean()

    @contextmanager
    def applied(self, number: int) -> Iterator[None]:
        """Within, the model computes with the shared LoRAs and those of this closed task, for the current thread only."""
        weights = [*self._shared_weights, *self._own_weights[number]]
        with WEIGHTS.override(dict(zip([*self._shared, *self._own], weights, strict=True))):
            yield

    @contextmanager
    def applied_open(self) -> Iterator[None]:
        """Within, the model computes with the shared LoRAs and those of the open task, with gradients."""
        task = self.open_task
        assert task is not None
        scales = [weight.expand(self.rank) for weight in task.weights]
        with self._lent(self._shared, self.up, self.down), self._lent(self._own, task.up, task.down, scales):
            yield

    @contextmanager
    def applied_shared(self, old: bool) -> Iterator[None]:
        """Within, the model computes with the shared LoRAs alone, the `old` ones being those before the open task.

        Gradients of the new ones are reassigned: those of a row of B are multiplied by its norm before the task, relative to the
        mean over rows.
        """
        up = self._old_up if old else [_scaled(new, was) for new, was in zip(self.up, self._old_up, strict=True)]
        with self._lent(self._shared, up, self.down):
            yield

    @contextmanager
    def _lent(
        self,
        layers: Sequence[AdaptedLinear],
        ups: Sequence[Tensor],
        downs: Sequence[Tensor],
        scales: Sequence[Tensor] | None = None,
    ) -> Iterator[None]:
        lent: dict[nn.Module, Terms | Tensor] = {}
        for p, (layer, up, down) in enumerate(zip(layers, ups, downs, strict=True)):
            scale = up.new_ones(self.rank) if scales is None else scales[p]
            if torch.is_grad_enabled() and any(t.requires_grad for t in (up, down, scale)):
                lent[layer] = Terms(scale, up, down, up.detach()[:, :0], down.detach()[:0])
            else:
                (lent[layer],) = _merged([layer], [up * scale], [down])
        with WEIGHTS.override(lent):
            yield

    def _merge_shared(self) -> None:
        self._shared_weights = _merged(self._shared, self.up, self.down)

    def _zeros(self, layer: AdaptedLinear) -> Float[Tensor, "width_out rank"]:
        weight = widened(layer.frozen.weight.detach()[:0])
        return weight.new_zeros(layer.frozen.out_features, self.rank)

    def _orthonormal(self, layer: AdaptedLinear, generator: torch.Generator) -> Float[Tensor, "rank width_in"]:
        random = torch.rand(layer.frozen.in_features, self.rank, generator=generator)
        found: Tensor = torch.linalg.qr(random)[0].T
        return found.contiguous().to(layer.frozen.weight.device)


@torch.no_grad()
def _merged(layers: Sequence[AdaptedLinear], ups: Sequence[Tensor], downs: Sequence[Tensor]) -> list[Tensor]:
    """W0 + B A of each layer, in the weights' dtype, also under autocast."""
    frozen = [layer.frozen.weight for layer in layers]
    with torch.autocast(frozen[0].device.type, enabled=False):
        return [
            torch.addmm(widened(weight), up, down).to(weight.dtype)
            for weight, up, down in zip(frozen, ups, downs, strict=True)
        ]


class _ScaleGradient(torch.autograd.Function):
    """The same values; the gradient of each row is multiplied."""

    @staticmethod
    def forward(ctx: Any, up: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return up.view_as(up)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return gradient * factor, None


def _scaled(up: Tensor, old: Tensor) -> Tensor:
    norms = old.norm(dim=1, keepdim=True)
    found: Tensor = _ScaleGradient.apply(up, norms / norms.mean().clamp(min=1e-12))  # type: ignore[no-untyped-call]
    return found
