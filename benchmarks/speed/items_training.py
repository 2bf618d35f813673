"""Learning from old items: meta-learning in batches beside one item at a time, and what a million rows of pre-training cost.

    python benchmarks/speed/items_training.py

One core, MovieLens-1M's nine fields, embeddings of width 16. Meta-learning of all weights, with the default model's readout and
with the paper's; gradients of both ways are compared before they are timed. One at a time takes a step an item, as the released
code does. Of pre-training, the default model, the paper's and a DeepFM, beside the multiply-adds of their matrix products in
one forward pass.
"""

import argparse
import copy
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import naive_emerg
import torch
from models import figure, in_turns, ratio
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from figure import Figure, emit, one_line
from newcomer.experiments.recipe import read_recipe
from newcomer.items.adaptation.rules import Adam
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.learner import ItemLearner
from newcomer.items.networks.item_network import ItemNetwork, chance
from newcomer.items.training.episodes import Episodes, Quarters
from newcomer.items.training.meta_learning import episode_loss
from newcomer.items.training.model_selection import Best
from newcomer.items.training.pretraining import _loss, pretrain
from newcomer.items.training.training_data import Lessons, lessons
from newcomer.seeds import spawn
from newcomer.training.checkpoint import Checkpoint
from newcomer.training.fit import fit
from newcomer.training.learner import Step

COMMAND = "python benchmarks/speed/items_training.py"
STAGE = "old"
MODELS = {"emerg": "default model", "emerg-paper": "paper's readout", "id-tuning": "DeepFM"}
ALL_WEIGHTS = "default model, all its weights by episodes"
PAPERS_WAY = ("adapt", "meta_trains", "meta_rate", "support_share", "support_events", "query_events", "vary_support")
BATCH_SIZES = (512, 4096)
ROWS = 40_960
"""Of pre-training in each turn: 80 batches of the small size, 10 of the large one."""
EPISODE_BATCHES = 2
"""Of meta-learning in each turn."""
EQUAL = 1e-4


@dataclass(frozen=True)
class Pupil:
    """A learner at its start, and the old items that it is to learn from."""

    learner: ItemLearner
    old: Lessons
    own: Values
    residuals: nn.Embedding

    @classmethod
    def of(cls, learner: ItemLearner, old: Lessons) -> "Pupil":
        with chance(0, STAGE, "weights"):
            learner._open(old.encoder)
            residuals = nn.Embedding(len(old.items), learner.network.width + 1)
            nn.init.normal_(residuals.weight, std=learner.network.deviation)
        return cls(learner, old, old.encoder.items(old.items), residuals)

    def pretraining(self, batch_size: int, epochs: int) -> Iterator[Step]:
        learner, plan = self.learner, replace(self.learner.pretraining, batch_size=batch_size, epochs=epochs)
        best = Best(nn.ModuleList(), self.old.encoder, None, learner.adaptation, learner.history, learner.device)
        network, residuals = copy.deepcopy(learner.network), copy.deepcopy(self.residuals)
        return pretrain(network, residuals, self.own, self.old, plan, 0, STAGE, Checkpoint(), best)

    def multiply_adds(self, batch_size: int) -> float:
        """Of matrix products in one forward pass, by row."""
        clicks, order = self.old.mix(0, 0, STAGE)
        learner, rows = self.learner, order[:batch_size]
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            seen = torch.zeros(batch_size, 1, dtype=torch.bool)  # all of every item
            _loss(learner.network, self.residuals, self.own, clicks, rows, learner.pretraining, seen)
        return float(counter.get_total_flops()) / 2 / batch_size


class Meta:
    """The same episodes in both ways, each on a network of its own; together a step of Adam a batch, alone a step an item."""

    def __init__(self, pupil: Pupil) -> None:
        learner = pupil.learner
        assert isinstance(learner.adaptation, Adam)  # the paper's rule
        self.own, self.plan, self.adaptation = pupil.own, learner.meta, learner.adaptation
        self.clicks: Clicks = pupil.old.histories(0, STAGE)
        self.batches = _drawn(self.clicks, learner)
        self.rows = sum(int(side.real.sum()) for batch in self.batches for side in (batch.support, batch.query))
        self.fast = copy.deepcopy(learner.network)
        with chance(0, "no two edges alike"), torch.no_grad():  # of equal ones either way may keep another
            for parameter in self.fast.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.01)
        self.slow = copy.deepcopy(self.fast)
        self.optimizers = {network: self._adam(network) for network in (self.fast, self.slow)}

    def together(self) -> list[float]:
        """Losses in nats, step by step."""
        return [seen["loss"] for seen in fit(self.batches, self._loss, self.optimizers[self.fast])]

    def one_by_one(self) -> list[float]:
        found = []
        for batch in self.batches:
            for alone in naive_emerg.alone(batch):
                self.optimizers[self.slow].zero_grad()
                found.append(self._naive(alone, self.slow, self.clicks))
                self.optimizers[self.slow].step()
        return found

    def apart(self) -> float:
        """By how much losses and gradients of a batch differ, relative to their size: the most of any parameter, in float64."""
        fast, slow = copy.deepcopy(self.fast).double(), copy.deepcopy(self.slow).double()
        clicks = replace(self.clicks, label=self.clicks.label.double())
        loss = episode_loss(fast, self.own, clicks, self.batches[0], self.plan, self.adaptation)
        loss.backward()  # type: ignore[no-untyped-call]
        pairs = [(loss.detach(), torch.tensor(self._naive(self.batches[0], slow, clicks), dtype=torch.float64))]
        pairs += [(_gradient(a), _gradient(b)) for a, b in zip(fast.parameters(), slow.parameters(), strict=True)]
        return max(_difference(a, b) for a, b in pairs)

    def _loss(self, batch: Episodes) -> Tensor:
        return episode_loss(self.fast, self.own, self.clicks, batch, self.plan, self.adaptation)

    def _naive(self, batch: Episodes, network: ItemNetwork, clicks: Clicks) -> float:
        share, rate = self.plan.support_share, self.adaptation.inner_rate
        return naive_emerg.backward(network, self.own, clicks, batch, share, rate)

    def _adam(self, network: ItemNetwork) -> torch.optim.Optimizer:
        return torch.optim.Adam(network.parameters(), self.plan.rate, weight_decay=self.plan.weight_decay, fused=True)


def _drawn(clicks: Clicks, learner: ItemLearner) -> list[Episodes]:
    quarters, plan = Quarters(clicks.item), learner.meta
    draws = quarters.draws(plan.per_step, 1, 0, STAGE)[:EPISODE_BATCHES]
    return [
        quarters.episodes(drawn, plan.support, plan.query, spawn(0, STAGE, "windows", n))
        for n, drawn in enumerate(draws)
    ]


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm().clamp(min=torch.finfo(other.dtype).tiny))


def meta_figures(name: str, pupil: Pupil, repeats: int) -> list[Figure]:
    meta = Meta(pupil)
    apart = meta.apart()
    assert apart < EQUAL, f"the two ways differ by {apart:.1e}"  # the same function, written twice
    times = in_turns({"together": meta.together, "one by one": meta.one_by_one}, repeats)
    found = [figure(f"meta-learning, {name}: largest relative difference", float(f"{apart:.2e}"), COMMAND, EQUAL)]
    for way, seconds in times.items():
        speeds = [meta.rows / taken for taken in seconds]
        speed, spread = statistics.median(speeds), statistics.stdev(speeds)
        print(f"meta-learning, {name}, {way}: {speed:.0f} ± {spread:.0f} rows/s")
        found.append(
            figure(f"meta-learning, {name}, {way}", round(speed, 1), COMMAND, None, round(spread, 1), "rows/s")
        )
    gain, spread = ratio(times["one by one"], times["together"])
    print(f"meta-learning, {name}, together / one by one {gain:.1f} ± {spread:.1f}, apart by {apart:.1e}")
    what = f"meta-learning, {name}, together / one by one"
    return [*found, figure(what, round(gain, 2), COMMAND, 20, round(spread, 2))]


def pretrain_figures(pupils: dict[str, Pupil], repeats: int) -> list[Figure]:
    found = []
    for size in BATCH_SIZES:
        courses: dict[str, Callable[[], object]] = {
            name: partial(_advance, pupil.pretraining(size, epochs=repeats + 1), ROWS // size)
            for name, pupil in pupils.items()
        }
        for name, seconds in in_turns(courses, repeats).items():
            adds = pupils[name].multiply_adds(size)
            found += _course_figures(MODELS[name], size, seconds, adds, 25.0 if name == "emerg" else None)
    return found


def _advance(course: Iterator[Step], steps: int) -> None:
    for _ in range(steps):
        next(course)


def _course_figures(model: str, size: int, seconds: Sequence[float], adds: float, target: float | None) -> list[Figure]:
    by_million = [taken * 1e6 / ROWS for taken in seconds]
    cost, spread = statistics.median(by_million), statistics.stdev(by_million)
    print(
        f"pre-training {model}, batches of {size}: {cost:.1f} ± {spread:.1f} s a million rows, {adds:.0f} multiply-adds"
    )
    name = f"pre-training {model} batches of {size}"
    return [
        figure(f"{name}: million rows", round(cost, 2), COMMAND, target, round(spread, 2), "s"),
        figure(f"{name}: multiply-adds a row forward", round(adds), COMMAND),
    ]


def read() -> dict[str, Pupil]:
    """The rows of the recipe that are compared, on the processor."""
    rows = {row.row: row for row in read_recipe("ml-1m").rows()}
    stream = rows["emerg"].build_stream()
    old, pupils = lessons(stream.old_log, torch.device("cpu")), {}
    paper = rows["emerg-paper"].learner
    taught = {key: paper[key] for key in PAPERS_WAY} | {"episodes_per_step": 128}
    rows[ALL_WEIGHTS] = replace(rows["emerg"], learner={**rows["emerg"].learner, **taught})
    for name in (*MODELS, ALL_WEIGHTS):
        row = replace(rows[name], learner={**rows[name].learner, "device": "cpu"})
        learner = row.build_learner(stream)
        assert isinstance(learner, ItemLearner)  # all rows of this recipe are
        pupils[name] = Pupil.of(learner, old)
    return pupils


def figures(repeats: int) -> list[Figure]:
    pupils = read()
    all_weights = pupils.pop(ALL_WEIGHTS)
    found = meta_figures("default model", all_weights, repeats)
    found += meta_figures("paper's readout", pupils["emerg-paper"], repeats)
    return [*found, *pretrain_figures(pupils, repeats)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    torch.set_num_threads(1)
    with one_line():
        emit(figures(parser.parse_args().repeats))
