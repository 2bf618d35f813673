"""How far click probabilities can be believed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from newcomer.errors import DataError

Floats = NDArray[np.float64]

AGES = (0, 1, 5, 20, 60, 200)
"""Where the buckets of `calibration_by_age` begin: events that an item had before."""


def logloss(label: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Mean negative log-likelihood in nats; probabilities are kept 1e-7 away from 0 and 1. NaN without rows.

    >>> round(logloss([1, 0], [.5, .5]), 4)
    0.6931
    """
    label, probability = pair(label, probability)
    return (
        float(np.average(_losses(label, probability), weights=row_weights(weight, label)))
        if len(label)
        else float("nan")
    )


def item_logloss(item: ArrayLike, label: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Mean over items of their own log loss, each item counting the same. NaN without rows.

    >>> round(item_logloss([7, 7, 7, 8], [0, 0, 0, 1], [.5, .5, .5, .9]), 4)     # ln 2 and -ln .9
    0.3993
    """
    label, probability = pair(label, probability)
    _, item = np.unique(np.asarray(item), return_inverse=True)
    if not len(label):
        return float("nan")
    weights = row_weights(weight, label)
    return float((np.bincount(item, weights * _losses(label, probability)) / np.bincount(item, weights)).mean())


def normalised_entropy(label: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Log loss over the entropy of the average click rate: below 1 is better than knowing that rate alone. He et al. 2014, eq. 1.

    NaN with one kind of label only.

    >>> round(normalised_entropy([1, 0, 0, 0], [.25] * 4), 4), round(normalised_entropy([1, 0], [.8, .2]), 4)
    (1.0, 0.3219)
    """
    label, probability = pair(label, probability)
    rate = np.average(label, weights=row_weights(weight, label)) if len(label) else 0.0
    if not 0 < rate < 1:
        return float("nan")
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
    return float(logloss(label, probability, weight) / entropy)


def worse_than_constant(scores: Mapping[str, float]) -> bool:
    """Whether, by these scores, the click rate alone would have had a lower log loss.

    >>> worse_than_constant({"normalised_entropy": 1.01}), worse_than_constant({"auc": 0.7})
    (True, False)
    """
    return scores.get("normalised_entropy", 0.0) > 1


def calibration(label: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Clicks expected over clicks that came: 1 is right, above it is boasting. Infinite without clicks, NaN without rows.

    `weight`: how many rows each one stands for, such as 10 of a non-click if a tenth of these were kept.

    >>> calibration([1, 0, 1, 0], [.5, .5, .25, .25])
    0.75
    """
    label, probability = pair(label, probability)
    if not len(label):
        return float("nan")
    weights = row_weights(weight, label)
    return float((weights * probability).sum() / (weights * label).sum()) if label.any() else float("inf")


def calibration_error(
    label: ArrayLike, probability: ArrayLike, bins: int = 15, weight: ArrayLike | None = None
) -> float:
    """Expected calibration error: in equal bins of [0, 1], the mean distance of probability and click rate, weighted by rows.

    Naeini et al. 2015; Guo et al. 2017, eq. 3. In [0, 1]; NaN without rows.

    >>> calibration_error([1, 0, 1, 1], [.25, .25, .75, .75], bins=2)       # both bins are off by a quarter
    0.25
    """
    label, probability = pair(label, probability)
    if not len(label):
        return float("nan")
    weights = row_weights(weight, label)
    bin_ = np.searchsorted(np.arange(1, bins) / bins, probability, side="right")
    return float(np.abs(np.bincount(bin_, weights * (probability - label))).sum() / weights.sum())


def calibration_by(groups: ArrayLike, label: ArrayLike, probability: ArrayLike) -> dict[str, dict[str, float]]:
    """Of each group of rows: how many `rows`, the clicks `expected` (Σp) and the `clicks` that came (Σy); sorted by group.

    >>> calibration_by(["b", "a", "b"], [1, 0, 0], [.5, .25, .75])
    {'a': {'rows': 1.0, 'expected': 0.25, 'clicks': 0.0}, 'b': {'rows': 2.0, 'expected': 1.25, 'clicks': 1.0}}
    """
    label, probability = pair(label, probability)
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    sums = (np.bincount(group, minlength=len(names)), np.bincount(group, probability), np.bincount(group, label))
    return {
        str(name): {"rows": float(rows), "expected": float(expected), "clicks": float(clicks)}
        for name, rows, expected, clicks in zip(names, *sums, strict=True)
    }


def calibration_by_age(before: ArrayLike, label: ArrayLike, probability: ArrayLike) -> dict[str, dict[str, float]]:
    """`calibration_by` the number of events that a row's item had `before` it, in the buckets that `AGES` begins.

    >>> list(calibration_by_age([0, 3, 4, 1000], [1, 0, 0, 1], [.5, .5, .5, .5]))
    ['0', '1-4', '200+']
    """
    ends = [*AGES[1:], None]
    names = [_bucket(begin, end) for begin, end in zip(AGES, ends, strict=True)]
    bin_ = np.searchsorted(AGES, np.asarray(before, dtype=np.int64), side="right") - 1
    return {names[int(at)]: sums for at, sums in calibration_by(bin_, label, probability).items()}


def posterior_temperature(item: ArrayLike, label: ArrayLike, logit: ArrayLike, logit_std: ArrayLike) -> float:
    """Factor T on stds of logits under which the labels of held-out items are most likely; 1: the stds are right.

    Each item has an error of its own: maximizes Σ_items log ∫ Π_j p(y_j | z_j + T s_j ε) N(ε | 0, 1) dε over T in [1/8, 8], by
    Gauss-Hermite quadrature. So stds are judged by how an item's rows deviate together, not by what a model misses in single rows.

    >>> posterior_temperature([0] * 9 + [1] * 9, [1] * 9 + [0] * 9, [0] * 18, [.5] * 18) > 2     # items differ by much more
    True

    Raises DataError for other lengths, and without rows.
    """
    labels, logits = pair(label, logit)
    _, stds = pair(label, logit_std)
    names, of_row = np.unique(np.asarray(item), return_inverse=True)
    if not len(labels) or len(of_row) != len(labels):
        raise DataError(f"{len(labels)} labels of {len(of_row)} items; give one item for every label, and at least one")
    points, weights = np.polynomial.hermite_e.hermegauss(41)

    def log_likelihood(temperature: float) -> float:
        at_points = logits[:, None] + temperature * stds[:, None] * points
        rows = -np.logaddexp(0, (1 - 2 * labels)[:, None] * at_points)
        sums = np.zeros((len(names), len(points)))
        np.add.at(sums, of_row, rows)
        best = sums.max(axis=1, keepdims=True)
        return float((best[:, 0] + np.log(np.exp(sums - best) @ weights)).sum())

    return float(max(np.geomspace(1 / 8, 8, 97), key=log_likelihood))


def pair(label: ArrayLike, score: ArrayLike) -> tuple[Floats, Floats]:
    """Both as float64.

    Raises DataError unless there is one score for every label, and all of them are finite: what is no number has no rank.
    """
    labels, scores = np.asarray(label, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if labels.shape != scores.shape:
        raise DataError(f"{len(labels)} labels and {len(scores)} scores; give one score for every label")
    for what, numbers in (("label", labels), ("score", scores)):
        wrong = np.flatnonzero(~np.isfinite(numbers).ravel())
        if len(wrong):
            raise DataError(
                f"{len(wrong)} of {numbers.size} {what}s are no finite numbers, the first is {numbers.ravel()[wrong[0]]} in row "
                f"{wrong[0] + 1}; a model that gives such scores has diverged: lower its learning rate"
            )
    return labels, scores


def row_weights(weight: ArrayLike | None, label: Floats) -> Floats:
    """How many rows each one stands for, 1 by default. Raises DataError unless there is one for every label, above 0."""
    if weight is None:
        return np.ones_like(label)
    weights = np.asarray(weight, dtype=np.float64)
    if weights.shape != label.shape:
        raise DataError(f"{len(label)} labels and {weights.size} weights; give one weight for every label")
    wrong = np.flatnonzero(~((weights > 0) & np.isfinite(weights)))
    if len(wrong):
        raise DataError(f"the weight in row {wrong[0] + 1} is {weights[wrong[0]]:g}; give finite numbers above 0")
    return weights


def _losses(label: Floats, probability: Floats) -> NDArray[Any]:
    p = np.clip(probability, 1e-7, 1 - 1e-7)
    return -(label * np.log(p) + (1 - label) * np.log1p(-p))


def _bucket(begin: int, end: int | None) -> str:
    if end is None:
        return f"{begin}+"
    return str(begin) if end == begin + 1 else f"{begin}-{end - 1}"
