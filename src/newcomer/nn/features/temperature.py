"""Temperature scaling (Guo et al., ICML 2017): one parameter that calibrates a classifier's probabilities."""

import math
from collections.abc import Callable

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
    if not len(logits) or logits.shape[1] < 2:
        return 1.0
    exact, doubt = logits.double(), 1 / (len(logits) + 1)
    found = _argmin(lambda log_t: F.cross_entropy(exact / math.exp(log_t), target, label_smoothing=doubt).item())
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
