"""Class memory: statistics of all classes with calibration (temperatures, novelty quantiles), kept in place of examples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

from newcomer.classes.confusions import Confusions, HeldOutPredictions
from newcomer.classes.cross_validation import FOLDS, cross_validate
from newcomer.classes.heads import CANDIDATES, HEADS, HeadName, make_head
from newcomer.nn.features.class_statistics import PRINCIPAL_DIRECTIONS, ClassStatistics
from newcomer.nn.features.drift_map import guarded
from newcomer.nn.features.novelty import QUANTILES, quantiles
from newcomer.nn.features.temperature import balanced_temperature, temperature, temperature_of_means
from newcomer.nn.heads.head import Head, Linear, Prior, WeightBias
from newcomer.shapes import Bool, Float, Int, Tensor

FEWER_FOLDS: dict[HeadName, int] = {"gaussian": 0, "kernel": 1}
"""Folds for slow heads that are not in use; none for `gaussian`, which is calibrated by its own samples."""
PREFIX = "memory."
CALIBRATION = "novelty_quantiles", "temperatures", "held_out_count", "judged"
OF_NAME, CONFUSIONS = "of_name", "confusions"
NAMED_EXAMPLES = 5
"""Examples that the name of a class is worth (docs/methods/zero-shot.md)."""
DEFAULT_HEAD: HeadName = "gaussian"
"""Choice among heads while there was nothing to judge them by."""


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
    judged: Float[Tensor, "head 2"]
    """Of each of `HEADS`: the sum of its losses on held-out examples, and their number; see `with_judged_heads`."""
    of_name: Float[Tensor, " class"]
    """Examples in each class's count that its name stands for."""
    confusions: Confusions
    """Those of the classes' held-out examples. Nothing is predicted from them."""

    @classmethod
    def empty(cls, width: int) -> "ClassMemory":
        nothing = ClassStatistics.of(torch.zeros(0, width), torch.zeros(0, dtype=torch.long), 0, PRINCIPAL_DIRECTIONS)
        none = torch.zeros(len(HEADS), dtype=torch.float64)
        judged = torch.stack([none, none], dim=1)
        quantiles, of_name = torch.zeros(0, QUANTILES), torch.zeros(0)
        return cls(nothing.float(), quantiles, none + torch.nan, none, judged, of_name, Confusions.none())

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.novelty_quantiles)

    @property
    def named(self) -> Bool[Tensor, " class"]:
        """Whether a class is known by its name alone."""
        return (self.of_name > 0) & (self.statistics.count <= self.of_name)

    def temperature(self, head: HeadName) -> float:
        """Softmax temperature of this head; 1 if unknown."""
        found = float(self.temperatures[HEADS.index(head)])
        return 1.0 if math.isnan(found) else found

    def fold(self, head: Head, trained: Linear) -> WeightBias:
        """Weight and bias that this head computes, in float32."""
        statistics = self.statistics if head.uses_directions else self.statistics.without_directions()
        weight, bias = head.fold(statistics.double(), trained)
        return weight.float(), bias.float()

    def classifier(self, name: HeadName, shrinkage: float, prior: Prior, trained: Linear) -> WeightBias:
        """Weight and bias of this head, divided by its temperature; under the empirical prior with the logarithms of its shares.

        While nothing was held out for the head, the temperature is that of the class means (`temperature_of_means`).
        """
        head = make_head(name, shrinkage, prior)
        weight, bias = self.fold(head, trained)
        divisor = float(self.temperatures[HEADS.index(name)])
        if math.isnan(divisor):
            means = head.terms(self.statistics, self.statistics.mean).to(weight)
            divisor = temperature_of_means(F.linear(means, weight, bias), self.statistics.count)
        bias = bias / divisor
        return weight / divisor, bias if head.estimates_prior else bias + self.log_prior(prior)

    def log_prior(self, prior: Prior) -> Float[Tensor, " class"]:
        """Logarithm of each class's probability before an input is seen, but for a constant."""
        count = self.statistics.count.clamp(min=1)
        return torch.zeros_like(count) if prior == "uniform" else (count / count.sum()).log()

    def with_task(
        self,
        features: Float[Tensor, "batch width"],
        target: Int[Tensor, " batch"],
        head: HeadName,
        shrinkage: float,
        trained: Linear,
        calibrated: Sequence[HeadName] | None = None,
        prior: Prior = "uniform",
    ) -> tuple["ClassMemory", HeldOutPredictions | None]:
        """Memory after a task's examples, and cross-validated predictions of `head` on its new classes (None: nothing held out).

        `target` are indices into all classes. A trained linear head has seen the held-out examples. Examples of known classes
        update the statistics only: they may have been learned before. `calibrated`: the heads whose temperature is updated.
        """
        memory = self._with_classes(self.statistics.with_examples(features, target, PRINCIPAL_DIRECTIONS))
        folds = {name: FOLDS if name == head else FEWER_FOLDS.get(name, FOLDS) for name in calibrated or HEADS}
        found = cross_validate(self.statistics, features, target, trained, shrinkage, folds, prior, self.named)
        if found is None:
            return memory, None
        memory = memory._with_novelty(found.novelty, found.target)
        for name, (logits, columns) in found.logits.items():
            by_example = prior == "empirical" and make_head(name, shrinkage).estimates_prior
            memory = memory._with_temperature(HEADS.index(name), logits, columns, by_example)
        logits, columns = found.logits[head]
        of_columns = torch.arange(memory.classes) if logits.shape[1] == memory.classes else found.near
        return memory, HeldOutPredictions(of_columns[columns], of_columns[logits.argmax(1)])

    def with_judged_heads(
        self,
        features: Float[Tensor, "batch width"],
        target: Int[Tensor, " batch"],
        shrinkage: float,
        prior: Prior = "uniform",
    ) -> "ClassMemory":
        """Cross-validate all heads but the trained one on a task's examples; nothing else changes.

        The features are those from before the task's training: afterwards the held-out examples have been trained on. A head is
        judged by its cross entropy at the temperature that fits the task, which tells heads apart where all of them are right.
        """
        untrained = torch.zeros(max(self.classes, int(target.max()) + 1), features.shape[1])
        folds = dict.fromkeys(CANDIDATES, FOLDS)
        trained = untrained, untrained[:, 0]
        found = cross_validate(self.statistics, features, target, trained, shrinkage, folds, prior, self.named)
        if found is None:
            return self
        judged = self.judged.clone()
        for name, (logits, columns) in found.logits.items():
            if logits.shape[1] > len(found.near):  # the same classes for every head
                logits, columns = logits[:, found.near], torch.searchsorted(found.near, found.target)
            logits, columns = _compared(logits, columns)
            if len(logits):
                loss = F.cross_entropy(logits / temperature(logits, columns), columns, reduction="sum")
                judged[HEADS.index(name)] += torch.stack([loss, loss.new_tensor(len(logits))])
        return replace(self, judged=judged)

    def with_names(self, means: Float[Tensor, "new width"]) -> "ClassMemory":
        """With new classes that are known by their names, which tell the means of their features."""
        return self._with_classes(
            self.statistics.double().with_means(means, NAMED_EXAMPLES).float(), of_name=NAMED_EXAMPLES
        )

    def _with_classes(self, statistics: ClassStatistics, of_name: float = 0.0) -> "ClassMemory":
        more = len(statistics.count) - self.classes
        quantiles = torch.cat([self.novelty_quantiles, self.novelty_quantiles.new_full((more, QUANTILES), torch.nan)])
        return replace(
            self,
            statistics=statistics,
            novelty_quantiles=quantiles,
            of_name=torch.cat([self.of_name, self.of_name.new_full((more,), of_name)]),
        )

    def best_head(self) -> HeadName:
        """The head of least mean loss on the examples by which heads were judged; the default without any."""
        loss, count = self.judged.T
        return HEADS[int((loss / count).nan_to_num(torch.inf).argmin())] if count.any() else DEFAULT_HEAD

    def _with_novelty(self, novelty: Float[Tensor, " example"], target: Int[Tensor, " example"]) -> "ClassMemory":
        novelty_quantiles = self.novelty_quantiles.clone()
        for k in torch.unique(target).tolist():
            novelty_quantiles[k] = quantiles(novelty[target == k]).float()
        return replace(self, novelty_quantiles=novelty_quantiles)

    def _with_temperature(
        self, head: int, logits: Float[Tensor, "example class"], target: Int[Tensor, " example"], by_example: bool
    ) -> "ClassMemory":
        """Geometric mean of the tasks' temperatures, weighted by their examples.

        Classes have the same weight within a task, or examples (`by_example`) where a head estimates the empirical prior.
        """
        single = ~logits.isfinite().all(0)  # classes of one example, which are missing in their own fold
        logits, target = _comparable(logits, target)
        if not len(logits):
            return self
        if by_example:
            found, count = temperature(logits, target), float(len(logits))
        else:
            found, count = balanced_temperature(logits, target, int(single.sum()))
        temperatures, held_out_count = self.temperatures.clone(), self.held_out_count.clone()
        share = count / (held_out_count[head] + count)
        old = temperatures[head].nan_to_num(1.0).log()
        temperatures[head], held_out_count[head] = (
            ((1 - share) * old + share * torch.tensor(found).log()).exp(),
            held_out_count[head] + count,
        )
        return replace(self, temperatures=temperatures, held_out_count=held_out_count)

    def after_drift(
        self,
        old: Float[Tensor, "batch width"],
        new: Float[Tensor, "batch width"],
        target: Int[Tensor, " batch"],
        unlabelled: tuple[Float[Tensor, "more width"], Float[Tensor, "more width"]] | None = None,
    ) -> tuple["ClassMemory", float]:
        """Statistics mapped to new weights by the drift map of a task's features, and the variance that the map explains."""
        drift, explained = guarded(old, new, target, unlabelled)
        if drift is None:
            return self, explained
        return replace(self, statistics=drift.move(self.statistics.double()).float()), explained

    def at(self, classes: list[int]) -> "ClassMemory":
        """Restricted to these classes."""
        return replace(
            self,
            statistics=self.statistics.at(classes),
            novelty_quantiles=self.novelty_quantiles[classes],
            of_name=self.of_name[classes],
            confusions=self.confusions.at(classes),
        )

    def threshold(self, share: float) -> float:
        """Novelty score exceeded by at most this share of further examples of known classes.

        The quantile 1 − `share` of held-out examples is raised by (n + 1) / n: a further example is one more (Vovk et al. 2005).
        Where `held_out_novelty`, n, is too small for that, it is the greatest score. Infinite without any.
        """
        known = self.novelty_quantiles[self._has_novelty].flatten()
        if not len(known):
            return float("inf")
        level = (1 - share) * (1 + 1 / self.held_out_novelty)
        return float(torch.quantile(known, min(1.0, level)))

    @property
    def held_out_novelty(self) -> float:
        """Effective number of examples behind the novelty scores, whose classes have the same weight: K² / Σ 1/n_k."""
        count = (self.statistics.count - self.of_name)[self._has_novelty].double()
        return len(count) ** 2 / float((1 / count).sum()) if len(count) else 0.0

    @property
    def _has_novelty(self) -> Bool[Tensor, " class"]:
        return ~self.novelty_quantiles.isnan().any(1)

    def tensors(self) -> dict[str, Tensor]:
        """Tensors for a store."""
        others = {name: getattr(self, name) for name in CALIBRATION} | {CONFUSIONS: self.confusions.counts}
        others |= {OF_NAME: self.of_name} if self.of_name.any() else {}
        return {PREFIX + name: t for name, t in {**vars(self.statistics), **others}.items()}

    def needed_tensors(self) -> list[Tensor]:
        """Those needed to predict and to learn further tasks."""
        return [tensor for name, tensor in self.tensors().items() if name != PREFIX + CONFUSIONS]

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "ClassMemory":
        """Inverse of `tensors`."""
        parts = {name.removeprefix(PREFIX): t for name, t in tensors.items() if name.startswith(PREFIX)}
        novelty_quantiles, temperatures, held_out_count, judged = (parts.pop(name) for name in CALIBRATION)
        of_name = parts.pop(OF_NAME, torch.zeros(len(novelty_quantiles)))
        counts = parts.pop(CONFUSIONS, Confusions.none().counts)  # an older store has none
        padding = (0, len(HEADS) - len(held_out_count))  # heads newer than the store
        return cls(
            ClassStatistics(**parts),
            novelty_quantiles,
            F.pad(temperatures, padding, value=math.nan),
            F.pad(held_out_count, padding),
            F.pad(judged, (0, 0, *padding)),
            of_name,
            Confusions(counts),
        )


def _comparable(
    logits: Float[Tensor, "example class"], target: Int[Tensor, " example"]
) -> tuple[Float[Tensor, "example class"], Int[Tensor, " example"]]:
    """Examples that have a logit of every class, of those that occur at all; none if fewer than two classes are left."""
    columns = logits.isfinite().any(0)
    rows = logits[:, columns].isfinite().all(1) & (columns.sum() > 1)
    return logits[rows][:, columns], (columns.cumsum(0) - 1)[target[rows]]


def _compared(
    logits: Float[Tensor, "example class"], target: Int[Tensor, " example"]
) -> tuple[Float[Tensor, "example class"], Int[Tensor, " example"]]:
    """Without classes of one example, which are missing in their own fold; no example if fewer than two classes are left."""
    finite = logits.isfinite().all(0)
    rows = finite[target] & (finite.sum() > 1)
    return logits[rows][:, finite], (finite.cumsum(0) - 1)[target[rows]]
