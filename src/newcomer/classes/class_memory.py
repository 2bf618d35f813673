"""Class memory: statistics of all classes with calibration (temperatures, novelty quantiles), kept in place of examples."""

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
from newcomer.nn.heads.gaussian import RealignedGaussian
from newcomer.nn.heads.head import Head, Linear, WeightBias
from newcomer.nn.heads.kernel import KernelRidge
from newcomer.nn.heads.lda import LDA
from newcomer.nn.heads.linear import TrainedLinearHead
from newcomer.nn.heads.prototypes import Prototypes
from newcomer.nn.heads.ridge import Ridge
from newcomer.shapes import Float, Int, Tensor

StatisticsHead = Literal["prototypes", "ridge", "lda", "gaussian", "kernel"]
HeadName = Literal["linear", "prototypes", "ridge", "lda", "gaussian", "kernel"]

HEADS: list[HeadName] = list(get_args(HeadName))

PRINCIPAL_DIRECTIONS = 8
"""Principal directions kept of each class's scatter."""
FOLDS = 5
"""Folds of a task's examples for the cross-validation that calibrates probabilities and novelty scores."""
FEWER_FOLDS: dict[HeadName, int] = {"gaussian": 0, "kernel": 1}
"""Folds for slow heads that are not in use; none for `gaussian`, which is calibrated by its own samples."""
PREFIX = "memory."
CALIBRATION = "novelty_quantiles", "temperatures", "held_out_count"


def make_head(name: HeadName, shrinkage: float) -> Head:
    """Head by name."""
    heads: dict[HeadName, Head] = {
        "linear": TrainedLinearHead(),
        "prototypes": Prototypes(),
        "ridge": Ridge(shrinkage),
        "lda": LDA(shrinkage),
        "gaussian": RealignedGaussian(shrinkage),
        "kernel": KernelRidge(),
    }
    return heads[name]


@dataclass(frozen=True)
class ClassMemory:
    """Statistics of all classes, and calibration on held-out examples."""

    statistics: ClassStatistics
    novelty_quantiles: Float[Tensor, "class quantile"]
    """Novelty scores of each class's held-out examples; NaN for too few examples."""
    temperatures: Float[Tensor, " head"]
    """Softmax temperature of each of `HEADS`; NaN if unknown."""
    held_out_count: Float[Tensor, " head"]
    """Held-out examples behind each temperature."""

    @classmethod
    def empty(cls, width: int) -> "ClassMemory":
        nothing = ClassStatistics.of(torch.zeros(0, width), torch.zeros(0, dtype=torch.long), 0, PRINCIPAL_DIRECTIONS)
        none = torch.zeros(len(HEADS), dtype=torch.float64)
        return cls(nothing.float(), torch.zeros(0, QUANTILES), none + torch.nan, none)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.novelty_quantiles)

    def temperature(self, head: HeadName) -> float:
        """Softmax temperature of this head; 1 if unknown."""
        found = float(self.temperatures[HEADS.index(head)])
        return 1.0 if math.isnan(found) else found

    def fold(self, head: Head, trained: Linear) -> WeightBias:
        """Weight and bias that this head computes, in float32."""
        weight, bias = head.fold(self.statistics.double(), trained)
        return weight.float(), bias.float()

    def with_task(
        self,
        features: Float[Tensor, "batch width"],
        target: Int[Tensor, " batch"],
        head: HeadName,
        shrinkage: float,
        trained: Linear,
    ) -> tuple["ClassMemory", float | None]:
        """Memory after a task's examples, and the cross-validated accuracy of `head` on its new classes (None: nothing held out).

        `target` are indices into all classes. A trained linear head has seen the held-out examples. Examples of known classes
        update the statistics only: they may have been learned before.
        """
        classes = max(self.classes, int(target.max()) + 1)
        old = self.statistics.double().padded(classes)

        def joined(rows: Tensor) -> ClassStatistics:
            return old.joined(ClassStatistics.of(features[rows], target[rows], classes, PRINCIPAL_DIRECTIONS))

        more = self.novelty_quantiles.new_full((classes - self.classes, QUANTILES), torch.nan)
        whole = joined(torch.ones_like(target, dtype=torch.bool)).float()
        memory = replace(self, statistics=whole, novelty_quantiles=torch.cat([self.novelty_quantiles, more]))
        logits: dict[HeadName, list[Tensor]] = {name: [] for name in HEADS}
        novelty, held_out, fold_of, is_new = [], [], _folds(target), target >= self.classes
        for fold in range(FOLDS):
            kept = joined(fold_of != fold)
            present = kept.count > 0
            rows = ((fold_of == fold) & is_new & present[target]).nonzero()[:, 0]
            if not len(rows):
                continue
            x, statistics = features[rows].double(), kept.at(present.nonzero()[:, 0].tolist())
            for name in HEADS:
                if name != head and fold >= FEWER_FOLDS.get(name, FOLDS):
                    continue
                other = make_head(name, shrinkage)
                weight, bias = other.fold(statistics, (trained[0][present], trained[1][present]))
                found = x.new_full((len(rows), classes), float("-inf"))
                found[:, present] = other.terms(statistics, x) @ weight.T + bias
                logits[name].append(found)
            novelty.append(Novelty.of(statistics, shrinkage)(x))
            held_out.append(rows)
        if not held_out:
            return memory, None
        labels = target[torch.cat(held_out)]
        memory = memory._with_novelty(torch.cat(novelty), labels)
        for name, parts in logits.items():
            if parts:
                head_logits = torch.cat(parts)
                memory = memory._with_temperature(HEADS.index(name), head_logits, labels[: len(head_logits)])
        return memory, float((torch.cat(logits[head]).argmax(1) == labels).double().mean())

    def _with_novelty(self, novelty: Float[Tensor, " example"], target: Int[Tensor, " example"]) -> "ClassMemory":
        novelty_quantiles = self.novelty_quantiles.clone()
        for k in torch.unique(target).tolist():
            novelty_quantiles[k] = quantiles(novelty[target == k]).float()
        return replace(self, novelty_quantiles=novelty_quantiles)

    def _with_temperature(
        self, head: int, logits: Float[Tensor, "example class"], target: Int[Tensor, " example"]
    ) -> "ClassMemory":
        """Geometric mean of the tasks' temperatures, weighted by their examples."""
        finite = logits.isfinite().all(0)  # a class with one example is missing in its own fold
        rows = finite[target]
        if finite.sum() < 2 or not rows.any():
            return self
        found = temperature(logits[rows][:, finite], (finite.cumsum(0) - 1)[target[rows]])
        temperatures, held_out_count, count = self.temperatures.clone(), self.held_out_count.clone(), int(rows.sum())
        share = count / (held_out_count[head] + count)
        old = temperatures[head].nan_to_num(1.0).log()
        temperatures[head], held_out_count[head] = (
            ((1 - share) * old + share * torch.tensor(found).log()).exp(),
            held_out_count[head] + count,
        )
        return replace(self, temperatures=temperatures, held_out_count=held_out_count)

    def after_drift(
        self, old: Float[Tensor, "batch width"], new: Float[Tensor, "batch width"], target: Int[Tensor, " batch"]
    ) -> tuple["ClassMemory", float]:
        """Statistics mapped to new weights by the drift map of a task's features, and the variance that the map explains."""
        drift, explained = guarded(old, new, target)
        if drift is None:
            return self, explained
        return replace(self, statistics=drift.move(self.statistics.double()).float()), explained

    def at(self, classes: list[int]) -> "ClassMemory":
        """Restricted to these classes."""
        return replace(self, statistics=self.statistics.at(classes), novelty_quantiles=self.novelty_quantiles[classes])

    def threshold(self, share: float) -> float:
        """Novelty score exceeded by this share of the known classes' held-out examples; infinite without any."""
        known = self.novelty_quantiles[~self.novelty_quantiles.isnan().any(1)].flatten()
        return float(torch.quantile(known, 1 - share)) if len(known) else float("inf")

    def tensors(self) -> dict[str, Tensor]:
        """Tensors for a store."""
        calibration = {name: getattr(self, name) for name in CALIBRATION}
        return {PREFIX + name: t.clone() for name, t in {**vars(self.statistics), **calibration}.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "ClassMemory":
        """Inverse of `tensors`."""
        parts = {name.removeprefix(PREFIX): t for name, t in tensors.items() if name.startswith(PREFIX)}
        novelty_quantiles, temperatures, held_out_count = (parts.pop(name) for name in CALIBRATION)
        padding = (0, len(HEADS) - len(held_out_count))  # heads newer than the store
        statistics = ClassStatistics(**parts)
        return cls(
            statistics, novelty_quantiles, F.pad(temperatures, padding, value=math.nan), F.pad(held_out_count, padding)
        )


def _folds(target: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """Fold of each example; a class's examples go to the folds in turn."""
    fold = torch.zeros_like(target)
    for k in torch.unique(target):
        rows = (target == k).nonzero()[:, 0]
        fold[rows] = torch.arange(len(rows)) % FOLDS
    return fold
