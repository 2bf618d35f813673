"""What exploring brings where model and prior are true: regret over greedy ranking, for thousands of draws.

    python benchmarks/quality/exploration_true_prior.py

The world of `exploration.py` without a model to train: the logit of an item's click is that of the request, which is known, plus
the item's own, drawn from the prior that the policies have. So nothing is lost by what a model misses, and what is left is the
price of finding out. An item's posterior is updated event by event, by a Newton step (an extended Kalman filter), between requests
that come `AT_ONCE`. Draws are the same for all policies. The std of a ratio is that over sets of `SEEDS` draws.

One policy knows how many requests are left, which no service does: the knowledge gradient (Ryzhov, Powell & Frazier: The knowledge
gradient algorithm for a general class of online learning problems, Operations Research 60, 2012).
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
from measurement import Measurement, emit, one_line
from newcomer.experiments.run import commit, machine

COMMAND = "python benchmarks/quality/exploration_true_prior.py"
NEW, CANDIDATES, AT_ONCE, SEEDS = 20, 10, 10, 5
ITEM_STD, REQUEST_MEAN, REQUEST_STD = 0.75, -0.6, 0.55
"""Of logits, as in the simulated click log."""

Floats = NDArray[np.float64]
Policy = Callable[[Floats, Floats, int, np.random.Generator], NDArray[np.int64]]
"""Logits and stds by draw and candidate, and how many requests are left → the candidate shown."""


def greedy(logit: Floats, std: Floats, left: int, chance: np.random.Generator) -> NDArray[np.int64]:
    chosen: NDArray[np.int64] = logit.argmax(axis=1)
    return chosen


def ucb(strength: float) -> Policy:
    def chosen(logit: Floats, std: Floats, left: int, chance: np.random.Generator) -> NDArray[np.int64]:
        return greedy(logit + strength * std, std, left, chance)

    return chosen


def thompson(strength: float) -> Policy:
    return lambda logit, std, left, chance: (logit + strength * std * chance.standard_normal(logit.shape)).argmax(
        axis=1
    )


def knowledge_gradient(share: float) -> Policy:
    """What one more event is expected to raise the best probability by, times a share of the requests that are left."""

    def policy(logit: Floats, std: Floats, left: int, chance: np.random.Generator) -> NDArray[np.int64]:
        p = _sigmoid(logit)
        w = p * (1 - p)
        change = w * std * np.sqrt(std**2 * w / (1 + std**2 * w))
        *_, second, best = np.moveaxis(np.sort(p, axis=1)[..., None], 1, 0)
        z = -np.abs(p - np.where(p == best, second, best)) / change
        below = torch.special.ndtr(torch.from_numpy(z)).numpy()
        gain = change * (z * below + np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))
        chosen: NDArray[np.int64] = (p + share * left * gain).argmax(axis=1)
        return chosen

    return policy


POLICIES: dict[str, Policy] = {
    "greedy": greedy,
    "ucb at half strength": ucb(0.5),
    "ucb": ucb(1.0),
    "ucb at twice the strength": ucb(2.0),
    "thompson at half strength": thompson(0.5),
    "thompson": thompson(1.0),
    "knowledge gradient, told how many requests are left": knowledge_gradient(0.4),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--impressions", type=int, nargs="+", default=[10, 50, 200], help="an item, on average")
    arguments.add_argument(
        "--draws", type=int, default=500, help="with 50 impressions; with more fewer, with less more"
    )
    given = arguments.parse_args()
    with one_line():
        emit(measurements(given.impressions, given.draws))


def measurements(impressions: list[int], draws: int) -> Iterator[Measurement]:
    for count in impressions:
        now = draws * 50 // count
        command = f"{COMMAND} --impressions {count} --draws {draws}"
        found = {name: regret(policy, NEW * count, now) for name, policy in POLICIES.items()}
        base = found["greedy"]
        for name, regrets in found.items():
            label = f"exploration, true prior, {count} impressions, {name}"
            mean, std = float(regrets.mean()), float(regrets.std(ddof=1))
            yield Measurement(f"{label}: regret", mean, "clicks", command, [0], machine(), commit(), None, std)
            if name != "greedy":
                std = float((_means(regrets) / _means(base)).std(ddof=1))
                ratio = float(regrets.mean() / base.mean())
                yield Measurement(f"{label}: over greedy", ratio, "1", command, [0], machine(), commit(), None, std)


def regret(policy: Policy, requests: int, draws: int) -> Floats:
    """Cumulative regret of each draw."""
    world, chance, rows = np.random.default_rng(0), np.random.default_rng(1), np.arange(draws)
    own = world.normal(0, ITEM_STD, (draws, NEW))
    mean, variance, found = np.zeros_like(own), np.full_like(own, ITEM_STD**2), np.zeros(draws)
    for begin in range(0, requests, AT_ONCE):
        events = []
        for request in range(begin, begin + AT_ONCE):
            candidates = world.random((draws, NEW)).argpartition(CANDIDATES, axis=1)[:, :CANDIDATES]
            known, luck = world.normal(REQUEST_MEAN, REQUEST_STD, draws), world.random(draws)
            logit, std = known[:, None] + mean[rows[:, None], candidates], np.sqrt(variance[rows[:, None], candidates])
            shown = policy(logit, std, requests - request, chance)
            true = _sigmoid(known[:, None] + own[rows[:, None], candidates])
            found += true.max(axis=1) - true[rows, shown]
            events.append((candidates[rows, shown], known, luck < true[rows, shown]))
        for item, known, clicked in events:
            p = _sigmoid(known + mean[rows, item])
            variance[rows, item] = 1 / (1 / variance[rows, item] + p * (1 - p))
            mean[rows, item] += variance[rows, item] * (clicked - p)
    return found


def _means(regrets: Floats) -> Floats:
    """Of `SEEDS` draws each."""
    found: Floats = regrets[: len(regrets) // SEEDS * SEEDS].reshape(-1, SEEDS).mean(axis=1)
    return found


def _sigmoid(logit: Floats) -> Floats:
    found: Floats = 1 / (1 + np.exp(-logit))
    return found


if __name__ == "__main__":
    main()
