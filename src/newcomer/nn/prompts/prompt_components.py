"""Prompt components of CODA-Prompt (Smith et al., CVPR 2023, section 4): weighted sums of prompts.

Every layer has its own components, each with a prompt P_m, a key k_m and an attention vector a_m over the query's features:

    p = Σ_m α_m P_m          α_m = cos(q ∘ a_m, k_m)          (eq. 2-5)

The first half of p's rows are keys of a prefix, the second half values. A task adds components of its own; those of earlier
tasks are frozen, but go on being part of the sum. New ones start orthogonal to the old ones and to each other, each of P, k and a
among its like, and a penalty ‖X Xᵀ − I‖² holds them there (eq. 6).
"""

import torch
from torch import nn
from torch.nn import functional as F

from newcomer.nn.prompts.prefixes import Prefix
from newcomer.shapes import Float, Tensor

PARTS = ("attention", "key", "prompt")


class PromptComponents(nn.Module):
    """Components of all tasks in each layer; a component's prompt has `rows` rows, an even number."""

    attention: Float[Tensor, "layer component width_query"]
    key: Float[Tensor, "layer component width_query"]
    prompt: Float[Tensor, "layer component row width"]

    def __init__(self, layers: int, rows: int, width_query: int, width: int) -> None:
        super().__init__()
        self.register_buffer("attention", torch.zeros(layers, 0, width_query))
        self.register_buffer("key", torch.zeros(layers, 0, width_query))
        self.register_buffer("prompt", torch.zeros(layers, 0, rows, width))
        self.fresh = nn.ParameterDict()
        """Components of the open task, by the names of `PARTS`."""

    @property
    def components(self) -> int:
        """Number of closed components in each layer."""
        return self.key.shape[1]

    def clear(self) -> None:
        """Remove all components."""
        for name in PARTS:
            setattr(self, name, getattr(self, name)[:, :0])
        self.fresh = nn.ParameterDict()

    def open(self, count: int, generator: torch.Generator) -> None:
        """Add new components, orthogonal to the old ones as far as possible (`orthonormal_rows`)."""
        for name in PARTS:
            old: Tensor = getattr(self, name)
            rows = [orthonormal_rows(layer.flatten(1), count, generator) for layer in old]
            self.fresh[name] = nn.Parameter(torch.stack(rows).reshape(len(old), count, *old.shape[2:]))

    def close(self) -> None:
        """Freeze the open task's components."""
        self.append({name: part.detach() for name, part in self.fresh.items()})
        self.fresh = nn.ParameterDict()

    def append(self, parts: dict[str, Tensor]) -> None:
        """Append the components of a closed task, by the names of `PARTS`."""
        for name in PARTS:
            old: Tensor = getattr(self, name)
            setattr(self, name, torch.cat([old, parts[name].to(old)], dim=1))

    def weights(self, query: Float[Tensor, "batch width_query"]) -> Float[Tensor, "layer batch component"]:
        """α, without computing q ∘ a for every pair."""
        attention, keys = self._all("attention"), F.normalize(self._all("key"), dim=2)
        lengths = (query.square() @ attention.square().mT).clamp(min=1e-12).sqrt()
        return query @ (attention * keys).mT / lengths

    def forward(self, query: Float[Tensor, "batch width_query"]) -> list[Prefix]:
        """One prefix a layer; none before the first task."""
        if not self.components and not len(self.fresh):
            return []
        rows = torch.einsum("lbc,lcrw->lbrw", self.weights(query), self._all("prompt"))
        return [Prefix(*layer.chunk(2, dim=1)) for layer in rows]

    def penalty(self) -> Float[Tensor, ""]:
        """Orthonormality penalty: mean square of X Xᵀ − I, summed over layers and P, k and a."""
        found = []
        for name in PARTS:
            rows = self._all(name).flatten(2)
            found.append((rows @ rows.mT - torch.eye(rows.shape[1]).to(rows)).square().mean((1, 2)).sum())
        return torch.stack(found).sum()

    def _all(self, name: str) -> Tensor:
        closed: Tensor = getattr(self, name)
        return torch.cat([closed, self.fresh[name]], dim=1) if len(self.fresh) else closed


def orthonormal_rows(
    old: Float[Tensor, "old width"], count: int, generator: torch.Generator
) -> Float[Tensor, "count width"]:
    """Random orthonormal rows, orthogonal to the `old` ones too.

    At most `width` rows can be orthogonal; the others are random.

    >>> orthonormal_rows(torch.tensor([[2.0, 0.0]]), 1, torch.Generator()).abs()
    tensor([[0., 1.]])
    """
    rows = torch.randn(count, old.shape[1], dtype=torch.float64, generator=generator)
    basis, _ = torch.linalg.qr(torch.cat([old.detach().cpu().double(), rows]).T)  # column by column: Gram and Schmidt's
    fresh = basis[:, len(old) :].T
    return torch.cat([fresh, F.normalize(rows[len(fresh) :], dim=1)]).to(old)
