"""The paired t test against printed tables and its integral, and Holm's correction."""

import math

import numpy as np
import pytest

from newcomer.errors import StreamError
from newcomer.metrics.paired import holm, paired_test, t_quantile, t_tail_probability


@pytest.mark.parametrize(
    ("freedom", "t95", "t99"),
    [
        (1, 12.706, 63.657),
        (2, 4.303, 9.925),
        (3, 3.182, 5.841),
        (5, 2.571, 4.032),
        (10, 2.228, 3.169),
        (30, 2.042, 2.75),
    ],
)
def test_the_printed_table_of_t(freedom: int, t95: float, t99: float) -> None:
    assert t_quantile(0.95, freedom) == pytest.approx(t95, abs=6e-4)
    assert t_quantile(0.99, freedom) == pytest.approx(t99, abs=6e-4)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 12])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 2.5, 9.0])
def test_the_sums_are_the_integral_of_the_density(freedom: int, t: float) -> None:
    x = np.linspace(0, t, 20_001)
    scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(math.pi * freedom)
    density = scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    assert t_tail_probability(t, freedom) == pytest.approx(2 * float(np.trapezoid(density, x)), abs=1e-7)
    assert t_tail_probability(-t, freedom) == t_tail_probability(t, freedom)


def test_the_interval_holds_nothing_exactly_where_p_says_so() -> None:
    chance = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        found = paired_test(chance.normal(0.8, 1, size=5))
        assert (found.low <= 0 <= found.high) == (found.p >= 0.05)
        seen.add(found.p >= 0.05)
    assert seen == {True, False}


def test_without_any_difference_every_p_is_as_likely() -> None:
    chance = np.random.default_rng(1)
    p = np.sort([paired_test(chance.normal(size=3)).p for _ in range(2000)])
    assert np.abs(p - (np.arange(2000) + 0.5) / 2000).max() < 0.03


def test_the_order_of_the_pair_turns_the_difference_and_nothing_else() -> None:
    forth, back = (paired_test(sign * np.array([1.0, 2.5, -0.5, 2.0])) for sign in (1, -1))
    assert (back.mean, back.low, back.high, back.p) == (-forth.mean, -forth.high, -forth.low, forth.p)


def test_differences_that_are_all_the_same_are_certain() -> None:
    same, nothing = paired_test(np.array([0.1 + 0.2, 0.3, 0.3])), paired_test(np.zeros(3))
    assert (same.low, same.p) == (same.high, 0)
    assert (nothing.mean, nothing.low, nothing.high, nothing.p) == (0, 0, 0, 1)


def test_one_seed_is_too_few() -> None:
    with pytest.raises(StreamError, match="a paired test needs two seeds at least, not 1; run more seeds"):
        paired_test(np.array([1.0]))


def test_holm_keeps_the_order_and_is_no_smaller_than_p_and_no_larger_than_bonferroni() -> None:
    p = np.random.default_rng(2).uniform(0, 0.4, size=7).tolist()
    adjusted = holm(p)
    assert np.argsort(p).tolist() == np.argsort(adjusted, kind="stable").tolist() or len(set(adjusted)) < 7
    assert all(one <= other <= min(1, 7 * one) for one, other in zip(p, adjusted, strict=True))
    assert adjusted[int(np.argmin(p))] == min(1, 7 * min(p))
    assert holm([]) == []
    assert holm([0.2]) == [0.2]
