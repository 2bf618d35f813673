"""Off-policy estimates: the click rate that another policy would have had, from logged choices with their propensities."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from newcomer.errors import DataError

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """An estimated mean reward with its standard error."""

    value: float
    std_error: float


def ips(reward: ArrayLike, propensity: ArrayLike, target: ArrayLike) -> Estimate:
    """Inverse propensity scoring: mean of w r with w = target / propensity. Unbiased; Horvitz & Thompson 1952.

    `reward` r of the logged choices; `propensity`: the probability with which the logging policy made each of them; `target`: that
    of the policy that is judged.

    >>> ips([1, 0, 1, 0], [.5, .5, .5, .5], [1, 0, 0, 1])      # it would have chosen as in the first and last row
    Estimate(value=0.5, std_error=0.5)

    Raises DataError, by row, for what no estimate can be made of.
    """
    rewards, weights = _weighted(reward, propensity, target)
    return _mean(weights * rewards)


def snips(reward: ArrayLike, propensity: ArrayLike, target: ArrayLike) -> Estimate:
    """Self-normalized IPS: Σ w r / Σ w; a small bias for less variance. Swaminathan & Joachims, NIPS 2015. See `ips`.

    The standard error is the delta method's.

    >>> snips([1, 0, 1, 0], [.5, .5, .5, .5], [1, 0, 0, 1]).value
    0.5

    Raises DataError as `ips` does, and where the policy would have made none of the choices.
    """
    rewards, weights = _weighted(reward, propensity, target)
    if not weights.any():
        raise DataError(
            "the policy would have made none of the logged choices: nothing is known of it; log more choices"
        )
    value = float((weights * rewards).sum() / weights.sum())
    return Estimate(value, float(np.sqrt((weights**2 * (rewards - value) ** 2).sum()) / weights.sum()))


def doubly_robust(
    reward: ArrayLike, propensity: ArrayLike, target: ArrayLike, predicted: ArrayLike, predicted_of_policy: ArrayLike
) -> Estimate:
    """Doubly robust: mean of q̄ + w (r − q), right if propensities or predictions are. Dudík, Langford & Li, ICML 2011. See `ips`.

    `predicted` q: the predicted reward of each logged choice; `predicted_of_policy` q̄ = Σ_a target(a) q(a): of the choice that the
    judged policy would have made instead.

    >>> doubly_robust([1, 0], [.5, .5], [1, 0], [.75, .25], [.75, .75]).value     # .75 + (2 · .25 + 0) / 2
    1.0

    Raises DataError as `ips` does.
    """
    rewards, weights = _weighted(reward, propensity, target)
    of_logged = _numbers("predicted", predicted, len(rewards))
    of_policy = _numbers("predicted_of_policy", predicted_of_policy, len(rewards))
    return _mean(of_policy + weights * (rewards - of_logged))


def _weighted(reward: ArrayLike, propensity: ArrayLike, target: ArrayLike) -> tuple[_Floats, _Floats]:
    rewards = _numbers("reward", reward, None)
    propensities, targets = (
        _numbers(name, values, len(rewards)) for name, values in (("propensity", propensity), ("target", target))
    )
    if len(rewards) < 2:
        raise DataError(f"{len(rewards)} logged choices; a standard error needs at least 2")
    for name, values, wrong, need in (
        ("propensity", propensities, (propensities <= 0) | (propensities > 1), "above 0 and at most 1"),
        ("target", targets, (targets < 0) | (targets > 1), "in [0, 1]"),
    ):
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                f"{name}: row {row + 1}: {values[row]} is no probability of a logged choice; give one {need}"
            )
    return rewards, targets / propensities


def _numbers(name: str, values: ArrayLike, count: int | None) -> _Floats:
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: {error}; give numbers") from None
    if found.ndim != 1 or (count is not None and len(found) != count):
        raise DataError(f"{name}: {found.size} numbers for {count} logged choices; give one for each")
    wrong = ~np.isfinite(found)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{name}: row {row + 1}: {found[row]} is no finite number; leave this choice out")
    return found


def _mean(values: _Floats) -> Estimate:
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))
