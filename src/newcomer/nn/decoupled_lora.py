"""Decoupled low-rank adaptation (SD-LoRA, Wu et al., ICLR 2025, eq. 3-4): directions and magnitudes.

All adapted projections p of a frozen model are seen as one long weight vector. Task k moves it along one direction of unit norm:

    W_p = W0_p + Σ_{k<t} α_k D_{k,p} + α_t B_{t,p} A_{t,p}            D_{k,p} = B_{k,p} A_{k,p} / n_k

Directions of closed tasks (k < t) are frozen; the open task t trains its factors A (r × in) and B (out × r), B starting at 0;
*all* magnitudes α are trained. Closing a task divides its factors by their norm n_t and multiplies α_t by it, so that no output
changes. The norm comes from r × r Gram matrices, ‖BA‖² = Σ (BᵀB)∘(AAᵀ); a task whose B never moved closes to a zero term.

With `shared` magnitudes (the paper's) α_k is one number a task and n_k the norm over all projections together; with one
magnitude a `projection` n_{k,p} is each projection's own. The paper divides by each projection's own norm while sharing α, which
cannot be reached from a trained task without a jump in the function; taking the norm of the whole update can.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from newcomer.shapes import Float, Tensor

Sharing = Literal["shared", "projection"]


class AdaptedLinear(nn.Module):
    """A frozen linear layer that multiplies by `weight` while one is lent to it, else by its own."""

    def __init__(self, frozen: nn.Linear) -> None:
        super().__init__()
        self.frozen = frozen
        self.weight: Tensor | None = None

    def forward(self, x: Float[Tensor, "*batch width_in"]) -> Float[Tensor, "*batch width_out"]:
        return F.linear(x, self.frozen.weight if self.weight is None else self.weight, self.frozen.bias)


class DecoupledLoRA(nn.Module):
    """The directions and magnitudes of all tasks, for the linear layers of `model` named in `projections`.

    The layers are replaced by `AdaptedLinear`; everything else in `model` stays as it is. Outside of `applied()` the model
    computes what it always did, so that several banks may share one model.
    """

    def __init__(self, model: nn.Module, projections: Sequence[str], magnitudes: Sharing = "shared") -> None:
        super().__init__()
        self._layers = [_adapted(model, name) for name in projections]  # a plain list: the model owns them
        self.sharing = magnitudes
        self.clear()

    def clear(self) -> None:
        """Back to before the first task."""
        like = self._layers[0].frozen.weight
        self.ranks: list[int] = []
        """Rank of each closed task's direction."""
        self.magnitudes = nn.Parameter(like.new_zeros(0, 1 if self.sharing == "shared" else len(self._layers)))
        """α, one row a task (the open one's last), one column for all projections or one for each."""
        self.down: list[Tensor] = [like.new_zeros(0, layer.frozen.in_features) for layer in self._layers]
        self.up: list[Tensor] = [like.new_zeros(layer.frozen.out_features, 0) for layer in self._layers]
        self.open_down, self.open_up = nn.ParameterList(), nn.ParameterList()

    @property
    def tasks(self) -> int:
        """How many tasks are closed."""
        return len(self.ranks)

    def open(self, rank: int, generator: torch.Generator) -> None:
        """Start a new direction: A uniform in ±1/√in (as LoRA's), B zero, its magnitude 1."""
        for layer in self._layers:
            weight = layer.frozen.weight
            bound = weight.shape[1] ** -0.5
            down = torch.empty(rank, weight.shape[1]).uniform_(-bound, bound, generator=generator)
            self.open_down.append(down.to(weight))
            self.open_up.append(weight.new_zeros(weight.shape[0], rank))
        one = self.magnitudes.new_ones(1, self.magnitudes.shape[1])
        self.magnitudes = nn.Parameter(torch.cat([self.magnitudes.detach(), one]))

    @torch.no_grad()
    def close(self) -> None:
        """Freeze the open direction at unit norm; its magnitude takes the norm along, so that no output changes."""
        squares = torch.stack([_squared_norm(b, a) for b, a in zip(self.open_up, self.open_down, strict=True)])
        norms = (squares.sum() if self.sharing == "shared" else squares).sqrt().reshape(-1)
        self.magnitudes[-1] *= norms
        scales = torch.where(norms > 0, 1 / norms, torch.zeros_like(norms)).expand(len(self._layers))
        rank = self.open_down[0].shape[0]
        for p, (b, a) in enumerate(zip(self.open_up, self.open_down, strict=True)):
            self.down[p] = torch.cat([self.down[p], a.detach()])
            self.up[p] = torch.cat([self.up[p], b.detach() * scales[p]], dim=1)
        self.ranks.append(rank)
        self.open_down, self.open_up = nn.ParameterList(), nn.ParameterList()

    def direction(self, task: int) -> list[tuple[Float[Tensor, "width_out rank"], Float[Tensor, "rank width_in"]]]:
        """The factors of a closed task's direction: D_{k,p} = up @ down, one pair a projection."""
        start = sum(self.ranks[:task])
        part = slice(start, start + self.ranks[task])
        return [(up[:, part], down[part]) for up, down in zip(self.up, self.down, strict=True)]

    @torch.no_grad()
    def restore(self, direction: Sequence[tuple[Tensor, Tensor]], magnitudes: Float[Tensor, "task projection"]) -> None:
        """Append a closed task as `direction` gave it, with the magnitudes of all tasks as they were after it."""
        for p, (up, down) in enumerate(direction):
            self.up[p] = torch.cat([self.up[p], up.to(self.up[p])], dim=1)
            self.down[p] = torch.cat([self.down[p], down.to(self.down[p])])
        self.ranks.append(direction[0][1].shape[0])
        self.magnitudes = nn.Parameter(magnitudes.to(self.magnitudes))

    def update(self, p: int) -> Float[Tensor, "width_out width_in"]:
        """ΔW of projection p: all tasks' terms in one matrix product, with gradients to every magnitude and the open factors."""
        column = self.magnitudes[:, 0 if self.sharing == "shared" else p]
        ranks = torch.tensor([*self.ranks, *(a.shape[0] for a in self.open_down[p : p + 1])], device=column.device)
        factors = column.repeat_interleave(ranks, output_size=int(ranks.sum()))
        up, down = self.up[p], self.down[p]
        if len(self.open_up):
            up, down = torch.cat([up, self.open_up[p]], dim=1), torch.cat([down, self.open_down[p]])
        return (up * factors) @ down

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the model computes with W0 + ΔW, formed once: each layer costs what it did before any task."""
        for p, layer in enumerate(self._layers):
            layer.weight = layer.frozen.weight + self.update(p)
        try:
            yield
        finally:
            for layer in self._layers:
                layer.weight = None

    def trainable(self) -> Mapping[str, list[nn.Parameter]]:
        """What the open task trains: the factors, and the magnitudes of all tasks."""
        return {"factors": [*self.open_down, *self.open_up], "magnitudes": [self.magnitudes]}


def _adapted(model: nn.Module, name: str) -> AdaptedLinear:
    layer = model.get_submodule(name)
    if isinstance(layer, AdaptedLinear):
        return layer
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"{name} is a {type(layer).__name__}, not a linear layer")
    adapted = AdaptedLinear(layer)
    model.set_submodule(name, adapted)
    return adapted


def _squared_norm(up: Float[Tensor, "width_out rank"], down: Float[Tensor, "rank width_in"]) -> Float[Tensor, ""]:
    return ((up.T @ up) * (down @ down.T)).sum().clamp(min=0)
