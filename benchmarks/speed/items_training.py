"""Speed of training on old items: meta-learning in batches against one item at a time, and pre-training per million rows.

    python benchmarks/speed/items_training.py

One core, the nine fields of MovieLens-1M, embeddings of width 16. Meta-learning of all weights, with the default readout and with
the paper's; the gradients of both implementations are compared before they are timed. One at a time takes one step per item, as
the released code does. Pre-training of the default model, the paper's and a DeepFM, with the multiply-adds of their matrix
products in one forward pass.
"""

import argparse
import copy
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import naive_emerg
import torch
from models import in_turns, measurement, ratio
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from measurement import Measurement, emit, one_line
from newcomer.experiments.recipe import read_recipe
from newcomer.items.adaptation.rules import AdamAdaptation
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.learner import ItemLearner
from newcomer.items.networks.item_network import ItemNetwork, seeded_rng
from newcomer.items.training.episodes import Episodes, Quarters
from newcomer.items.training.meta_learning import episode_loss
from newcomer.items.training.model_selection import ModelSelection
from newcomer.items.training.pretraining import _loss, pretrain
from newcomer.items.training.training_data import TrainingData, training_data
from newcomer.seeds import spawn
from newcomer.training.checkpoint import Checkpoint
from newcomer.training.fit import fit
from newcomer.training.learner import Step

COMMAND = "python benchmarks/speed/items_training.py"
STAGE = "old"
MODELS = {"emerg": "default model", "emerg-paper": "paper's readout", "id-tuning": "DeepFM"}
ALL_WEIGHTS = "default model, all its weights by episodes"
PAPER_SETTINGS = (
    "adaptation",
    "meta_trains",
    "meta_lr",
    "support_share",
    "support_events",
    "query_events",
    "vary_support",
)
BATCH_SIZES = (512, 4096)
ROWS = 40_960
"""Rows of pre-training in each turn: 80 batches of the small size, 10 of the large one."""
EPISODE_BATCHES = 2
"""Batches of meta-learning in each turn."""
EQUAL = 1e-4


@dataclass(frozen=True)
class UntrainedLearner:
    """An untrained learner, and the old items as its training data."""

    learner: ItemLearner
    old: TrainingData
    item_features: Values
    residuals: nn.Embedding

    @classmethod
    def of(cls, learner: ItemLearner, old: TrainingData) -> "UntrainedLearner":
        with seeded_rng(0, STAGE, "weights"):
            learner._create_network(old.encoder)
            residuals = nn.Embedding(len(old.items), learner.network.width + 1)
            nn.init.normal_(residuals.weight, std=learner.network.init_std)
        return cls(learner, old, old.encoder.items(old.items), residuals)

    def pretraining(self, batch_size: int, epochs: int) -> Iterator[Step]:
        learner, plan = self.learner, replace(self.learner.pretraining, batch_size=batch_size)
        best = ModelSelection(
            nn.ModuleList(), self.old.encoder, None, learner.adaptation, learner.warmup_events, learner.device
        )
        network, residuals = copy.deepcopy(learner.network), copy.deepcopy(self.residuals)
        return pretrain(
            network,
            residuals,
            self.item_features,
            self.old,
            plan,
            epochs,
            0,
            STAGE,
            Checkpoint(),
            best,
            learner.processes,
        )

    def multiply_adds(self, batch_size: int) -> float:
        """Multiply-adds of the matrix products in one forward pass, per row."""
        clicks, order = self.old.shuffled_chunk(0, 0, STAGE)
        learner, rows = self.learner, order[:batch_size]
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            seen = torch.zeros(batch_size, 1, dtype=torch.bool)  # all of every item
            weights, plan = clicks.weights(rows), learner.pretraining
            _loss(learner.network, self.residuals, self.item_features, clicks, rows, plan, seen, weights)
        return float(counter.get_total_flops()) / 2 / batch_size


class MetaLearning:
    """The same episodes by both implementations, each with its own network: one step of Adam per batch, or one per item."""

    def __init__(self, untrained: UntrainedLearner) -> None:
        learner = untrained.learner
        assert isinstance(learner.adaptation, AdamAdaptation)  # the paper's rule
        self.item_features, self.plan, self.adaptation = untrained.item_features, learner.meta, learner.adaptation
        self.clicks: Clicks = untrained.old.event_histories(0, STAGE)
        self.batches = _episode_batches(self.clicks, learner)
        self.rows = sum(int(side.real.sum()) for batch in self.batches for side in (batch.support, batch.query))
        self.fast = copy.deepcopy(learner.network)
        with seeded_rng(0, "no two edges alike"), torch.no_grad():  # equal edges would be kept in another order
            for parameter in self.fast.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.01)
        self.slow = copy.deepcopy(self.fast)
        self.optimizers = {network: self._adam(network) for network in (self.fast, self.slow)}

    def together(self) -> list[float]:
        """Loss of each step in nats."""
        return [values["loss"] for values in fit(self.batches, self._loss, self.optimizers[self.fast])]

    def one_by_one(self) -> list[float]:
        results = []
        for batch in self.batches:
            for episode in naive_emerg.single_episodes(batch):
                self.optimizers[self.slow].zero_grad()
                results.append(self._naive(episode, self.slow, self.clicks))
                self.optimizers[self.slow].step()
        return results

    def difference(self) -> float:
        """The largest relative difference between the losses and gradients of a batch, over all parameters, in float64."""
        fast, slow = copy.deepcopy(self.fast).double(), copy.deepcopy(self.slow).double()
        clicks = replace(self.clicks, label=self.clicks.label.double())
        loss = episode_loss(fast, self.item_features, clicks, self.batches[0], self.plan, self.adaptation)
        loss.backward()  # type: ignore[no-untyped-call]
        pairs = [(loss.detach(), torch.tensor(self._naive(self.batches[0], slow, clicks), dtype=torch.float64))]
        pairs += [(_gradient(a), _gradient(b)) for a, b in zip(fast.parameters(), slow.parameters(), strict=True)]
        return max(_difference(a, b) for a, b in pairs)

    def _loss(self, batch: Episodes) -> Tensor:
        return episode_loss(self.fast, self.item_features, self.clicks, batch, self.plan, self.adaptation)

    def _naive(self, batch: Episodes, network: ItemNetwork, clicks: Clicks) -> float:
        share, rate = self.plan.support_share, self.adaptation.inner_lr
        return naive_emerg.backward(network, self.item_features, clicks, batch, share, rate)

    def _adam(self, network: ItemNetwork) -> torch.optim.Optimizer:
        return torch.optim.Adam(network.parameters(), self.plan.lr, weight_decay=self.plan.weight_decay, fused=True)


def _episode_batches(clicks: Clicks, learner: ItemLearner) -> list[Episodes]:
    quarters, plan = Quarters(clicks.item), learner.meta
    batches = quarters.episode_batches(plan.episodes_per_step, 1, 0, STAGE)[:EPISODE_BATCHES]
    return [
        quarters.episodes(items, plan.support, plan.query, spawn(0, STAGE, "windows", n))
        for n, items in enumerate(batches)
    ]


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm().clamp(min=torch.finfo(other.dtype).tiny))


def meta_measurements(name: str, untrained: UntrainedLearner, repeats: int) -> list[Measurement]:
    meta = MetaLearning(untrained)
    difference = meta.difference()
    assert difference < EQUAL, f"the two implementations differ by {difference:.1e}"
    times = in_turns({"together": meta.together, "one by one": meta.one_by_one}, repeats)
    results = [
        measurement(f"meta-learning, {name}: largest relative difference", float(f"{difference:.2e}"), COMMAND, EQUAL)
    ]
    for way, seconds in times.items():
        speeds = [meta.rows / taken for taken in seconds]
        speed, std = statistics.median(speeds), statistics.stdev(speeds)
        print(f"meta-learning, {name}, {way}: {speed:.0f} ± {std:.0f} rows/s")
        results.append(
            measurement(
                f"meta-learning, {name}, {way}", round(speed, 1), COMMAND, None, round(std, 1), "rows/s", "higher"
            )
        )
    gain, std = ratio(times["one by one"], times["together"])
    print(f"meta-learning, {name}, together / one by one {gain:.1f} ± {std:.1f}, differ by {difference:.1e}")
    what = f"meta-learning, {name}, together / one by one"
    return [*results, measurement(what, round(gain, 2), COMMAND, 20, round(std, 2), better="higher")]


def pretrain_measurements(learners: dict[str, UntrainedLearner], repeats: int) -> list[Measurement]:
    results = []
    for size in BATCH_SIZES:
        runs: dict[str, Callable[[], object]] = {
            name: partial(_advance, untrained.pretraining(size, epochs=repeats + 1), ROWS // size)
            for name, untrained in learners.items()
        }
        for name, seconds in in_turns(runs, repeats).items():
            adds = learners[name].multiply_adds(size)
            results += _pretrain_measurements(MODELS[name], size, seconds, adds, 25.0 if name == "emerg" else None)
    return results


def _advance(steps_iterator: Iterator[Step], steps: int) -> None:
    for _ in range(steps):
        next(steps_iterator)


def _pretrain_measurements(
    model: str, size: int, seconds: Sequence[float], adds: float, target: float | None
) -> list[Measurement]:
    by_million = [taken * 1e6 / ROWS for taken in seconds]
    cost, std = statistics.median(by_million), statistics.stdev(by_million)
    print(f"pre-training {model}, batches of {size}: {cost:.1f} ± {std:.1f} s a million rows, {adds:.0f} multiply-adds")
    name = f"pre-training {model} batches of {size}"
    return [
        measurement(f"{name}: million rows", round(cost, 2), COMMAND, target, round(std, 2), "s"),
        measurement(f"{name}: multiply-adds a row forward", round(adds), COMMAND),
    ]


def load() -> dict[str, UntrainedLearner]:
    """The compared rows of the recipe, on the CPU."""
    rows = {row.row: row for row in read_recipe("ml-1m").rows()}
    stream = rows["emerg"].build_stream()
    old, learners = training_data(stream.old_log, torch.device("cpu")), {}
    paper = rows["emerg-paper"].learner
    paper_settings = {key: paper[key] for key in PAPER_SETTINGS} | {"episodes_per_step": 128}
    rows[ALL_WEIGHTS] = replace(rows["emerg"], learner={**rows["emerg"].learner, **paper_settings})
    for name in (*MODELS, ALL_WEIGHTS):
        row = replace(rows[name], learner={**rows[name].learner, "device": "cpu"})
        learner = row.build_learner(stream)
        assert isinstance(learner, ItemLearner)  # all rows of this recipe are
        learners[name] = UntrainedLearner.of(learner, old)
    return learners


def measurements(repeats: int) -> list[Measurement]:
    learners = load()
    all_weights = learners.pop(ALL_WEIGHTS)
    results = meta_measurements("default model", all_weights, repeats)
    results += meta_measurements("paper's readout", learners["emerg-paper"], repeats)
    return [*results, *pretrain_measurements(learners, repeats)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    torch.set_num_threads(1)
    with one_line():
        emit(measurements(parser.parse_args().repeats))
