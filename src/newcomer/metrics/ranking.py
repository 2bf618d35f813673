"""How well click probabilities rank, and all that they are judged by."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from newcomer.metrics.calibration import (
    calibration,
    calibration_error,
    item_logloss,
    logloss,
    normalised_entropy,
    pair,
    row_weights,
)

_Floats = NDArray[np.float64]


def auc(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Probability that a click has a higher score than a non-click, a tie counting half. NaN with one kind of label only.

    `weight`: how many equal rows each one stands for.

    >>> auc([0, 1, 0, 1], [.1, .1, .2, .9])     # of four pairs two and a half are in order
    0.625
    >>> auc([0, 1, 0, 1], [.1, .1, .2, .9], [1, 2, 1, 1]) == auc([0, 1, 1, 0, 1], [.1, .1, .1, .2, .9]) == .5
    True
    """
    label, score = pair(label, score)
    weights = row_weights(weight, label)
    order = np.argsort(score, kind="stable")
    label, weights = label[order], weights[order]
    clicks = (weights * label).sum()
    pairs = clicks * (weights.sum() - clicks)
    ranks = _ranks_of_sorted(score[order], np.zeros(len(score), dtype=np.int64), weights)
    return float(((ranks * weights * label).sum() - clicks * (clicks + 1) / 2) / pairs) if pairs else float("nan")


def group_auc(
    group: ArrayLike, label: ArrayLike, score: ArrayLike, weighted: bool = False, weight: ArrayLike | None = None
) -> float:
    """Mean over groups of rows of their own AUC; groups with one kind of label only are left out. NaN when no group has both.

    Every group counts the same, or, `weighted`, as much as it has rows (the GAUC of Zhu et al. 2017). `weight`: how many equal rows
    each one stands for.

    >>> group_auc([7, 7, 7, 8, 8], [0, 1, 0, 0, 1], [.1, .2, .1, .9, .8])
    0.5
    >>> group_auc([7, 7, 7, 8, 8], [0, 1, 0, 0, 1], [.1, .2, .1, .9, .8], weighted=True)
    0.6
    """
    label, score = pair(label, score)
    _, group = np.unique(np.asarray(group), return_inverse=True)
    if not len(label):
        return float("nan")
    order = np.lexsort((score, group))
    weights = row_weights(weight, label)[order]
    group, label, score = group[order], label[order], score[order]
    rows, clicks = np.bincount(group, weights), np.bincount(group, weights * label)
    first = np.cumsum(rows) - rows
    rank = _ranks_of_sorted(score, group, weights) - first[group]
    pairs = clicks * (rows - clicks)
    usable = pairs > 0
    above = np.bincount(group, rank * weights * label) - clicks * (clicks + 1) / 2
    if not usable.any():
        return float("nan")
    return float(np.average(above[usable] / pairs[usable], weights=rows[usable] if weighted else None))


def item_auc(item: ArrayLike, label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """`group_auc` of items: what is left of the pooled AUC when knowing the good items is no help."""
    return group_auc(item, label, score, weight=weight)


def user_auc(user: ArrayLike, label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """`group_auc` of users: how well what one user is shown is put in order, whoever clicks much."""
    return group_auc(user, label, score, weight=weight)


def rela_impr(auc: float, base: float) -> float:
    """By how many percent an AUC is further above that of chance than a base's. Yan et al. 2014. NaN for a base that is chance.

    >>> round(rela_impr(.76, .75), 4)
    4.0
    """
    return ((auc - 0.5) / (base - 0.5) - 1) * 100 if base != 0.5 else float("nan")


def f1(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """F1 of calling a click whatever scores above the mean score, as CVAR and EmerG report it. NaN without rows.

    >>> round(f1([1, 0, 1], [.9, .1, .3]), 4)       # the mean is .433: one of two clicks is called
    0.6667
    """
    label, score = pair(label, score)
    if not len(label):
        return float("nan")
    weights = row_weights(weight, label)
    called = score > np.average(score, weights=weights)
    both = (weights * label).sum() + (weights * called).sum()
    return float(2 * (weights * label * called).sum() / both) if both else 0.0


def click_scores(
    item: ArrayLike,
    label: ArrayLike,
    probability: ArrayLike,
    user: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    negative_rate: float = 1.0,
) -> dict[str, float]:
    """What click probabilities are judged by, by name; `user_auc` where the users are given. NaN where a score is undefined.

    `weight`: how many equal rows each one stands for. `negative_rate`: share of the non-clicks that were kept, each of which stands
    for those left out: ranks of clicks and non-clicks do not depend on it.
    """
    ranks = weight
    weight = row_weights(weight, pair(label, probability)[0]) * np.where(label, 1.0, 1 / negative_rate)
    return {
        "auc": auc(label, probability, ranks),
        "item_auc": item_auc(item, label, probability, ranks),
        **({} if user is None else {"user_auc": user_auc(user, label, probability, ranks)}),
        "logloss": logloss(label, probability, weight),
        "item_logloss": item_logloss(item, label, probability, weight),
        "normalised_entropy": normalised_entropy(label, probability, weight),
        "calibration": calibration(label, probability, weight),
        "calibration_error": calibration_error(label, probability, weight=weight),
        "f1": f1(label, probability, ranks),
    }


def bayes_auc(probability: ArrayLike) -> float:
    """The AUC to be expected of someone who knows each row's true click probability: nobody can expect more.

    Σ_ij p_i (1 - p_j) [p_i > p_j] + half the ties, over Σ_i p_i · Σ_j (1 - p_j), a row being paired with itself too.

    >>> bayes_auc([0., 1.]), bayes_auc([.3, .3])
    (1.0, 0.5)
    """
    p = np.sort(pair(probability, probability)[1])
    starts = np.flatnonzero(np.diff(p, prepend=-1.0))
    clicks, misses = np.add.reduceat(p, starts), np.add.reduceat(1 - p, starts)
    below = np.cumsum(misses) - misses
    pairs = clicks.sum() * misses.sum()
    return float((clicks * (below + misses / 2)).sum() / pairs) if pairs else float("nan")


def _ranks_of_sorted(score: _Floats, group: NDArray[Any], weights: _Floats) -> _Floats:
    """Ranks from 1, each row standing for as many as its weight; equal scores of one group share the mean of theirs."""
    if not len(score):
        return score
    starts = np.flatnonzero(np.concatenate([[True], (score[1:] != score[:-1]) | (group[1:] != group[:-1])]))
    equal = np.add.reduceat(weights, starts)
    return np.repeat(np.cumsum(equal) - equal + (equal + 1) / 2, np.diff(np.append(starts, len(score))))
