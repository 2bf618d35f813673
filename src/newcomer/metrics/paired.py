"""Whether one row is better than another, seed by seed: the paired t test, and what many of them at once are worth.

Both rows of a pair see the same data in the same order for each seed, so what the seeds differ in drops out of the differences.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from numpy import ndarray

from newcomer.errors import StreamError

HALVINGS = 60
"""Of an angle below π/2: what is left is less than the last bit."""


@dataclass(frozen=True)
class PairedTest:
    """A mean difference, the interval that holds the true one with the confidence asked for, and p for 'there is none'."""

    mean: float
    low: float
    high: float
    p: float


def paired_test(difference: Float[ndarray, " seed"], confidence: float = 0.95) -> PairedTest:
    """Student's t test of differences seed by seed, two-sided, with seeds − 1 degrees of freedom.

    >>> from numpy import array
    >>> found = paired_test(array([1.0, 2.0, 3.0]))
    >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3), round(found.p, 4)
    (2.0, -0.484, 4.484, 0.0742)

    Where all differences are the same number the interval is this number, and p is 0, or 1 for a difference of nothing.
    Raises StreamError with fewer than two seeds.
    """
    if len(difference) < 2:
        raise StreamError(f"a paired test needs two seeds at least, not {len(difference)}; run more seeds")
    mean, freedom = float(difference.mean()), len(difference) - 1
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    if error <= 1e-12 * abs(mean) or error == 0:  # what rounding alone leaves
        return PairedTest(mean, mean, mean, float(mean == 0))
    reach = error * t_quantile(confidence, freedom)
    return PairedTest(mean, mean - reach, mean + reach, 1 - t_tail_probability(mean / error, freedom))


def t_tail_probability(t: float, freedom: int) -> float:
    """Probability that Student's t lies within ± `t`. The finite sums of Abramowitz and Stegun 1964, 26.7.3 and 26.7.4.

    >>> round(t_tail_probability(12.706, 1), 4), round(t_tail_probability(2.228, 10), 4)
    (0.95, 0.95)
    """
    return _within(math.atan(abs(t) / math.sqrt(freedom)), freedom)


def t_quantile(probability: float, freedom: int) -> float:
    """The t within whose ± Student's t lies with this probability.

    >>> round(t_quantile(0.95, 2), 3)
    4.303
    """
    low, high = 0.0, math.pi / 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < probability else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def holm(p: Sequence[float]) -> list[float]:
    """Each p as it is among so many: the chance that any of those with no difference would look so is at most this. Holm 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, least = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        least = max(least, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = least
    return adjusted


def _within(angle: float, freedom: int) -> float:
    """The probability within ± √ν tan θ, for θ = `angle` and ν = `freedom`."""
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term, total = cosine if odd else 1.0, 0.0
    for power in range(2 + odd, freedom + 1, 2):  # cos^(power − 2) with the factors (power − 1) / power that led to it
        total += term
        term *= (power - 1) / power * cosine**2
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
