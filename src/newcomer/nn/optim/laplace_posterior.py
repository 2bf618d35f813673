"""Laplace approximation of the posterior of per-item parameters, and the variance of a logit under it (MacKay 1992)."""

import torch

from newcomer.shapes import Float, Tensor

NEGLIGIBLE = 1e-3
RANK = 16
"""Most directions in which a stored posterior is narrower than the prior."""


def posterior_factor(
    scaled: Float[Tensor, "item row number"],
    logits: Float[Tensor, "item row"],
    weights: Float[Tensor, "item row"],
    root: Float[Tensor, "item rank number"],
) -> Float[Tensor, "item direction number"]:
    """V with posterior covariance I − VᵀV of δ = (φ − φ₀) / s at the MAP estimate, whose prior is N(0, 1).

    The precision is I + RᵀR, where R has a row √(w p(1 − p)) J s an event (`scaled` = J s, `logits` there; `weights` w are numbers
    of equal events, 0 for padding) and those of `root`, of a summary. With RᵀR = Σ σ² v vᵀ a row of V is v √(σ² / (1 + σ²)). Only
    the `RANK` largest are kept, which makes the covariance larger, never smaller. NaN for an item whose rows are not finite.

    >>> one = torch.ones(1, 1)
    >>> round(posterior_factor(2 * one[None], 0 * one, one, one[None, :0]).square().item(), 4)     # √w J s = 1, 1 / (1 + 1)
    0.5
    """
    p = torch.sigmoid(logits)
    rows = torch.cat([(p * (1 - p) * weights).sqrt()[..., None] * scaled, root], dim=1)
    by_rows = rows.shape[1] <= rows.shape[2]
    gram = rows @ rows.mT if by_rows else rows.mT @ rows
    finite = gram.isfinite().flatten(1).all(dim=1)[:, None, None]
    values, vectors = _eigh(torch.where(finite, gram, 0.0))
    values, directions = values[:, -RANK:, None].clamp(min=0), vectors[..., -RANK:].mT
    factor: Tensor = directions * (values / (1 + values)).sqrt()
    return torch.where(finite, directions @ rows / (1 + values).sqrt() if by_rows else factor, torch.nan)


def _eigh(gram: Float[Tensor, "item size size"]) -> tuple[Float[Tensor, "item size"], Float[Tensor, "item size size"]]:
    """Eigenvalues, ascending, and eigenvectors; in double precision for a matrix where single precision does not converge.

    LAPACK's divide and conquer may not where many eigenvalues are nearly the same, as those of directions without events.
    """
    try:
        values, vectors = torch.linalg.eigh(gram)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        if len(gram) > 1:  # as each would be alone
            values, vectors = map(torch.cat, zip(*(_eigh(one[None]) for one in gram), strict=True))
        else:
            values, vectors = (found.to(gram) for found in torch.linalg.eigh(gram.double()))
    return values, vectors


def without_negligible(factor: Float[Tensor, "direction number"]) -> Float[Tensor, "kept number"]:
    """One item's factor without directions in which its variance is less than `NEGLIGIBLE` below the prior's, 1."""
    return factor[~(factor.square().sum(dim=1) <= NEGLIGIBLE)]  # NaN stays


def logit_std(
    scaled: Float[Tensor, " row number"], factor: Float[Tensor, "row direction number"]
) -> Float[Tensor, " row"]:
    """√(|J s|² − |V J s|²): posterior std of a logit, row by row, with `scaled` = J s and V of the row's item."""
    narrowed = (factor @ scaled[..., None])[..., 0].square().sum(dim=1)
    return (scaled.square().sum(dim=1) - narrowed).clamp(min=0).sqrt()
