"""How well click probabilities rank and how far they can be believed."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from newcomer.errors import DataError

_Floats = NDArray[np.float64]


def auc(label: ArrayLike, score: ArrayLike) -> float:
    """Probability that a click has a higher score than a non-click, a tie counting half. NaN with one kind of label only.

    >>> auc([0, 1, 0, 1], [.1, .1, .2, .9])     # of four pairs two and a half are in order
    0.625
    """
    label, score = _pair(label, score)
    clicks = label.sum()
    pairs = clicks * (len(label) - clicks)
    return float(((_ranks(score) * label).sum() - clicks * (clicks + 1) / 2) / pairs) if pairs else float("nan")


def item_auc(item: ArrayLike, label: ArrayLike, score: ArrayLike) -> float:
    """Mean over items of their own AUC, each item counting the same; items with one kind of label only are left out.

    What is left of the pooled AUC when knowing the good items is no help. NaN when no item has both labels.

    >>> item_auc([7, 7, 8, 8], [0, 1, 0, 1], [.1, .2, .9, .8])
    0.5
    """
    label, score = _pair(label, score)
    _, item = np.unique(np.asarray(item), return_inverse=True)
    if not len(label):
        return float("nan")
    order = np.lexsort((score, item))
    item, label, score = item[order], label[order], score[order]
    events, clicks = np.bincount(item).astype(np.float64), np.bincount(item, label)
    first = np.cumsum(events) - events
    rank = _ranks_of_sorted(score, item) - first[item]
    pairs = clicks * (events - clicks)
    usable = pairs > 0
    above = np.bincount(item, rank * label) - clicks * (clicks + 1) / 2
    return float((above[usable] / pairs[usable]).mean()) if usable.any() else float("nan")


def logloss(label: ArrayLike, probability: ArrayLike) -> float:
    """Mean negative log-likelihood in nats; probabilities are kept 1e-7 away from 0 and 1.

    >>> round(logloss([1, 0], [.5, .5]), 4)
    0.6931
    """
    label, probability = _pair(label, probability)
    p = np.clip(probability, 1e-7, 1 - 1e-7)
    return float(-(label * np.log(p) + (1 - label) * np.log1p(-p)).mean())


def calibration(label: ArrayLike, probability: ArrayLike) -> float:
    """Clicks expected over clicks that came: 1 is right, above it is boasting. Infinite without clicks."""
    label, probability = _pair(label, probability)
    return float(probability.sum() / label.sum()) if label.any() else float("inf")


def f1(label: ArrayLike, score: ArrayLike) -> float:
    """F1 of calling a click whatever scores above the mean score, as CVAR and EmerG report it.

    >>> round(f1([1, 0, 1], [.9, .1, .3]), 4)       # the mean is .433: one of two clicks is called
    0.6667
    """
    label, score = _pair(label, score)
    called = score > score.mean()
    return float(2 * (label * called).sum() / max(label.sum() + called.sum(), 1.0))


def click_scores(item: ArrayLike, label: ArrayLike, probability: ArrayLike) -> dict[str, float]:
    """All of the above by name."""
    return {
        "auc": auc(label, probability),
        "item_auc": item_auc(item, label, probability),
        "logloss": logloss(label, probability),
        "calibration": calibration(label, probability),
        "f1": f1(label, probability),
    }


def bayes_auc(probability: ArrayLike) -> float:
    """The AUC to be expected of someone who knows each row's true click probability: nobody can expect more.

    Σ_ij p_i (1 - p_j) [p_i > p_j] + half the ties, over Σ_i p_i · Σ_j (1 - p_j), a row being paired with itself too.

    >>> bayes_auc([0., 1.]), bayes_auc([.3, .3])
    (1.0, 0.5)
    """
    p = np.sort(np.asarray(probability, dtype=np.float64))
    starts = np.flatnonzero(np.diff(p, prepend=-1.0))
    clicks, misses = np.add.reduceat(p, starts), np.add.reduceat(1 - p, starts)
    below = np.cumsum(misses) - misses
    pairs = clicks.sum() * misses.sum()
    return float((clicks * (below + misses / 2)).sum() / pairs) if pairs else float("nan")


def _pair(label: ArrayLike, score: ArrayLike) -> tuple[_Floats, _Floats]:
    labels, scores = np.asarray(label, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if labels.shape != scores.shape:
        raise DataError(f"{len(labels)} labels and {len(scores)} scores; give one score for every label")
    return labels, scores


def _ranks(score: _Floats) -> _Floats:
    order = np.argsort(score, kind="stable")
    ranks = np.empty(len(score))
    ranks[order] = _ranks_of_sorted(score[order], np.zeros(len(score), dtype=np.int64))
    return ranks


def _ranks_of_sorted(score: _Floats, group: NDArray[Any]) -> _Floats:
    """Ranks from 1; equal scores of one group share the mean of theirs."""
    if not len(score):
        return score
    starts = np.flatnonzero(np.concatenate([[True], (score[1:] != score[:-1]) | (group[1:] != group[:-1])]))
    counts = np.diff(np.append(starts, len(score)))
    return np.repeat(starts + (counts + 1) / 2, counts)
