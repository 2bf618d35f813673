"""Which numbers of a field are usual, and the mean and deviation of those: one number far out changes nothing for the others.

Numbers are counted in buckets of about the same relative width (as in DDSketch; Masson, Rim, Lee 2019), each with its own mean and
sum of squares, so that the counts of several parts add up, however the parts are cut. From their quantiles comes a range of usual
numbers; of the buckets outside it nothing is used. Where all numbers are usual, the mean and deviation are those of all.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

STEPS = 128
"""Buckets between a number and its double: a number is known to within one part in so many."""

LARGEST = 1e140
"""Numbers further out than this count as this: their squares can still be added up."""

WIDE = 10.0
"""Usual is what lies within so many widths of the middle of the numbers around it."""

MIDDLES = (0.25, 0.1, 0.05, 0.025, 0.01, 0.001)
"""The middle is what remains without this share on either side: the first that is no single number."""


@dataclass(frozen=True)
class Buckets:
    """Numbers, or vectors by their length, counted in buckets in ascending order.

    >>> prices = Buckets.of(np.array([2.0, 3.0, 4.0] * 99 + [1e9]))
    >>> low, high = prices.usual_range()
    >>> low < 2.0 < 4.0 < high < 100.0
    True
    """

    keys: NDArray[np.int64]
    counts: NDArray[np.float64]
    means: NDArray[np.float64]
    """Of the numbers of each bucket [bucket], or of its vectors [bucket, size]."""
    squares: NDArray[np.float64]
    """Sums of squares around the means."""

    @classmethod
    def of(cls, values: NDArray[np.float64], times: NDArray[np.float64] | None = None) -> Self:
        """Of finite `values` [n] or [n, size], each standing for so many `times`, once by default."""
        keys, places = np.unique(_keys(values if values.ndim == 1 else _octaves(values)), return_inverse=True)
        weights = np.ones(len(values)) if times is None else times
        counts = np.bincount(places, weights, minlength=len(keys)).astype(np.float64)
        means = _summed(places, values, weights, len(keys)) / _beside(counts, values)
        around = values - means[places]
        return cls(keys, counts, means, _summed(places, np.square(around), weights, len(keys)))

    def __add__(self, other: Self) -> Self:
        if not len(self.keys) or not len(other.keys):
            return self if len(self.keys) else other
        keys, places = np.unique(np.concatenate([self.keys, other.keys]), return_inverse=True)
        counts = np.concatenate([self.counts, other.counts])
        means, squares = (np.concatenate(pair) for pair in ((self.means, other.means), (self.squares, other.squares)))
        total = np.bincount(places, counts, minlength=len(keys)).astype(np.float64)
        mean = _summed(places, means, counts, len(keys)) / _beside(total, means)
        apart = _summed(places, np.square(means - mean[places]), counts, len(keys))
        return type(self)(keys, total, mean, _summed(places, squares, np.ones(len(places)), len(keys)) + apart)

    def usual_range(self) -> tuple[float, float]:
        """The lowest and the highest usual number.

        Usual is what is within 10 widths of the middle half of the numbers. Where that is one number, such as 0, of the middle 80,
        90, … per cent. Of vectors, what has no number larger than 10 times the largest numbers of three quarters of them.
        """
        if self.means.ndim == 2:
            end = _ends(self.keys[self._quantile(0.75)])[1] or _ends(self.keys[-1])[1]
            return 0.0, 2 * WIDE * end
        for share in MIDDLES:
            low, high = self._quantile(share), self._quantile(1 - share)
            if low != high:
                least, most = _ends(self.keys[low])[0], _ends(self.keys[high])[1]
                return least - WIDE * (most - least), most + WIDE * (most - least)
        low = self._quantile(0.5)
        least, most = _ends(self.keys[low])
        return least - WIDE * (most - least), most + WIDE * (most - least)

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of the usual ones; a variance that is no more than rounding is 0."""
        low, high = self.usual_range()
        ends = np.array([_ends(key) for key in self.keys])
        kept = (ends[:, 1] >= low) & (ends[:, 0] <= high)
        counts, means = self.counts[kept], self.means[kept]
        mean = np.asarray(counts @ means / counts.sum())
        variance = (self.squares[kept].sum(axis=0) + counts @ np.square(means - mean)) / counts.sum()
        return mean, np.where(variance <= np.square(1e-9 * mean), 0.0, variance)

    def _quantile(self, share: float) -> int:
        """In which bucket the number lies below which this share of all is; towards the nearer end where it is between two."""
        last = self.counts.sum() - 1
        place = np.floor(share * last) if share < 0.5 else np.ceil(share * last)
        return int(np.searchsorted(np.cumsum(self.counts), place, side="right").clip(max=len(self.keys) - 1))


def _keys(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """The number of each one's bucket, in the order of the numbers themselves; 0 for 0."""
    parts, exponents = np.frexp(np.abs(numbers))
    steps = np.floor((parts - 0.5) * (2 * STEPS)).astype(np.int64)
    keys = (exponents.astype(np.int64) + 1100) * STEPS + steps + 1
    found: NDArray[np.int64] = np.where(numbers == 0, 0, np.sign(numbers).astype(np.int64) * keys)
    return found


def _octaves(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The power of two below the largest number of each vector."""
    largest = np.abs(vectors).max(axis=1, initial=0.0)
    found: NDArray[np.float64] = np.where(largest == 0, 0.0, np.ldexp(0.5, np.frexp(largest)[1]))
    return found


def _ends(key: "int | np.int64") -> tuple[float, float]:
    """The lowest and the highest number of a bucket."""
    if key == 0:
        return 0.0, 0.0
    exponent, step = divmod(abs(int(key)) - 1, STEPS)
    low, high = (float(np.ldexp(0.5 + n / (2 * STEPS), exponent - 1100)) for n in (step, step + 1))
    return (low, high) if key > 0 else (-high, -low)


def _summed(
    places: NDArray[np.int64], values: NDArray[Any], weights: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    """Weighted sums of the values of each bucket."""
    if values.ndim == 1:
        return np.bincount(places, values * weights, minlength=count).astype(np.float64)
    return np.stack([weights[places == n] @ values[places == n] for n in range(count)])


def _beside(counts: NDArray[np.float64], values: NDArray[Any]) -> NDArray[np.float64]:
    """The counts in a shape that divides sums of such values."""
    return counts if values.ndim == 1 else counts[:, None]
