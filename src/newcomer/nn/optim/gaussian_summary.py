"""Gaussian summary of the likelihood of events that are not kept: a square-root information filter (Bierman 1977, ch. 5)."""

from dataclasses import dataclass

import torch

from newcomer.shapes import Float, Tensor

NEGLIGIBLE = 1e-4
"""Directions with less information than this, in units of the prior's precision, are dropped."""

MAX_RANK = 64
"""Most directions of a summary: bounds an item's memory."""


@dataclass(frozen=True)
class GaussianSummary:
    """log p(events | δ) ≈ gᵀδ − |Aδ|² / 2 + constant, item by item; δ = (φ − φ₀) / s is the distance from the prior's mean.

    The prior of δ is N(0, 1). Linear term and precision are separate, as in an information filter, so that an event without
    curvature (p near 0 or 1) keeps its gradient, and `compressed` changes no gradient at δ = 0.
    """

    root: Float[Tensor, "item rank number"]
    """A: AᵀA is the precision. Zero rows are padding."""
    linear: Float[Tensor, "item number"]
    """g."""

    @classmethod
    def empty(cls, items: int, like: Float[Tensor, "item number"]) -> "GaussianSummary":
        """Summaries of no events."""
        return cls(like.new_zeros(items, 0, like.shape[1]), like.new_zeros(items, like.shape[1]))

    def with_rows(
        self,
        scaled: Float[Tensor, "item row number"],
        logits: Float[Tensor, "item row"],
        labels: Float[Tensor, "item row"],
        weights: Float[Tensor, "item row"],
        estimate: Float[Tensor, "item number"],
    ) -> "GaussianSummary":
        """With these events, each by the second-order expansion of its log likelihood at δ = `estimate`.

        `logits` z and `scaled` J s are taken there; `weights` w are numbers of equal events. Laplace's approximation of each
        factor: curvature c = w p(1 − p), linear term J s (c J s δ̂ + w (y − p)).

        >>> one = torch.ones(1, 1)
        >>> found = GaussianSummary.empty(1, one).with_rows(one[None], 0 * one, one, one, 0 * one)
        >>> found.root.item(), found.linear.item()     # √c, y − p
        (0.5, 0.5)
        """
        p = torch.sigmoid(logits)
        curve = weights * p * (1 - p)
        aim = curve * (scaled @ estimate[..., None])[..., 0] + weights * labels - weights * p
        rows = torch.cat([self.root, curve.sqrt()[..., None] * scaled], dim=1)
        return GaussianSummary(rows, self.linear + (scaled.mT @ aim[..., None])[..., 0]).compressed()

    def compressed(self) -> "GaussianSummary":
        """With as few rows as have information, at most one a number and at most `MAX_RANK`.

        Of AᵀA = Σ σ² v vᵀ, terms with σ² < `NEGLIGIBLE` are dropped, never the linear term. The mode δ* of a posterior with
        precision I + AᵀA + … then moves by at most σ² |δ*| a compression, σ² the largest that was dropped. An item whose rows are
        not finite gets NaN as linear term.
        """
        finite = self.root.isfinite().flatten(1).all(dim=1)
        root = torch.where(
            finite[:, None, None], self.root, 0.0
        )  # a decomposition of NaN is an error of the whole batch
        _, values, directions = torch.linalg.svd(root, full_matrices=False)
        kept = values.square() >= NEGLIGIBLE
        rank = min(int(kept.sum(dim=1).max()), MAX_RANK) if kept.numel() else 0
        linear = torch.where(finite[:, None], self.linear, torch.nan)
        return GaussianSummary(((values * kept)[..., None] * directions)[:, :rank], linear)

    @property
    def precision(self) -> Float[Tensor, "item number number"]:
        """AᵀA."""
        return self.root.mT @ self.root

    def mode(self) -> Float[Tensor, "item number"]:
        """δ of the highest density under prior and summary: (I + AᵀA)⁻¹ g."""
        one = torch.eye(self.linear.shape[1], dtype=self.linear.dtype, device=self.linear.device)
        mode: Tensor = torch.linalg.solve_ex(one + self.precision, self.linear).result
        return mode

    def negative_log(self, delta: Float[Tensor, "item number step"]) -> Float[Tensor, "item step"]:
        """|Aδ|² / 2 − gᵀδ at several δ an item."""
        return (self.root @ delta).square().sum(dim=1) / 2 - (self.linear[:, None] @ delta)[:, 0]
