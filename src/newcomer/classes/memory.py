"""What a learner keeps of its classes in place of their examples, and how features are read by it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from newcomer.nn.class_statistics import ClassStatistics
from newcomer.nn.drift import guarded
from newcomer.nn.heads.discriminant import Discriminant
from newcomer.nn.heads.gaussian import RealignedGaussians
from newcomer.nn.heads.head import Head, Linear
from newcomer.nn.heads.linear import TrainedRows
from newcomer.nn.heads.prototypes import Prototypes
from newcomer.nn.heads.ridge import Ridge
from newcomer.nn.novelty import QUANTILES, Novelty, quantiles
from newcomer.nn.temperature import temperature
from newcomer.shapes import Float, Int, Tensor

StatisticsHead = Literal["prototypes", "ridge", "lda", "gaussian"]
HeadName = Literal["linear", "prototypes", "ridge", "lda", "gaussian"]

SPREAD = 8
"""Main directions kept of each class's own scatter."""
FOLDS = 5
"""Parts of a lesson, each read by a head that has not seen it, from which probabilities and novelty are calibrated."""
COLUMN = "memory."


def make_head(name: HeadName, shrinkage: float) -> Head:
    """The head of this name."""
    heads: dict[HeadName, Head] = {
        "linear": TrainedRows(),
        "prototypes": Prototypes(),
        "ridge": Ridge(shrinkage),
        "lda": Discriminant(shrinkage),
        "gaussian": RealignedGaussians(shrinkage),
    }
    return heads[name]


@dataclass(frozen=True)
class Memory:
    """Statistics of all classes, and what held-out examples said of the answers they lead to."""

    statistics: ClassStatistics
    typical: Float[Tensor, "klass quantile"]
    """The distribution of each class's novelty, as its own held-out examples had it; NaN where there were too few."""
    temperature: float = 1.0
    told: float = 0.0
    """How many held-out examples the temperature rests on."""

    @classmethod
    def empty(cls, width: int) -> "Memory":
        nothing = ClassStatistics.of(torch.zeros(0, width), torch.zeros(0, dtype=torch.long), 0, SPREAD)
        return cls(nothing.float(), torch.zeros(0, QUANTILES))

    def fold(self, head: Head, trained: Linear) -> Linear:
        """The linear classifier that this head finds, in float32."""
        weight, bias = head.fold(self.statistics.double(), trained)
        return weight.float(), bias.float()

    def with_lesson(
        self,
        features: Float[Tensor, "batch width"],
        klass: Int[Tensor, " batch"],
        head: Head,
        shrinkage: float,
        trained: Linear,
    ) -> tuple["Memory", float | None]:
        """After these examples of new or known classes, numbered among all; and how many of them were answered right by a head
        that had not seen them (with trained rows: by rows that had), None where none could be held out."""
        classes = max(len(self.typical), int(klass.max()) + 1)
        before = self.statistics.double().padded(classes)

        def joined(rows: Tensor) -> ClassStatistics:
            return before.joined(ClassStatistics.of(features[rows], klass[rows], classes, SPREAD))

        logits, novelty, told = [], [], []
        part = _part(klass)
        for left_out in range(FOLDS):
            kept = joined(part != left_out)
            rows = ((part == left_out) & (kept.count[klass] > 0)).nonzero()[:, 0]
            if not len(rows):
                continue
            x = features[rows].double()
            weight, bias = head.fold(
                kept.at((present := kept.count > 0).nonzero()[:, 0].tolist()), _rows(trained, present)
            )
            found = x.new_full((len(rows), classes), float("-inf"))
            found[:, present] = x @ weight.T + bias
            logits.append(found)
            novelty.append(Novelty.of(kept, shrinkage)(x))
            told.append(rows)
        whole = joined(torch.ones_like(klass, dtype=torch.bool)).float()
        typical = torch.cat([self.typical, self.typical.new_full((classes - len(self.typical), QUANTILES), torch.nan)])
        if not told:
            return replace(self, statistics=whole, typical=typical), None
        rows, scores = torch.cat(told), torch.cat(novelty)
        for k in torch.unique(klass[rows]).tolist():
            own, share = quantiles(scores[klass[rows] == k]).float(), float((klass == k).sum() / whole.count[k])
            typical[k] = own if typical[k].isnan().any() else (1 - share) * typical[k] + share * own
        found, count = torch.cat(logits), float(len(rows))
        asked = found.isfinite().all(0)
        answered = asked[klass[rows]]
        hot = temperature(found[answered][:, asked], (asked.cumsum(0) - 1)[klass[rows][answered]])
        share = count / (self.told + count)
        mixed = math.exp((1 - share) * math.log(self.temperature) + share * math.log(hot))
        right = float((found.argmax(1) == klass[rows]).double().mean())
        return Memory(whole, typical, mixed, self.told + count), right

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
        scalars = torch.tensor([self.temperature, self.told], dtype=torch.float64)
        found = {**vars(self.statistics), "typical": self.typical, "temperature": scalars}
        return {COLUMN + name: t.clone() for name, t in found.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Memory":
        """As `tensors` gave it."""
        parts = {name.removeprefix(COLUMN): t for name, t in tensors.items() if name.startswith(COLUMN)}
        (hot, told), typical = parts.pop("temperature").tolist(), parts.pop("typical")
        return cls(ClassStatistics(**parts), typical, hot, told)


def _part(klass: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """Each class's examples dealt out to the folds in turn."""
    part = torch.zeros_like(klass)
    for k in torch.unique(klass):
        places = (klass == k).nonzero()[:, 0]
        part[places] = torch.arange(len(places)) % FOLDS
    return part


def _rows(trained: Linear, present: Tensor) -> Linear:
    weight, bias = trained
    return weight[present], bias[present]
