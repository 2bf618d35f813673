"""The likeliest place of something that began at a known one, given a few yes-or-no answers that depend on it almost linearly."""

import torch
from torch.nn import functional

from newcomer.shapes import Float, Tensor

LEAST = 0.02
"""Curvature of a row's loss at least: where a logit is far out, Newton's steps would be too long."""

PARTS = (1.0, 0.5, 0.25, 0.125)
"""A step is the first of these parts of Newton's that gains: curvature is at most 1/4, so that below 2 · LEAST / (1/4) all do."""

ROUNDING = 64
"""Units in the last place that a sum of losses may be off: a logit far out is."""


def likeliest(
    logits: Float[Tensor, "item row"],
    slopes: Float[Tensor, "item row number"],
    labels: Float[Tensor, "item row"],
    real: Float[Tensor, "item row"],
    spread: Float[Tensor, " number"],
    steps: int,
) -> Float[Tensor, "item number"]:
    """argmax over δ of Σ_j log p(y_j | z_j + J_j δ) − Σ_k δ_k² / 2 s_k²: logistic regression with a Gaussian prior, item by item.

    `logits` z, `slopes` J, `labels` y in {0, 1}; `real` is 0 for rows that only fill up, `spread` is s. By so many steps of Newton,
    δ ← (JᵀWJ + S⁻¹)⁻¹ Jᵀ(WJδ + y − p), S = diag(s²), W = diag(p(1 − p)), or the first of `PARTS` of it that gains; in as
    many unknowns as an item has rows or numbers, whichever are fewer: (JᵀWJ + S⁻¹)⁻¹Jᵀ = SJᵀ(W⁻¹ + JSJᵀ)⁻¹W⁻¹. Differentiable in
    all its arguments but `steps`.

    >>> one = torch.ones(1, 1)
    >>> likeliest(0 * one, one[..., None], one, one, one[0], steps=8)      # δ = 1 / (1 + exp δ)
    tensor([[0.4011]])
    """
    scaled = slopes * spread * real[..., None]
    by_rows = scaled.shape[1] <= scaled.shape[2]
    kernel = scaled @ scaled.mT if by_rows else None
    one = torch.eye(min(scaled.shape[1:]), dtype=scaled.dtype, device=scaled.device)
    moved = scaled.new_zeros(len(scaled), scaled.shape[2], 1)
    for _ in range(steps):
        shift = scaled @ moved  # item row 1
        p = torch.sigmoid(logits[..., None] + shift)
        curve = (p * (1 - p)).clamp(min=LEAST)
        aim = curve * shift + (labels[..., None] - p) * real[..., None]
        if kernel is not None:
            root = curve.sqrt()
            inner = torch.linalg.solve_ex(one + root * kernel * root.mT, aim / root).result
            ahead = scaled.mT @ (root * inner) - moved
        else:
            ahead = torch.linalg.solve_ex(one + scaled.mT @ (curve * scaled), scaled.mT @ aim).result - moved
        with torch.no_grad():
            rows = logits[..., None] + shift
            part = _gaining(moved, ahead, rows, scaled @ ahead, labels[..., None], real[..., None])
        moved = moved + part * ahead
    return moved[..., 0] * spread


def _gaining(moved: Tensor, ahead: Tensor, logits: Tensor, further: Tensor, labels: Tensor, real: Tensor) -> Tensor:
    """The first part of a step, item 1 1, after which − log posterior is not more than before, but for rounding."""
    parts = logits.new_tensor([0.0, *PARTS])
    rows = logits + parts * further  # item row part
    of_rows = (functional.softplus((1 - 2 * labels) * rows) * real).sum(dim=1)
    before, *after = (of_rows + ((moved + parts * ahead) ** 2).sum(dim=1) / 2).unbind(dim=1)
    most = before * (1 + ROUNDING * torch.finfo(before.dtype).eps)
    found = torch.full_like(before, PARTS[-1])
    for part, loss in reversed(list(zip(PARTS, after, strict=True))):
        found = torch.where(loss <= most, part, found)
    return found[:, None, None]
