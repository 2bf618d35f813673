"""Exploration of new items: regret of Thompson sampling and of upper confidence bounds over greedy ranking, by one model.

    python benchmarks/quality/exploration.py

A simulated log whose click probabilities are known. A model learns the old items. Then requests come: a user and a context, and
`CANDIDATES` of the `NEW` new items, of which the policy shows the first; it is clicked by its true probability, and the item is
warmed up. Regret is the sum of what the best candidate's probability is above that of the item shown, over as many requests as give
`IMPRESSIONS` an item on average. All policies meet the same requests, and the same luck.
"""

import argparse
import itertools
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
from measurement import Measurement, emit, one_line
from newcomer.data.click_log import ClickLog
from newcomer.data.datasets.simulated_clicks import PROBABILITY, simulate_click_log
from newcomer.experiments.run import commit, machine
from newcomer.items.encoding.encoder import Clicks, concat_clicks
from newcomer.items.learner import ItemLearner
from newcomer.items.lifecycle import updated
from newcomer.items.methods.emerg import EmerG
from newcomer.items.serving.exploration import Explore, rank

COMMAND = "python benchmarks/quality/exploration.py"
OLD, NEW, CANDIDATES, IMPRESSIONS, AT_ONCE = 300, 20, 10, 50, 10
"""Items, and requests between two warm-ups."""
POLICIES: dict[str, tuple[Explore, float]] = {
    "greedy": ("none", 0.0),
    "thompson": ("thompson", 1.0),
    "thompson at half strength": ("thompson", 0.5),
    "ucb": ("ucb", 1.0),
}
TARGET = 0.7


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    arguments.add_argument("--planted", action="store_true", help="with interactions that differ between items")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    with one_line():
        emit(measurements(given.seeds, given.planted))


def measurements(seeds: list[int], planted: bool) -> Iterator[Measurement]:
    found: dict[str, list[float]] = {name: [] for name in POLICIES}
    for seed in seeds:
        world = World.of(seed, planted)
        for name, (explore, strength) in POLICIES.items():
            found[name].append(world.regret(explore, strength))
            print(seed, name, round(found[name][-1], 1), file=sys.stderr, flush=True)
    where = "planted" if planted else "additive"
    command = f"{COMMAND} --planted" if planted else COMMAND
    for name, regrets in found.items():
        std = statistics.stdev(regrets) if len(regrets) > 1 else None
        mean, label = statistics.mean(regrets), f"exploration, {where} world, {name}"
        yield Measurement(f"{label}: regret", mean, "clicks", command, seeds, machine(), commit(), None, std)
        if name != "greedy":
            ratio = mean / statistics.mean(found["greedy"])
            yield Measurement(f"{label}: over greedy", ratio, "1", command, seeds, machine(), commit(), TARGET)


@dataclass(frozen=True)
class World:
    """A trained model, and requests with the true probability of every new item."""

    learner: ItemLearner
    requests: Clicks
    """One row a request, whatever its item was."""
    probability: NDArray[np.float64]
    """request item"""
    seed: int

    @classmethod
    def of(cls, seed: int, planted: bool) -> "World":
        log = simulate_click_log(
            old_items=OLD, old_events=130, new_items=NEW, new_events=400, seed=seed, planted=planted
        )
        learner = EmerG(log.schema, seed=seed, device="cpu").learn(log.of_items(np.arange(OLD)))
        new = log.of_items(np.arange(OLD, OLD + NEW))
        learner.add(new.items.take(np.arange(OLD, OLD + NEW)))
        asked = new.take(np.arange(NEW * IMPRESSIONS))
        requests = learner.encoder.clicks(asked, np.zeros(len(asked), dtype=np.int64)).by_row()
        return cls(learner, requests, _probabilities(new, asked), seed)

    def regret(self, explore: Explore, strength: float) -> float:
        """Cumulative regret of this policy."""
        life, first = self.learner.lifecycle, len(self.learner.known) - NEW
        item_features = [values[first:] for values in self.learner.item_features]
        initial = life.initial_state(item_features, NEW)
        numbers = sum(value[0].numel() for value in life.network.split_state(initial)[1].values())
        state, past, factors = initial, None, [torch.zeros(0, numbers) for _ in range(NEW)]
        chance, regret = np.random.default_rng(self.seed), 0.0
        for begin in range(0, len(self.requests), AT_ONCE):
            rows = torch.arange(begin, begin + AT_ONCE)
            candidates = np.stack([chance.choice(NEW, CANDIDATES, replace=False) for _ in rows])
            luck = chance.random(AT_ONCE)
            asked = self.requests.by_row(rows.repeat_interleave(CANDIDATES))
            asked = _of_items(asked, candidates.ravel())
            padded = torch.nn.utils.rnn.pad_sequence(factors, batch_first=True)
            logits, stds = (
                part.reshape(candidates.shape) for part in life.predict_with_std(state, item_features, asked, padded)
            )
            shown = np.array(
                [
                    candidates[n, rank(logits[n], stds[n], explore, f"{begin + n}", strength=strength).order[0]]
                    for n in range(AT_ONCE)
                ]
            )
            truth = self.probability[begin : begin + AT_ONCE]
            best = np.take_along_axis(truth, candidates, axis=1).max(axis=1)
            of_shown = truth[np.arange(AT_ONCE), shown]
            regret += float((best - of_shown).sum())
            events = _of_items(self.requests.by_row(rows), shown, luck < of_shown)
            past = events if past is None else concat_clicks([past, events])
            mine = past.by_row(torch.isin(past.item, events.item).nonzero()[:, 0])
            window, summaries = life.absorb(initial, item_features, mine, {})
            for items, new in life.warm_up(state, initial, item_features, window, summaries=summaries):
                state = updated(state, items, new)
                for item, factor in life.posterior(items, new, item_features, window, summaries).items():
                    factors[item] = factor
        return regret


def _of_items(clicks: Clicks, items: NDArray[np.int64], clicked: NDArray[np.bool_] | None = None) -> Clicks:
    label = clicks.label if clicked is None else torch.from_numpy(clicked.astype(np.float32))
    return Clicks(torch.from_numpy(items), label, clicks.user, clicks.of_users, clicks.of_rows)


def _probabilities(known: ClickLog, asked: ClickLog) -> NDArray[np.float64]:
    """Of every request the true click probability of every new item: logits are sums of fields and pairs, and known exactly."""

    def design(log: ClickLog) -> NDArray[np.float64]:
        columns = [column.values[log.user] for column in log.users.columns.values()]
        columns += [column.values for name, column in log.context.items() if name != PROBABILITY]
        signs = [np.eye(int(values.max()) + 1)[values] for values in columns]
        pairs = [
            np.einsum("rm,rn->rmn", one, other).reshape(len(log), -1) for one, other in itertools.combinations(signs, 2)
        ]
        return np.concatenate(pairs, axis=1)

    at_requests, found = design(asked), []
    for item in range(OLD, OLD + NEW):
        mine = known.of_items(np.array([item]))
        probability = mine.context[PROBABILITY].values
        weights = np.linalg.lstsq(design(mine), np.log(probability / (1 - probability)), rcond=1e-9)[0]
        found.append(1 / (1 + np.exp(-at_requests @ weights)))
    return np.stack(found, axis=1)


if __name__ == "__main__":
    main()
