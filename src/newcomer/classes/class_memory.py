"""What a learner keeps of its classes in place of their examples, and how features are read by it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch.nn import functional as F

from newcomer.nn.features.class_statistics import ClassStatistics
from newcomer.nn.features.drift_map import guarded
from newcomer.nn.features.novelty import QUANTILES, Novelty, quantiles
from newcomer.nn.features.temperature import temperature
from newcomer.nn.heads.gaussian import RealignedGaussians
from newcomer.nn.heads.head import Found, Head, Linear
from newcomer.nn.heads.kernel import KernelRidge
from newcomer.nn.heads.lda import Discriminant
from newcomer.nn.heads.linear import TrainedRows
from newcomer.nn.heads.prototypes import Prototypes
from newcomer.nn.heads.ridge import Ridge
from newcomer.shapes import Float, Int, Tensor

StatisticsHead = Literal["prototypes", "ridge", "lda", "gaussian", "kernel"]
HeadName = Literal["linear", "prototypes", "ridge", "lda", "gaussian", "kernel"]

HEADS: list[HeadName] = list(get_args(HeadName))

SPREAD = 8
"""Main directions kept of each class's own scatter."""
FOLDS = 5
"""Parts of a lesson, each read by heads that have not seen it, from which probabilities and novelty are calibrated."""
FEWER_FOLDS: dict[HeadName, int] = {"gaussian": 0, "kernel": 1}
"""Slow heads are calibrated on so many of these where they are not in use; `gaussian` on none: its own draws calibrate it."""
PREFIX = "memory."


def make_head(name: HeadName, shrinkage: float) -> Head:
    """The head of this name."""
    heads: dict[HeadName, Head] = {
        "linear": TrainedRows(),
        "prototypes": Prototypes(),
        "ridge": Ridge(shrinkage),
        "lda": Discriminant(shrinkage),
        "gaussian": RealignedGaussians(shrinkage),
        "kernel": KernelRidge(),
    }
    return heads[name]


@dataclass(frozen=True)
class Memory:
    """Statistics of all classes, and what held-out examples said of the answers they lead to."""

    statistics: ClassStatistics
    typical: Float[Tensor, "klass quantile"]
    """The distribution of each class's novelty, as its own held-out examples had it; NaN where there were too few."""
    temperatures: Float[Tensor, " head"]
    """What the logits of each of `HEADS` are divided by before the softmax; NaN where it was not found."""
    told: Float[Tensor, " head"]
    """How many held-out examples each temperature rests on."""

    @classmethod
    def empty(cls, width: int) -> "Memory":
        nothing = ClassStatistics.of(torch.zeros(0, width), torch.zeros(0, dtype=torch.long), 0, SPREAD)
        none = torch.zeros(len(HEADS), dtype=torch.float64)
        return cls(nothing.float(), torch.zeros(0, QUANTILES), none + torch.nan, none)

    def temperature(self, head: HeadName) -> float:
        """What this head's logits are divided by before the softmax."""
        found = float(self.temperatures[HEADS.index(head)])
        return 1.0 if math.isnan(found) else found

    def fold(self, head: Head, trained: Linear) -> Found:
        """The classifier of its terms that this head finds, in float32."""
        weight, bias = head.fold(self.statistics.double(), trained)
        return weight.float(), bias.float()

    def with_lesson(
        self,
        features: Float[Tensor, "batch width"],
        klass: Int[Tensor, " batch"],
        head: HeadName,
        shrinkage: float,
        trained: Linear,
    ) -> tuple["Memory", float | None]:
        """After these examples of new or known classes, numbered among all; and the share of the new classes' examples that
        `head` answered right without having seen them (trained rows have), None where none could be held out.

        Examples of known classes count in the statistics only: they may be the very ones that were learned before.
        """
        classes = max(len(self.typical), int(klass.max()) + 1)
        before = self.statistics.double().padded(classes)

        def joined(rows: Tensor) -> ClassStatistics:
            return before.joined(ClassStatistics.of(features[rows], klass[rows], classes, SPREAD))

        more = self.typical.new_full((classes - len(self.typical), QUANTILES), torch.nan)
        whole = joined(torch.ones_like(klass, dtype=torch.bool)).float()
        memory = replace(self, statistics=whole, typical=torch.cat([self.typical, more]))
        logits: dict[HeadName, list[Tensor]] = {name: [] for name in HEADS}
        novelty, told, part, new = [], [], _part(klass), klass >= len(self.typical)
        for left_out in range(FOLDS):
            kept = joined(part != left_out)
            present = kept.count > 0
            rows = ((part == left_out) & new & present[klass]).nonzero()[:, 0]
            if not len(rows):
                continue
            x, seen = features[rows].double(), kept.at(present.nonzero()[:, 0].tolist())
            for name in HEADS:
                if name != head and left_out >= FEWER_FOLDS.get(name, FOLDS):
                    continue
                reader = make_head(name, shrinkage)
                weight, bias = reader.fold(seen, (trained[0][present], trained[1][present]))
                found = x.new_full((len(rows), classes), float("-inf"))
                found[:, present] = reader.terms(seen, x) @ weight.T + bias
                logits[name].append(found)
            novelty.append(Novelty.of(seen, shrinkage)(x))
            told.append(rows)
        if not told:
            return memory, None
        wanted = klass[torch.cat(told)]
        memory = memory._with_novelty(torch.cat(novelty), wanted)
        for name, parts in logits.items():
            if parts:
                said = torch.cat(parts)
                memory = memory._with_temperature(HEADS.index(name), said, wanted[: len(said)])
        return memory, float((torch.cat(logits[head]).argmax(1) == wanted).double().mean())

    def _with_novelty(self, novelty: Float[Tensor, " example"], klass: Int[Tensor, " example"]) -> "Memory":
        typical = self.typical.clone()
        for k in torch.unique(klass).tolist():
            typical[k] = quantiles(novelty[klass == k]).float()
        return replace(self, typical=typical)

    def _with_temperature(
        self, place: int, logits: Float[Tensor, "example klass"], klass: Int[Tensor, " example"]
    ) -> "Memory":
        """The geometric mean of the temperatures of all lessons, each weighed by its examples."""
        asked = logits.isfinite().all(0)  # a class of one example was left out of its own fold
        rows = asked[klass]
        if asked.sum() < 2 or not rows.any():  # nothing was told apart
            return self
        found = temperature(logits[rows][:, asked], (asked.cumsum(0) - 1)[klass[rows]])
        temperatures, told, count = self.temperatures.clone(), self.told.clone(), int(rows.sum())
        share = count / (told[place] + count)
        old = temperatures[place].nan_to_num(1.0).log()
        temperatures[place], told[place] = (
            ((1 - share) * old + share * torch.tensor(found).log()).exp(),
            told[place] + count,
        )
        return replace(self, temperatures=temperatures, told=told)

    def drifted(
        self, old: Float[Tensor, "batch width"], new: Float[Tensor, "batch width"], klass: Int[Tensor, " batch"]
    ) -> tuple["Memory", float]:
        """Carried over to new weights by the same examples' features under the old and the new ones; and what the map explains."""
        drift, explained = guarded(old, new, klass)
        if drift is None:
            return self, explained
        return replace(self, statistics=drift.move(self.statistics.double()).float()), explained

    def at(self, classes: list[int]) -> "Memory":
        """Of these classes only."""
        return replace(self, statistics=self.statistics.at(classes), typical=self.typical[classes])

    def threshold(self, share: float) -> float:
        """The novelty that this share of the known classes' own examples would exceed; infinite where none was held out."""
        known = self.typical[~self.typical.isnan().any(1)].flatten()
        return float(torch.quantile(known, 1 - share)) if len(known) else float("inf")

    def tensors(self) -> dict[str, Tensor]:
        """All of it, for a store."""
        own = {"typical": self.typical, "temperatures": self.temperatures, "told": self.told}
        return {PREFIX + name: t.clone() for name, t in {**vars(self.statistics), **own}.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Memory":
        """As `tensors` gave it."""
        parts = {name.removeprefix(PREFIX): t for name, t in tensors.items() if name.startswith(PREFIX)}
        typical, temperatures, told = (parts.pop(name) for name in ("typical", "temperatures", "told"))
        later = (0, len(HEADS) - len(told))  # heads that came after the store was written
        statistics = ClassStatistics(**parts)
        return cls(statistics, typical, F.pad(temperatures, later, value=math.nan), F.pad(told, later))


def _part(klass: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """Each class's examples dealt out to the folds in turn."""
    part = torch.zeros_like(klass)
    for k in torch.unique(klass):
        places = (klass == k).nonzero()[:, 0]
        part[places] = torch.arange(len(places)) % FOLDS
    return part
