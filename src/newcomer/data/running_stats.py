"""Running mean and variance of numbers that arrive in chunks."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from newcomer.data.robust_stats import LARGEST, Histogram

BLOCK = 1 << 22
"""Numbers per block."""


@dataclass(frozen=True)
class RunningStats:
    """Count, mean, sum of squared deviations, minimum and maximum of n numbers, or of n vectors per entry.

    Merged as in Chan, Golub, LeVeque 1979: with δ = mean_b − mean_a, the mean is mean_a + δ n_b / n and the sum of squares M_a +
    M_b + δ² n_a n_b / n. NaN is ignored.

    >>> both = RunningStats.of(np.array([1.0, np.nan, 2.0])) + RunningStats.of(np.array([6.0]))
    >>> both.count, float(both.mean), round(float(both.variance), 4)
    (3, 3.0, 4.6667)
    """

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    histogram: Histogram
    """Histogram of the same numbers, for robust statistics."""

    @classmethod
    def of(cls, values: NDArray[Any], counts: NDArray[np.integer[Any]] | None = None) -> Self:
        """Statistics of `values` [n] or [n, size] with multiplicities `counts`, 1 by default."""
        step = max(1, BLOCK // max(1, int(np.prod(values.shape[1:]))))
        found = cls._of(values[:step], None if counts is None else counts[:step])
        for begin in range(step, len(values), step):
            block = slice(begin, begin + step)
            found = found + cls._of(values[block], None if counts is None else counts[block])
        return found

    @classmethod
    def _of(cls, values: NDArray[Any], counts: NDArray[np.integer[Any]] | None) -> Self:
        known = ~np.isnan(values) if values.ndim == 1 else ~np.isnan(values).any(axis=1) & (values.shape[1] > 0)
        clipped = values[known].astype(np.float64).clip(-LARGEST, LARGEST)
        if not len(clipped):
            nothing, none = np.zeros(values.shape[1:]), np.zeros(0)
            means = np.zeros((0, *values.shape[1:]))
            return cls(0, nothing, nothing, nothing, nothing, Histogram(none.astype(np.int64), none, means, means))
        lowest, highest = clipped.min(axis=0), clipped.max(axis=0)
        if counts is None:
            mean = _clip_mean(lowest, clipped.mean(axis=0), highest)
            squares = np.square(clipped - mean).sum(axis=0)
            return cls(len(clipped), mean, squares, lowest, highest, Histogram.of(clipped))
        times = counts[known].astype(np.float64)
        mean = _clip_mean(lowest, times @ clipped / times.sum(), highest)
        squares = times @ np.square(clipped - mean)
        return cls(int(times.sum()), mean, squares, lowest, highest, Histogram.of(clipped, times))

    def __add__(self, other: Self) -> Self:
        if not self.count or not other.count:
            return self if self.count else other
        count, delta = self.count + other.count, other.mean - self.mean
        lowest, highest = np.minimum(self.lowest, other.lowest), np.maximum(self.highest, other.highest)
        mean = _clip_mean(lowest, self.mean + delta * (other.count / count), highest)
        squares = self.squares + other.squares + np.square(delta) * (self.count * other.count / count)
        return type(self)(count, mean, squares, lowest, highest, self.histogram + other.histogram)

    @property
    def variance(self) -> NDArray[np.float64]:
        """Population variance; exactly 0 if all numbers are equal."""
        return np.where(self.lowest == self.highest, 0.0, self.squares / max(1, self.count))

    def robust_moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance without outliers; equal to `mean` and `variance` if there are none.

        >>> far = RunningStats.of(np.array([1.0, 2.0, 3.0] * 99 + [1e300]))
        >>> [round(float(number), 3) for number in far.robust_moments()]
        [2.0, 0.667]
        """
        if not self.count:
            return self.mean, self.variance
        low, high = self.histogram.robust_range()
        if self.mean.ndim:
            no_outliers = max(np.abs(self.lowest).max(initial=0.0), np.abs(self.highest).max(initial=0.0)) <= high
        else:
            no_outliers = bool(low <= self.lowest and self.highest <= high)
        return (self.mean, self.variance) if no_outliers else self.histogram.robust_moments()


def _clip_mean(
    lowest: NDArray[np.float64], mean: NDArray[np.float64], highest: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Clip the mean to [lowest, highest]: exact for equal numbers, despite rounding."""
    return np.clip(mean, lowest, highest)
