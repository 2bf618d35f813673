"""Decoupled low-rank adaptation (SD-LoRA, Wu et al., ICLR 2025, eq. 3-4): directions and magnitudes.

All adapted projections p of a frozen model are seen as one long weight vector. Task k moves it along one direction of unit norm:

    W_p = W0_p + Σ_{k<t} α_k D_{k,p} + α_t B_{t,p} A_{t,p}    D_{k,p} = B_{k,p} A_{k,p} / n_k

Directions of closed tasks (k < t) are frozen; the open task t trains its factors A (r × in) and B (out × r), B starting at 0;
*all* magnitudes α are trained. Closing a task divides its factors by their norm n_t and multiplies α_t by it, so that no output
changes. The norm comes from r × r Gram matrices, ‖BA‖² = Σ (BᵀB)∘(AAᵀ); a task whose B never moved closes to a zero term.

With `shared` magnitudes (the paper's) α_k is one number a task and n_k the norm over all projections together; with one
magnitude a `projection` n_{k,p} is each projection's own. The paper divides by each projection's own norm while sharing α, which
cannot be reached from a trained task without a jump in the function; taking the norm of the whole update can.

The factors of all tasks are stacked, so that W_p is one matrix product whatever the number of tasks, formed in the layer's pass;
`nn.lora.decoupled_linear` multiplies by it and computes the gradients. Without gradients W_p is cached until something changes:
the plain model's cost. Where W0_p is sharded (`backbones.sharding`) nothing is cached.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from newcomer.nn.lora.decoupled_linear import WEIGHTS, Terms, adapted_linear, merged
from newcomer.shapes import Float, Tensor

Sharing = Literal["shared", "projection"]


SAMPLED = 32
"""Entries of each tensor that are compared before every pass: a change through `.data` leaves no other trace."""


@dataclass(frozen=True)
class _Folded:
    """Merged weights, and the state of their parts at that time."""

    weights: list[Tensor]
    parts: list[tuple[Tensor, int, int]]
    """Each part with its version and address."""
    samples: list[Tensor]
    """Views of a few entries of each part."""
    sampled: Tensor

    @classmethod
    def of(cls, parts: Sequence[Tensor], form: Callable[[], list[Tensor]]) -> "_Folded":
        """Merge these parts; the first is compared entirely."""
        noted = [(part, part._version, part.data_ptr()) for part in parts]
        samples = [_sample(part, part.numel() if part is parts[0] else SAMPLED) for part in parts]
        sampled = torch.cat(samples)  # before merging, so that a concurrent change is noticed at the next pass
        return cls(form(), noted, samples, sampled)

    def is_valid(self, parts: Sequence[Tensor]) -> bool:
        """Whether the parts are unchanged."""
        same = len(parts) == len(self.parts) and all(
            part is old and part._version == version and part.data_ptr() == address
            for part, (old, version, address) in zip(parts, self.parts, strict=True)
        )
        return same and torch.equal(torch.cat(self.samples), self.sampled)


class DecoupledLoRA(nn.Module):
    """The directions and magnitudes of all tasks, for the linear layers of `model` named in `projections`.

    The layers are replaced by `AdaptedLinear`; everything else in `model` stays as it is. Outside of `applied()` the model
    computes the plain model, so several updates may share one model.
    """

    def __init__(self, model: nn.Module, projections: Sequence[str], magnitudes: Sharing = "shared") -> None:
        super().__init__()
        self._layers = [adapted_linear(model, name) for name in projections]  # a plain list: the model owns the layers
        self.sharing = magnitudes
        self.clear()

    def clear(self) -> None:
        """Remove all directions."""
        frozen = self._layers[0].frozen.weight
        like = torch.zeros(0, dtype=torch.promote_types(frozen.dtype, torch.float32), device=frozen.device)
        self.ranks: list[int] = []
        """Rank of each closed direction."""
        self.magnitudes = nn.Parameter(like.new_zeros(0, 1 if self.sharing == "shared" else len(self._layers)))
        """α: one row a direction (the open one last), one column for all projections or one for each."""
        self.down: list[Tensor] = [like.new_zeros(0, layer.frozen.in_features) for layer in self._layers]
        self.up: list[Tensor] = [like.new_zeros(layer.frozen.out_features, 0) for layer in self._layers]
        self.open_down, self.open_up = nn.ParameterList(), nn.ParameterList()
        self._folded: _Folded | None = None

    @property
    def largest_rank(self) -> int:
        """Rank of the largest projection: no direction can have a higher one."""
        return max(min(layer.frozen.weight.shape) for layer in self._layers)

    @property
    def directions(self) -> int:
        """Number of closed directions."""
        return len(self.ranks)

    def open(self, rank: int, generator: torch.Generator) -> None:
        """Add a new direction: A uniform in ±1/√in (as in LoRA), B zero, magnitude 1."""
        self._folded = None  # training takes the memory that another copy of the weights would keep
        for layer in self._layers:
            weight = layer.frozen.weight
            bound = weight.shape[1] ** -0.5
            down = torch.empty(rank, weight.shape[1]).uniform_(-bound, bound, generator=generator)
            self.open_down.append(down.to(self.magnitudes))
            self.open_up.append(self.magnitudes.new_zeros(weight.shape[0], rank))
        one = self.magnitudes.new_ones(1, self.magnitudes.shape[1])
        self.magnitudes = nn.Parameter(torch.cat([self.magnitudes.detach(), one]))

    @torch.no_grad()
    def close(self) -> None:
        """Freeze the open direction at unit norm; its magnitude is multiplied by the norm, so outputs do not change."""
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

    def direction(self, index: int) -> list[tuple[Float[Tensor, "width_out rank"], Float[Tensor, "rank width_in"]]]:
        """Factors of a closed direction: D_{k,p} = up @ down, one pair a projection."""
        start = sum(self.ranks[:index])
        part = slice(start, start + self.ranks[index])
        return [(up[:, part], down[part]) for up, down in zip(self.up, self.down, strict=True)]

    @torch.no_grad()
    def append(self, direction: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Append a closed direction, as returned by `direction`; its magnitude is set by `set_magnitudes`."""
        for p, (up, down) in enumerate(direction):
            self.up[p] = torch.cat([self.up[p], up.to(self.up[p])], dim=1)
            self.down[p] = torch.cat([self.down[p], down.to(self.down[p])])
        self.ranks.append(direction[0][1].shape[0])

    def set_magnitudes(self, magnitudes: Float[Tensor, "task projection"]) -> None:
        """Replace the magnitudes of all directions."""
        self.magnitudes = nn.Parameter(magnitudes.detach().to(self.magnitudes, copy=True))

    def products(self) -> Float[Tensor, "projection direction direction"]:
        """Inner products ⟨D_{j,p}, D_{k,p}⟩ of all directions, an open one last, from the factors' Gram matrices."""
        ranks = self._ranks()
        member = torch.eye(len(ranks), dtype=self.magnitudes.dtype).repeat_interleave(torch.tensor(ranks), dim=0)
        member = member.to(self.magnitudes)
        factors = (self._factors(p) for p in range(len(self._layers)))
        return torch.stack([member.T @ ((up.T @ up) * (down @ down.T)) @ member for up, down in factors])

    @torch.no_grad()
    def residual(self) -> tuple[float, Float[Tensor, "older projection"]]:
        """Relative residual of the newest direction, open or closed, on the older ones, and the least-squares coefficients.

        Least squares, Δ = argmin ‖D_t − Σ_{k<t} Δ_k D_k‖²; the relative residual is that minimum over ‖D_t‖², in [0, 1], and 0
        for a direction that is zero. Shared magnitudes have one fit over all projections together; with a magnitude each
        projection every one has its own, and the residual is that of the whole update, Σ_p α²_{t,p} residual_p / Σ_p α²_{t,p}.
        """
        products = self.products().double()
        if self.sharing == "shared":
            products = products.sum(0, keepdim=True)
        old, new, norm = products[:, :-1, :-1], products[:, :-1, -1:], products[:, -1, -1]
        fit = torch.linalg.pinv(old, hermitian=True) @ new  # two older directions may be the same
        left = (norm - (new * fit).sum((1, 2))).clamp(min=0)
        weight = self.magnitudes[-1].double().square()
        whole = (weight * norm).sum()
        return float((weight * left).sum() / whole) if whole > 0 else 0.0, fit[:, :, 0].T

    @torch.no_grad()
    def distill(self, threshold: float) -> bool:
        """Drop the newest direction if the older ones explain it (SD-LoRA-KD); returns whether it was dropped.

        If the relative residual is at most `threshold`, the fit replaces the direction, α_k ← α_k + α_t Δ_k. The first direction
        stays. The paper's threshold is an absolute 9e-4; a relative one has a meaning whatever
        the widths.
        """
        residual, fit = self.residual()
        if self.directions < 2 or residual > threshold:
            return False
        magnitudes = self.magnitudes[:-1] + self.magnitudes[-1] * fit.to(self.magnitudes)
        rank = self.ranks.pop()
        self.up = [up[:, :-rank] for up in self.up]
        self.down = [down[:-rank] for down in self.down]
        self.magnitudes = nn.Parameter(magnitudes)
        return True

    def update(self, p: int) -> Float[Tensor, "width_out width_in"]:
        """ΔW of projection p, in one matrix product for all tasks."""
        up, down = self.terms(p)
        return up @ down

    def weight(self, p: int) -> Float[Tensor, "width_out width_in"]:
        """W0 + ΔW of projection p, in the weights' dtype, also under autocast."""
        return merged(self._layers[p].frozen.weight, *self.terms(p))

    def terms(self, p: int) -> tuple[Float[Tensor, "width_out rank"], Float[Tensor, "rank width_in"]]:
        """ΔW of projection p as two factors, up @ down: all directions side by side, each with its magnitude on `up`."""
        up, down = self._factors(p)
        return up * self._scales(p), down

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the model computes with W0 + ΔW, merged: each layer costs what the plain one costs.

        For the current thread only: others may use the same model with this update, another, or none.
        """
        folds = not torch.is_grad_enabled() and not self._is_sharded
        with self._lent(self._fold() if folds else self._terms()):
            yield

    def snapshot(self) -> Callable[[], AbstractContextManager[None]]:
        """`applied` with the merged weights as they are now, whatever is trained later; for passes without gradients."""
        with torch.no_grad():
            kept: Sequence[Terms | Tensor] = [_copied(t) for t in self._terms()] if self._is_sharded else self._fold()
        return lambda: self._lent(kept)

    @contextmanager
    def _lent(self, weights: Sequence[Terms | Tensor]) -> Iterator[None]:
        with WEIGHTS.override(dict(zip(self._layers, weights, strict=True))):
            yield

    def trainable(self) -> Mapping[str, list[nn.Parameter]]:
        """Trained parameters: the open task's factors, and all magnitudes."""
        return {"factors": [*self.open_down, *self.open_up], "magnitudes": [self.magnitudes]}

    def _terms(self) -> list[Terms]:
        """Terms of W0 + ΔW for the gradients, for every projection."""
        found = []
        for p in range(len(self._layers)):
            up, down = (
                (self.open_up[p], self.open_down[p]) if len(self.open_up) else (self.up[p][:, :0], self.down[p][:0])
            )
            found.append(Terms(self._scales(p), up, down, self.up[p], self.down[p]))
        return found

    @property
    def _is_sharded(self) -> bool:
        return any(layer.is_sharded for layer in self._layers)

    def refold(self) -> None:
        """Merge the weights again at the next pass: needed after single entries were changed through `.data`.

        Every other change is noticed: in-place, a replaced tensor, and through `.data` of whole tensors or magnitudes.
        """
        self._folded = None

    def _fold(self) -> list[Tensor]:
        """Merged weights of every projection, cached until a part changes."""
        parts = [self.magnitudes, *self.open_up, *self.open_down, *self.up, *self.down]
        parts += [layer.frozen.weight for layer in self._layers]
        if any(part.is_inference() for part in parts):  # inference tensors have no version
            return [self.weight(p) for p in range(len(self._layers))]
        folded = self._folded
        if folded is None or not folded.is_valid(parts):
            with torch.inference_mode(False), torch.no_grad():
                folded = self._folded = _Folded.of(parts, lambda: [self.weight(p) for p in range(len(self._layers))])
        return folded.weights

    def _ranks(self) -> list[int]:
        return [*self.ranks, *(down.shape[0] for down in self.open_down[:1])]

    def _scales(self, p: int) -> Float[Tensor, " rank"]:
        """Magnitude of each direction, repeated for each of its ranks."""
        ranks = torch.tensor(self._ranks(), dtype=torch.long, device=self.magnitudes.device)
        column = self.magnitudes[:, 0 if self.sharing == "shared" else p]
        return column.repeat_interleave(ranks, output_size=sum(self._ranks()))

    def _factors(self, p: int) -> tuple[Float[Tensor, "width_out rank"], Float[Tensor, "rank width_in"]]:
        if not len(self.open_up):
            return self.up[p], self.down[p]
        return torch.cat([self.up[p], self.open_up[p]], dim=1), torch.cat([self.down[p], self.open_down[p]])


def _sample(part: Tensor, count: int) -> Tensor:
    """A view of about `count` evenly spaced entries; of a non-contiguous tensor, of its first row."""
    flat = part.detach()
    flat = flat.view(-1) if flat.is_contiguous() else flat[0]
    step = max(1, len(flat) // max(1, count))
    return flat[:: step if step % 2 else step + 1]  # an odd step reaches all columns


def _copied(terms: Terms) -> Terms:
    """With copies of what is trained in place."""
    return replace(terms, open_up=terms.open_up.clone(), open_down=terms.open_down.clone())


def _squared_norm(up: Float[Tensor, "width_out rank"], down: Float[Tensor, "rank width_in"]) -> Float[Tensor, ""]:
    return ((up.T @ up) * (down @ down.T)).sum().clamp(min=0)
