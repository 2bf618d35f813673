"""Linear layer with a low-rank update, W = W0 + Σ_i s_i b_i a_iᵀ, at the cost of the plain layer.

The product with W is one, whatever the number of terms. What is trained are the scales s and the newest terms' factors; with g
the gradient at the outputs and x the inputs of all N tokens, their gradients are parts of one matrix, G = gᵀx, which can be had
in two ways:

- *thin*: u = g B and z = x Aᵀ, then ∂s = Σ_n u∘z, ∂b = gᵀ(z s), ∂a = (u s)ᵀx: about N · R · (in + out) multiplications;
- *dense*: G itself, then ∂s_i = b_iᵀ G a_i, ∂b = G Aᵀ s, ∂a = s BᵀG: about (N + R) · in · out.

`low_rank_is_cheaper` chooses; `benchmarks/speed/bank.py` measures both over the shapes at hand.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from newcomer.nn.forward_context import ForwardContext
from newcomer.shapes import Float, Tensor

LOW_RANK_COST, LOW_RANK_OVERHEAD = 0.55, 200
"""Cost of a multiplication of the low-rank products relative to the dense one, and extra ranks for their fixed cost (they are
memory-bound)."""


@dataclass(frozen=True)
class Terms:
    """Terms that are merged into a weight within the layer's pass; the factors of the newest are `open`, the others frozen.

    Backward passes merge them once more, so that no merged weight outlives its layer's pass: the layer's own weight may be there
    for that time alone (`backbones.sharding`).
    """

    scales: Float[Tensor, " rank"]
    open_up: Float[Tensor, "width_out open"]
    open_down: Float[Tensor, "open width_in"]
    up: Float[Tensor, "width_out closed"]
    down: Float[Tensor, "closed width_in"]
    weight: Float[Tensor, "width_out width_in"] | None = None
    """What they are added to; None: the layer's own weight."""


WEIGHTS: ForwardContext[Tensor | Terms] = ForwardContext()
"""Weight or terms of the adapted layers in the current forward pass."""


class AdaptedLinear(nn.Module):
    """A frozen linear layer whose weight is overridden in a pass (`WEIGHTS`): by a weight, or by `Terms` for gradients."""

    def __init__(self, frozen: nn.Linear) -> None:
        super().__init__()
        self.frozen = frozen
        self.train(frozen.training)

    @property
    def is_sharded(self) -> bool:
        """Whether its weight is a shard outside of the pass of its block (FSDP2)."""
        return hasattr(self.frozen.weight, "placements")  # of torch's DTensor, whose import takes long

    @property
    def override(self) -> Tensor | Terms | None:
        """Override in the current thread's pass."""
        return WEIGHTS.of(self)

    def forward(self, x: Float[Tensor, "*batch width_in"]) -> Float[Tensor, "*batch width_out"]:
        lent = self.override
        if isinstance(lent, Terms):
            t, bias = lent, self.frozen.bias
            weight = self.frozen.weight if t.weight is None else t.weight
            found: Tensor = _Multiply.apply(  # type: ignore[no-untyped-call]
                x, weight, bias, t.scales, t.open_up, t.open_down, t.up, t.down
            )
            return found
        return F.linear(x, self.frozen.weight if lent is None else lent, self.frozen.bias)


def adapted_linear(model: nn.Module, name: str) -> AdaptedLinear:
    """The linear layer of this name in `model`, replaced by an `AdaptedLinear` unless it is one."""
    layer = model.get_submodule(name)
    if isinstance(layer, AdaptedLinear):
        return layer
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"{name} is a {type(layer).__name__}, not a linear layer")
    adapted = AdaptedLinear(layer)
    model.set_submodule(name, adapted)
    return adapted


def widened(weight: Tensor) -> Tensor:
    """Float32 for half precision, whose digits are too few to learn with."""
    return weight.to(torch.promote_types(weight.dtype, torch.float32))


def merged(
    weight: Float[Tensor, "width_out width_in"],
    up: Float[Tensor, "width_out rank"],
    down: Float[Tensor, "rank width_in"],
) -> Float[Tensor, "width_out width_in"]:
    """W + B A in the dtype of W, also under autocast."""
    with torch.autocast(weight.device.type, enabled=False):
        return torch.addmm(widened(weight), up, down).to(weight.dtype)


def low_rank_is_cheaper(tokens: int, rank: int, width_in: int, width_out: int) -> bool:
    """Whether the factors' gradients are cheaper without the dense gradient G.

    >>> low_rank_is_cheaper(tokens=3940, rank=10, width_in=768, width_out=768)
    True
    >>> low_rank_is_cheaper(tokens=1000, rank=1000, width_in=192, width_out=192)
    False
    """
    cost = LOW_RANK_COST * (rank + LOW_RANK_OVERHEAD) * (width_in + width_out)
    return cost * tokens < (tokens + rank) * width_in * width_out


class _Multiply(torch.autograd.Function):
    """x (W + B A)ᵀ + bias; under autocast in the lower precision, as torch's linear layers."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scales: Tensor,
        open_up: Tensor,
        open_down: Tensor,
        up: Tensor,
        down: Tensor,
    ) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        ctx.outer, x = x.dtype, x.to(dtype)
        ctx.save_for_backward(x, weight, scales, open_up, open_down, up, down)
        whole = merged(weight, torch.cat([up, open_up], dim=1) * scales, torch.cat([down, open_down]))
        return F.linear(x, whole.to(dtype), None if bias is None else bias.to(dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scales, open_up, open_down, up, down = ctx.saved_tensors
        dtype, into = x.dtype, None
        b, a = torch.cat([up, open_up], dim=1), torch.cat([down, open_down])
        if ctx.needs_input_grad[0]:
            into = (gradient @ merged(weight, b * scales, a).to(dtype)).to(ctx.outer)
        g, x = gradient.flatten(0, -2), x.flatten(0, -2)
        b, a = b.to(dtype), a.to(dtype)
        ranks = slice(up.shape[1], None)
        if low_rank_is_cheaper(x.shape[0], b.shape[1], x.shape[1], g.shape[1]):
            u, z = g @ b, x @ a.T
            scaled = scales[ranks].to(dtype)
            of_scales = (u * z).sum(0, dtype=scales.dtype)
            of_up, of_down = g.T @ (z[:, ranks] * scaled), (u[:, ranks] * scaled).T @ x
        else:
            whole = (g.T @ x).to(scales.dtype)
            b, a = b.to(scales.dtype), a.to(scales.dtype)
            half = b.T @ whole
            of_scales = (half * a).sum(1)
            of_up = whole @ (a[ranks].T * scales[ranks])
            of_down = half[ranks] * scales[ranks, None]
        return into, None, None, of_scales, of_up.to(open_up.dtype), of_down.to(open_down.dtype), None, None
