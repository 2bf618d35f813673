"""MAP estimate of per-item parameters: logistic regression with a diagonal Gaussian prior, by damped Newton steps."""

import torch
from torch.nn import functional

from newcomer.nn.optim.gaussian_summary import GaussianSummary
from newcomer.shapes import Float, Tensor

MIN_CURVATURE = 0.02
"""Lower bound of a row's curvature p(1 − p): with large logits Newton steps would be too long. Of a row of weight w > 1 it is the
bound of w p(1 − p), or steps would be too short."""

WEIGHTED_STEPS = 10
"""Further Newton steps for items with a weight above 1, which then converge up to weights of 10⁴."""

STEP_SIZES = (1.0, 0.5, 0.25, 0.125)
"""Backtracking: the first of these step sizes that does not increase the loss; as the curvature is at most 1/4, all below
2 · MIN_CURVATURE / (1/4) decrease it."""

ROUNDING = 64
"""Rounding error allowed in a sum of losses, in units of the last place."""


def map_estimate(
    logits: Float[Tensor, "item row"],
    jacobian: Float[Tensor, "item row number"],
    labels: Float[Tensor, "item row"],
    weights: Float[Tensor, "item row"],
    prior_std: Float[Tensor, " number"],
    steps: int,
    summary: GaussianSummary | None = None,
) -> Float[Tensor, "item number"]:
    """argmax over δ of Σ_j w_j log p(y_j | z_j + J_j δ) − Σ_k δ_k² / 2 s_k²: logistic regression with a Gaussian prior.

    `logits` z at δ = 0, `jacobian` J, `labels` y in {0, 1}; `weights` w are numbers of equal rows, 0 for padding; `prior_std` is s.
    Newton steps δ ← (JᵀWJ + S⁻¹)⁻¹ Jᵀ(WJδ + w(y − p)) with S = diag(s²), W = diag(w p(1 − p)) and backtracking (`STEP_SIZES`). An
    item's linear systems have as many unknowns as it has rows or parameters, whichever are fewer:
    (JᵀWJ + S⁻¹)⁻¹Jᵀ = SJᵀ(W⁻¹ + JSJᵀ)⁻¹W⁻¹.
    An item with a weight above 1 takes `WEIGHTED_STEPS` more. `summary`: of other events; its precision and linear term are added,
    and the systems have as many unknowns as parameters.
    Differentiable in all arguments but `steps`.

    >>> one = torch.ones(1, 1)
    >>> map_estimate(0 * one, one[..., None], one, one, one[0], steps=8)      # δ = 1 / (1 + exp δ)
    tensor([[0.4011]])
    """
    real = weights > 0
    scaled = jacobian * prior_std * real[..., None]
    is_heavy = (weights > 1).any(dim=1)[:, None, None]
    factor, weights = torch.where(real, weights, 1.0)[..., None], weights[..., None]  # of curvatures: they are divisors
    least = MIN_CURVATURE / factor.clamp(min=1)
    by_rows = summary is None and scaled.shape[1] <= scaled.shape[2]
    kernel = scaled @ scaled.mT if by_rows else None
    one = torch.eye(scaled.shape[1 if by_rows else 2], dtype=scaled.dtype, device=scaled.device)
    precision, linear = (one, None) if summary is None else (one + summary.precision, summary.linear[..., None])
    delta = scaled.new_zeros(len(scaled), scaled.shape[2], 1)
    for number in range(steps + (WEIGHTED_STEPS if is_heavy.any() else 0)):
        shift = scaled @ delta  # item row 1
        p = torch.sigmoid(logits[..., None] + shift)
        curve = factor * (p * (1 - p)).clamp(min=least)
        aim = curve * shift + (labels[..., None] - p) * weights
        if kernel is not None:
            root = curve.sqrt()
            inner = torch.linalg.solve_ex(one + root * kernel * root.mT, aim / root).result
            step = scaled.mT @ (root * inner) - delta
        else:
            pull = scaled.mT @ aim if linear is None else scaled.mT @ aim + linear
            step = torch.linalg.solve_ex(precision + scaled.mT @ (curve * scaled), pull).result - delta
        if number >= steps:  # each item as it would be alone
            step = torch.where(is_heavy, step, 0.0)
        with torch.no_grad():
            rows = logits[..., None] + shift
            part = _step_size(delta, step, rows, scaled @ step, labels[..., None], weights, summary)
        delta = delta + part * step
    return delta[..., 0] * prior_std


def _step_size(
    delta: Tensor,
    step: Tensor,
    logits: Tensor,
    logit_step: Tensor,
    labels: Tensor,
    weights: Tensor,
    summary: GaussianSummary | None,
) -> Tensor:
    """The first step size, item 1 1, that does not increase the negative log posterior beyond rounding."""
    parts = logits.new_tensor([0.0, *STEP_SIZES])
    rows = logits + parts * logit_step  # item row part
    of_rows = (functional.softplus((1 - 2 * labels) * rows) * weights).sum(dim=1)
    losses = of_rows + ((delta + parts * step) ** 2).sum(dim=1) / 2
    limit = losses[:, 0] * (1 + ROUNDING * torch.finfo(losses.dtype).eps)
    if summary is not None:
        of_summary = summary.negative_log(delta + parts * step)
        losses = losses + of_summary
        limit = limit + of_summary[:, 0] + of_summary[:, 0].abs() * ROUNDING * torch.finfo(losses.dtype).eps
    after = losses.unbind(dim=1)[1:]
    factor = torch.full_like(limit, STEP_SIZES[-1])
    for part, loss in reversed(list(zip(STEP_SIZES, after, strict=True))):
        factor = torch.where(loss <= limit, part, factor)
    return factor[:, None, None]
