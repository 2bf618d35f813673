"""Temperature scaling (Guo et al., ICML 2017): one parameter that calibrates a classifier's probabilities."""

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

from newcomer.shapes import Float, Int, Tensor

COLDEST, HOTTEST = 1e-4, 1e4
STEPS = 60
MIN_GAIN = 1e-6
"""Minimum difference of the likelihoods: with less, the temperature is undetermined."""


def temperature(logits: Float[Tensor, "batch class"], target: Int[Tensor, " batch"]) -> float:
    """The T that maximizes the likelihood of these classes under softmax(logits / T); 1 if undetermined.

    One pseudo-example with a uniform label is added (as in Platt 1999): otherwise a few examples, all classified correctly, would
    make every prediction certain. The loss is convex in 1/T, so a golden-section search finds it.

    >>> from torch import tensor
    >>> logits = tensor([[2.0, 0.0]] * 7)                                  # right five times in seven, and half of one more
    >>> round(2 / temperature(logits, tensor([0, 0, 0, 0, 0, 1, 1])), 3)   # log (5.5 / 2.5)
    0.788
    """
    return _fitted(logits, target, None, float(len(logits)))


def balanced_temperature(
    logits: Float[Tensor, "batch class"], target: Int[Tensor, " batch"], without: int = 0
) -> tuple[float, float]:
    """`temperature` where classes have the same weight, whatever their number of examples, and the effective number of examples.

    That number is K² / Σ 1/n_k for n_k examples of K classes (Kish 1965): of 150 and 2 examples it is 7.9, so that no prediction
    becomes much surer than two examples can make it. `without`: classes that have no example here; each counts as one.
    """
    count = torch.bincount(target, minlength=logits.shape[1]).double()
    own = count[count > 0]
    if not len(own) or (not without and bool((own == own[0]).all())):
        return temperature(logits, target), float(len(target))
    effective = (len(own) + without) ** 2 / (float((1 / own).sum()) + without)
    weight = len(target) / (len(own) * count[target])
    return _fitted(logits, target, weight, effective), effective


def temperature_of_means(logits: Float[Tensor, "class class"], count: Float[Tensor, " class"]) -> float:
    """A cautious T where no example was held out, from the logits of the classes' own means.

    Means look surer than other examples, so they get n/(n + 1) of the belief, with n the harmonic mean of the counts: a half after
    one example a class.
    """
    harmonic = len(count) / float((1 / count.double().clamp(min=1)).sum())
    return _fitted(logits, torch.arange(len(logits)), None, harmonic)


def _fitted(
    logits: Float[Tensor, "batch class"],
    target: Int[Tensor, " batch"],
    weight: Float[Tensor, " batch"] | None,
    effective: float,
) -> float:
    """The T of least loss, with `weight` for each example, and 1/(`effective` + 1) of every label spread over the classes."""
    if not len(logits) or logits.shape[1] < 2:
        return 1.0
    exact, doubt = logits.double(), 1 / (effective + 1)

    def loss(log_t: float) -> float:
        scaled = exact / math.exp(log_t)
        if weight is None:
            return F.cross_entropy(scaled, target, label_smoothing=doubt).item()
        return float((weight * F.cross_entropy(scaled, target, label_smoothing=doubt, reduction="none")).mean())

    found = _argmin(loss)
    return 1.0 if found is None else math.exp(found)


def temperature_of_loss(logits: Float[Tensor, "batch class"], target: Int[Tensor, " batch"], loss: float) -> float:
    """The T at which softmax(logits / T) has this mean cross entropy, from the T of least loss upwards; 1 if undetermined.

    From there on the loss grows with T towards log(classes): a greater one is had nowhere, and gives the largest T.

    >>> from torch import tensor
    >>> round(1 / temperature_of_loss(tensor([[1.0, 0.0]]), tensor([0]), math.log(1 + math.exp(-2))), 3)
    2.0
    """
    exact = logits.double()

    def at(log_t: float) -> float:
        return F.cross_entropy(exact / math.exp(log_t), target).item()

    low, high = _argmin(at), math.log(HOTTEST)
    if low is None:
        return 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle) < loss else (low, middle)
    return math.exp(low)


def _argmin(loss: Callable[[float], float]) -> float | None:
    """The logarithm of the temperature of least loss, by golden-section search; None if undetermined."""
    low, high, ratio = math.log(COLDEST), math.log(HOTTEST), (5**0.5 - 1) / 2
    ends = loss(low), loss(high), loss(0.0)
    if not all(map(math.isfinite, ends)) or max(ends) - min(ends) <= MIN_GAIN:
        return None
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(right)
    return (low + high) / 2
