"""Robust mean and variance of a numeric field from a mergeable log-scale histogram; outliers have no influence.

The buckets have about the same relative width (as in DDSketch; Masson, Rim, Lee 2019), each with its count, mean and sum of
squares, so histograms of chunks can be added in any order. Quantiles give a range of inliers; buckets outside it are ignored.
Without outliers, mean and variance are those of all numbers.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

STEPS = 128
"""Buckets per octave: relative precision 1/128."""

LARGEST = 1e140
"""Numbers are clipped to this magnitude, so that sums of squares do not overflow."""

MAX_RANGES = 10.0
"""Numbers within this many interquantile ranges of the interquantile range are inliers."""

TAIL_SHARES = (0.25, 0.1, 0.05, 0.025, 0.01, 0.001)
"""Share cut off on either side for the interquantile range: the first for which the range is not a single number is used."""


@dataclass(frozen=True)
class Histogram:
    """Log-scale histogram of numbers, or of vectors by their largest absolute entry; buckets in ascending order.

    >>> prices = Histogram.of(np.array([2.0, 3.0, 4.0] * 99 + [1e9]))
    >>> low, high = prices.robust_range()
    >>> low < 2.0 < 4.0 < high < 100.0
    True
    """

    keys: NDArray[np.int64]
    counts: NDArray[np.float64]
    means: NDArray[np.float64]
    """Means per bucket: [bucket], or [bucket, size] for vectors."""
    squares: NDArray[np.float64]
    """Sums of squared deviations from the means, in the shape of `means`."""

    @classmethod
    def of(cls, values: NDArray[np.float64], times: NDArray[np.float64] | None = None) -> Self:
        """Histogram of finite `values` [n] or [n, size] with weights `times`, 1 by default."""
        keys, buckets = np.unique(_keys(values if values.ndim == 1 else _octaves(values)), return_inverse=True)
        weights = np.ones(len(values)) if times is None else times
        counts = np.bincount(buckets, weights, minlength=len(keys)).astype(np.float64)
        means = _bucket_sums(buckets, values, weights, len(keys)) / _broadcast(counts, values)
        around = values - means[buckets]
        return cls(keys, counts, means, _bucket_sums(buckets, np.square(around), weights, len(keys)))

    def __add__(self, other: Self) -> Self:
        if not len(self.keys) or not len(other.keys):
            return self if len(self.keys) else other
        keys, buckets = np.unique(np.concatenate([self.keys, other.keys]), return_inverse=True)
        counts = np.concatenate([self.counts, other.counts])
        means, squares = (np.concatenate(pair) for pair in ((self.means, other.means), (self.squares, other.squares)))
        total = np.bincount(buckets, counts, minlength=len(keys)).astype(np.float64)
        mean = _bucket_sums(buckets, means, counts, len(keys)) / _broadcast(total, means)
        between = _bucket_sums(buckets, np.square(means - mean[buckets]), counts, len(keys))
        return type(self)(keys, total, mean, _bucket_sums(buckets, squares, np.ones(len(buckets)), len(keys)) + between)

    def robust_range(self) -> tuple[float, float]:
        """Bounds of the inliers.

        Numbers: within 10 interquartile ranges of the interquartile range; if that is a single number such as 0, of the middle
        80, 90, … per cent. Vectors: largest absolute entry at most 10 times its third quartile.
        """
        if self.means.ndim == 2:
            end = _bounds(self.keys[self._quantile(0.75)])[1] or _bounds(self.keys[-1])[1]
            return 0.0, 2 * MAX_RANGES * end
        for share in TAIL_SHARES:
            low, high = self._quantile(share), self._quantile(1 - share)
            if low != high:
                bottom, top = _bounds(self.keys[low])[0], _bounds(self.keys[high])[1]
                return bottom - MAX_RANGES * (top - bottom), top + MAX_RANGES * (top - bottom)
        low = self._quantile(0.5)
        bottom, top = _bounds(self.keys[low])
        return bottom - MAX_RANGES * (top - bottom), top + MAX_RANGES * (top - bottom)

    def robust_moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of the inliers; a variance at the level of rounding is set to 0."""
        low, high = self.robust_range()
        ends = np.array([_bounds(key) for key in self.keys])
        inside = (ends[:, 1] >= low) & (ends[:, 0] <= high)
        counts, means = self.counts[inside], self.means[inside]
        mean = np.asarray(counts @ means / counts.sum())
        variance = (self.squares[inside].sum(axis=0) + counts @ np.square(means - mean)) / counts.sum()
        return mean, np.where(variance <= np.square(1e-9 * mean), 0.0, variance)

    def _quantile(self, share: float) -> int:
        """Index of the bucket of this quantile; between two, the one nearer to the end."""
        last = self.counts.sum() - 1
        rank = np.floor(share * last) if share < 0.5 else np.ceil(share * last)
        return int(np.searchsorted(np.cumsum(self.counts), rank, side="right").clip(max=len(self.keys) - 1))


def _keys(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bucket key of each number, in the order of the numbers; 0 for 0."""
    parts, exponents = np.frexp(np.abs(numbers))
    steps = np.floor((parts - 0.5) * (2 * STEPS)).astype(np.int64)
    keys = (exponents.astype(np.int64) + 1100) * STEPS + steps + 1
    found: NDArray[np.int64] = np.where(numbers == 0, 0, np.sign(numbers).astype(np.int64) * keys)
    return found


def _octaves(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest power of two not above the largest absolute entry of each vector."""
    largest = np.abs(vectors).max(axis=1, initial=0.0)
    found: NDArray[np.float64] = np.where(largest == 0, 0.0, np.ldexp(0.5, np.frexp(largest)[1]))
    return found


def _bounds(key: "int | np.int64") -> tuple[float, float]:
    """Bounds of a bucket."""
    if key == 0:
        return 0.0, 0.0
    exponent, step = divmod(abs(int(key)) - 1, STEPS)
    low, high = (float(np.ldexp(0.5 + n / (2 * STEPS), exponent - 1100)) for n in (step, step + 1))
    return (low, high) if key > 0 else (-high, -low)


def _bucket_sums(
    buckets: NDArray[np.int64], values: NDArray[Any], weights: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    """Weighted sums of the values per bucket."""
    if values.ndim == 1:
        return np.bincount(buckets, values * weights, minlength=count).astype(np.float64)
    return np.stack([weights[buckets == n] @ values[buckets == n] for n in range(count)])


def _broadcast(counts: NDArray[np.float64], values: NDArray[Any]) -> NDArray[np.float64]:
    """Counts in a shape that broadcasts against such sums."""
    return counts if values.ndim == 1 else counts[:, None]
