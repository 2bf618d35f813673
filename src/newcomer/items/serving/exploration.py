"""Exploration: which of several candidates to show, by score and by uncertainty, and with which probability it was shown.

Thompson sampling: Chapelle & Li, NIPS 2011. Upper confidence bound: Li et al., WWW 2010.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from newcomer.errors import DataError, SettingError
from newcomer.seeds import spawn

Explore = Literal["none", "thompson", "ucb"]
"""'none': the best logit first; 'thompson': logits are sampled from their posteriors; 'ucb': the best upper bound first."""

Floats = NDArray[np.float64]
TAIL, POINTS = 8.0, 2001
"""Stds, and points, of the trapezoidal rule."""

RIVALS = 256
"""Candidates whose probabilities are multiplied at once."""

MAX_STRENGTH, RESOLUTION = 1e6, 1e-12
"""The greatest strength; and the std, over the logit's size, up to which it is none: samples would be rounded to the logit."""


@dataclass(frozen=True)
class Ranking:
    """Candidates of one request in order."""

    order: NDArray[np.int64]
    """Candidates' positions, the first to show first."""
    values: Floats
    """What they were ranked by, by position: logits, sampled logits, or upper bounds."""
    propensity: float
    """Probability with which this policy shows `order[0]` first."""


def rank(
    logit: ArrayLike,
    logit_std: ArrayLike,
    explore: Explore,
    request: str,
    *,
    strength: float = 1.0,
    epsilon: float = 0.0,
    seed: int = 0,
) -> Ranking:
    """Order the candidates of one request, each another item.

    The std of each logit is multiplied by `strength`; a std of NaN, of an item without a posterior, counts as 0. With probability
    `epsilon` the first candidate is one of all, uniformly: then every candidate has a positive propensity, as off-policy estimates
    need. All chance comes from (seed, request): the same request gets the same answer.

    >>> rank([0.0, 1.0], [0.0, 0.1], "ucb", "r1", strength=2.0).order.tolist()
    [1, 0]
    >>> round(rank([0.0, 0.0], [1.0, 1.0], "thompson", "r1").propensity, 3)     # a fair coin
    0.5

    Raises DataError without candidates, and for logits or stds that do not fit; SettingError for unknown settings.
    """
    logits, stds = _candidates(logit, logit_std, strength)
    if explore not in ("none", "thompson", "ucb") or not 0 <= epsilon <= 1:
        raise SettingError(
            f"explore = {explore!r}, epsilon = {epsilon}: give 'none', 'thompson' or 'ucb', and epsilon in [0, 1]"
        )
    chance = spawn(seed, "explore", request)
    values = logits
    if explore == "ucb":
        values = logits + stds
    if explore == "thompson":
        values = logits + stds * torch.randn(len(logits), generator=chance, dtype=torch.float64).numpy()
    order = np.argsort(-values, kind="stable")
    best = order[0]
    if float(torch.rand(1, generator=chance, dtype=torch.float64)) < epsilon:
        first = int(torch.randint(len(logits), (1,), generator=chance))
        order = np.concatenate([[first], order[order != first]])
    first = order[0]
    chosen = probability_of_being_best(logits, stds, int(first)) if explore == "thompson" else float(first == best)
    return Ranking(order, values, (1 - epsilon) * chosen + epsilon / len(logits))


def probability_of_being_best(mean: Floats, std: Floats, candidate: int) -> float:
    """P(x_i > x_k for all k) with independent x ~ N(mean, std²), i = `candidate`: ∫ φ(z) Π_k Φ((m_i + s_i z − m_k) / s_k) dz.

    By the trapezoidal rule, to about 10⁻³. Items have posteriors of their own, so that their logits are independent. Of several
    candidates with a std of 0 and the same mean the first one is best.

    >>> round(probability_of_being_best(np.array([0.0, 1.0]), np.array([1.0, 0.0]), 0), 3)     # 1 − Φ(1)
    0.159
    """
    if len(mean) == 1:
        return 1.0
    rivals = np.arange(len(mean)) != candidate
    certain, uncertain = rivals & (std == 0), rivals & (std > 0)
    at_least = mean[certain].max(initial=-np.inf)
    if std[candidate] == 0:
        ties = np.flatnonzero(certain & (mean == mean[candidate]))
        if mean[candidate] < at_least or (ties < candidate).any():
            return 0.0
        return float(_below(mean[candidate, None], mean[uncertain], std[uncertain])[0])
    begin = max((at_least - mean[candidate]) / std[candidate], -TAIL)
    if begin >= TAIL:
        return 0.0
    points = np.linspace(begin, TAIL, POINTS)
    density = np.exp(-(points**2) / 2) / np.sqrt(2 * np.pi)
    wins = _below(mean[candidate] + std[candidate] * points, mean[uncertain], std[uncertain])
    return min(1.0, float(np.trapezoid(density * wins, points)))


def _below(value: Floats, mean: Floats, std: Floats) -> Floats:
    """Of each value the probability that all of these normal variables are below it."""
    found = np.ones(len(value))
    for begin in range(0, len(mean), RIVALS):
        part = slice(begin, begin + RIVALS)
        found *= torch.special.ndtr(torch.from_numpy((value[:, None] - mean[part]) / std[part])).numpy().prod(axis=1)
    return found


def _candidates(logit: ArrayLike, logit_std: ArrayLike, strength: float) -> tuple[Floats, Floats]:
    logits, stds = np.asarray(logit, dtype=np.float64), np.asarray(logit_std, dtype=np.float64)
    if not logits.size or logits.shape != stds.shape or logits.ndim != 1:
        raise DataError(
            f"{logits.size} logits and {stds.size} stds of candidates; give one of each for every candidate, and at least one"
        )
    if not np.isfinite(logits).all() or np.isinf(stds).any() or (stds < 0).any():
        raise DataError(
            "candidates: a logit is no finite number, or a std is negative or infinite; leave such candidates out"
        )
    if not 0 <= strength <= MAX_STRENGTH:
        raise SettingError(f"strength = {strength}: give a number from 0 to {MAX_STRENGTH:g}")
    scaled = np.nan_to_num(stds) * strength
    return logits, np.where(scaled > RESOLUTION * (1 + np.abs(logits)), scaled, 0.0)
