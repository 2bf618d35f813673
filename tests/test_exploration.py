"""Exploration orders candidates by score and uncertainty, and says with which probability; estimates of other policies use that."""

from typing import Any

import numpy as np
import pytest
import torch

from newcomer.errors import DataError, SettingError
from newcomer.items.serving.exploration import Explore, probability_of_being_best, rank
from newcomer.metrics.calibration import posterior_temperature
from newcomer.metrics.off_policy import Estimate, doubly_robust, ips, snips

LOGITS, STDS = np.array([0.3, 0.1, -0.5, 0.2]), np.array([0.0, 0.4, 1.2, 0.05])


def first(explore: Explore, count: int = 4000, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """The first candidate, and its propensity, of so many requests."""
    rankings = [rank(LOGITS, STDS, explore, f"request {n}", **settings) for n in range(count)]
    return np.array([one.order[0] for one in rankings]), np.array([one.propensity for one in rankings])


@pytest.mark.parametrize("explore", ["none", "thompson", "ucb"])
@pytest.mark.parametrize("epsilon", [0.0, 0.3])
@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
def test_a_propensity_is_how_often_the_candidate_is_first(explore: Explore, epsilon: float, strength: float) -> None:
    chosen, propensity = first(explore, epsilon=epsilon, strength=strength)
    share = np.bincount(chosen, minlength=4) / len(chosen)
    for candidate in np.unique(chosen):
        stated = propensity[chosen == candidate]
        assert np.ptp(stated) == 0
        assert abs(share[candidate] - stated[0]) < 4 * np.sqrt(stated[0] * (1 - stated[0]) / len(chosen)) + 1e-3
    assert abs(sum(propensity[chosen == candidate][0] for candidate in np.unique(chosen)) - 1) < 0.02


def test_the_probability_of_being_best_is_that_of_samples() -> None:
    chance = np.random.default_rng(0)
    samples = LOGITS + STDS * chance.standard_normal((200_000, 4))
    share = np.bincount(samples.argmax(axis=1), minlength=4) / len(samples)
    found = [probability_of_being_best(LOGITS, STDS, candidate) for candidate in range(4)]
    np.testing.assert_allclose(found, share, atol=4e-3)
    assert abs(sum(found) - 1) < 1e-3


def test_without_uncertainty_all_are_greedy_and_the_first_of_equals_wins() -> None:
    for explore in ("none", "thompson", "ucb"):
        ranking = rank([1.0, 2.0, 2.0], [np.nan, 0.0, np.nan], explore, "r")
        assert ranking.order.tolist() == [1, 2, 0]
        assert ranking.propensity == 1
        assert rank([0.0], [3.0], explore, "r").propensity == pytest.approx(1)


@pytest.mark.parametrize("strength", [5e-324, 1e-17, 1e-13])
def test_a_std_that_is_lost_in_rounding_is_none(strength: float) -> None:
    for n in range(20):
        ranking = rank([0.7, 0.7, 0.7], [1.0, 2.0, 1.0], "thompson", f"r{n}", strength=strength)
        assert (ranking.order[0], ranking.propensity) == (0, 1.0)
    with pytest.raises(SettingError, match="give a number from 0 to 1e"):
        rank([0.7, 0.7], [1.0, 2.0], "thompson", "r", strength=1e308)


def test_a_single_candidate_is_certain() -> None:
    assert rank([0.3], [1.0], "thompson", "r").propensity == 1


def test_many_candidates_are_ranked_as_few() -> None:
    chance = np.random.default_rng(0)
    logits, stds = chance.normal(size=1000), chance.random(1000)
    best = int(np.argmax(logits + 2 * stds))
    points = np.linspace(-8, 8, 4001)
    others = np.delete(np.arange(1000), best)
    apart = (logits[best] + stds[best] * points[:, None] - logits[others]) / stds[others]
    below = torch.special.ndtr(torch.from_numpy(apart)).numpy().prod(axis=1)
    density = np.exp(-(points**2) / 2) / np.sqrt(2 * np.pi)
    assert probability_of_being_best(logits, stds, best) == pytest.approx(
        np.trapezoid(density * below, points), abs=1e-4
    )


def test_the_same_request_gets_the_same_answer_and_another_may_get_another() -> None:
    one, again = (rank(LOGITS, STDS, "thompson", "r", epsilon=0.5) for _ in range(2))
    assert one.order.tolist() == again.order.tolist()
    assert len({rank(LOGITS, STDS, "thompson", f"r{n}").order[0] for n in range(50)}) > 1
    assert len({rank(LOGITS, STDS, "thompson", "r", seed=n).order[0] for n in range(50)}) > 1


def test_an_upper_bound_goes_up_with_the_std() -> None:
    assert rank(LOGITS, STDS, "ucb", "r", strength=0.0).order[0] == 0
    assert rank(LOGITS, STDS, "ucb", "r", strength=2.0).order[0] == 2
    np.testing.assert_allclose(rank(LOGITS, STDS, "ucb", "r", strength=2.0).values, LOGITS + 2 * STDS)


@pytest.mark.parametrize(
    ("logits", "stds", "settings", "error", "message"),
    [
        ([], [], {}, DataError, "at least one"),
        ([1.0], [1.0, 2.0], {}, DataError, "1 logits and 2 stds"),
        ([np.nan], [1.0], {}, DataError, "no finite number"),
        ([1.0], [-1.0], {}, DataError, "negative"),
        ([1.0], [1.0], {"strength": -1.0}, SettingError, "strength"),
        ([1.0], [1.0], {"epsilon": 1.5}, SettingError, "epsilon"),
        ([1.0], [1.0], {"explore": "tompson"}, SettingError, "tompson"),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    logits: list[float], stds: list[float], settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        rank(logits, stds, **{"explore": "thompson", "request": "r", **settings})


# Off-policy estimates, in a world with known rewards.

RATES = 1 / (1 + np.exp(-np.array([[0.5, -1.0, 0.0, 0.2], [-0.7, 0.4, 1.0, -0.2], [0.1, 0.1, -2.0, 1.5]])))
"""Click rate by kind of request and candidate."""
TARGET = np.array([2, 0, 1])
"""The choice of the policy that is judged, by kind of request."""


def logged(count: int, seed: int) -> dict[str, np.ndarray]:
    """Choices of a Thompson policy with its propensities, and what the judged policy would have done there."""
    chance = np.random.default_rng(seed)
    kind = chance.integers(len(RATES), size=count)
    means, stds = np.array([0.0, 0.2, 0.1, -0.1]), np.array([1.0, 0.8, 1.2, 1.0])
    shares = np.array([probability_of_being_best(means, stds, n) for n in range(4)])
    chosen = (means + stds * chance.standard_normal((count, 4))).argmax(axis=1)
    reward = (chance.random(count) < RATES[kind, chosen]).astype(float)
    target = 0.8 * (chosen == TARGET[kind]) + 0.05
    return {"reward": reward, "propensity": shares[chosen], "target": target, "kind": kind, "chosen": chosen}


def truth() -> float:
    policy = np.full(RATES.shape, 0.05)
    policy[np.arange(3), TARGET] += 0.8
    return float((policy * RATES).sum(axis=1).mean())


def estimates(count: int, seed: int) -> dict[str, Estimate]:
    log = logged(count, seed)
    given = (log["reward"], log["propensity"], log["target"])
    guess = np.full(RATES.shape, 0.5) + 0.1 * (RATES > 0.5)  # a poor model
    policy = np.full(RATES.shape, 0.05)
    policy[np.arange(3), TARGET] += 0.8
    of_policy = (policy * guess).sum(axis=1)[log["kind"]]
    wrong = np.full(count, 0.25)
    right = (policy * RATES).sum(axis=1)[log["kind"]]
    of_logged = RATES[log["kind"], log["chosen"]]
    return {
        "ips": ips(*given),
        "snips": snips(*given),
        "dr": doubly_robust(*given, guess[log["kind"], log["chosen"]], of_policy),
        "dr, wrong propensities": doubly_robust(log["reward"], wrong, log["target"], of_logged, right),
    }


@pytest.mark.parametrize("name", ["ips", "snips", "dr", "dr, wrong propensities"])
def test_estimates_are_near_the_truth_as_their_errors_say(name: str) -> None:
    found = [estimates(1000, seed)[name] for seed in range(60)]
    z = np.array([(one.value - truth()) / one.std_error for one in found])
    assert abs(z.mean()) < 3 / np.sqrt(len(z))
    assert 0.75 < z.std(ddof=1) < 1.3


def test_the_doubly_robust_estimate_has_less_error_than_the_plain_one() -> None:
    found = estimates(4000, 0)
    assert found["dr"].std_error < found["ips"].std_error
    assert found["snips"].std_error < found["ips"].std_error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"propensity": [0.5, 0.0]}, "propensity: row 2: 0.0 is no probability"),
        ({"propensity": [1.5, 0.5]}, "propensity: row 1: 1.5"),
        ({"target": [0.5, -0.1]}, "target: row 2"),
        ({"reward": [1.0, np.nan]}, "reward: row 2: nan is no finite number"),
        ({"propensity": [0.5]}, "propensity: 1 numbers for 2 logged choices"),
        ({"reward": [1.0], "propensity": [0.5], "target": [0.5]}, "needs at least 2"),
    ],
)
def test_what_no_estimate_can_be_made_of_is_refused_by_name(changes: dict[str, list[float]], message: str) -> None:
    given = {"reward": [1.0, 0.0], "propensity": [0.5, 0.5], "target": [1.0, 0.0]} | changes
    for estimate in (ips, snips):
        with pytest.raises(DataError, match=message):
            estimate(**given)
    count = len(given["reward"])
    with pytest.raises(DataError, match=message):
        doubly_robust(**given, predicted=[0.5] * count, predicted_of_policy=[0.5] * count)


def test_a_policy_that_shares_no_choice_is_not_judged() -> None:
    with pytest.raises(DataError, match="none of the logged choices"):
        snips([1, 0], [0.5, 0.5], [0, 0])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_posterior_temperature_is_what_stds_were_divided_by(temperature: float) -> None:
    chance = np.random.default_rng(0)
    item, std = np.repeat(np.arange(300), 60), np.repeat(chance.uniform(0.2, 0.8, 300), 60)
    logit = chance.standard_normal(len(item))
    error = np.repeat(chance.standard_normal(300), 60) * std
    label = chance.random(len(item)) < 1 / (1 + np.exp(-logit - error))
    found = posterior_temperature(item, label.astype(float), logit, std / temperature)
    assert abs(np.log(found / temperature)) < 0.2
    with pytest.raises(DataError, match="one item for every label"):
        posterior_temperature(item[1:], label.astype(float), logit, std)
