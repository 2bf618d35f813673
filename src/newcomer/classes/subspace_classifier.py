"""Classifier by prototypes in the subspaces of several encoders, whose features are side by side."""

import math
from collections.abc import Mapping
from typing import final

import torch

from newcomer.classes.class_memory import ClassMemory
from newcomer.classes.classifier import FeatureClassifier
from newcomer.classes.configuration import Classifier
from newcomer.classes.confusions import HeldOutPredictions
from newcomer.classes.parts import Learned
from newcomer.errors import LearnerError
from newcomer.nn.features.temperature import balanced_temperature
from newcomer.nn.heads.head import Prior, WeightBias
from newcomer.nn.heads.linear_layer import LinearHead
from newcomer.nn.heads.random_features import held_out
from newcomer.nn.heads.subspaces import SubspacePrototypes
from newcomer.settings import Json
from newcomer.shapes import Float, Int, Tensor

PREFIX = "subspaces."


@final
class SubspaceClassifier(FeatureClassifier):
    """Cosines to the prototypes in all subspaces (`nn.heads.subspaces`), the first of which is the plain backbone's.

    The class memory, of the plain backbone's features, gives novelty scores.
    """

    is_linear = False
    prototypes: SubspacePrototypes
    temperature: float
    """Of the softmax: geometric mean of the tasks' temperatures, weighted by their held-out examples."""
    held_out_count: float
    """Effective number of held-out examples behind the temperature."""

    def __init__(
        self, width: int, shrinkage: float, prior: Prior, alpha: float, linear_head: LinearHead, learner: str
    ) -> None:
        """`width`: of one subspace; `alpha`: weight of the others; errors are in the learner's name."""
        super().__init__(width, Classifier("prototypes", shrinkage, drift_map=False, prior=prior), linear_head)
        self.alpha, self.learner = alpha, learner

    def logits(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch class"]:
        found = self.prototypes.logits(self._by_subspace(features), self.alpha) / self.temperature
        return found + self.memory.log_prior(self.settings.prior)

    def linear_classifier(self) -> WeightBias:
        """Raises LearnerError: there is none."""
        raise LearnerError(f"{self.learner}'s features are those of several encoders, so it cannot be exported")

    def novelty(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
        return super().novelty(features[:, : self.width])

    def update(self, features: Float[Tensor, "batch width"], target: Int[Tensor, " batch"]) -> Learned:
        known = self.memory.classes
        self.update_memory(features[:, : self.width], target, calibrated=["prototypes"])
        x = self._by_subspace(features)
        trained = x.shape[1] > self.prototypes.mean.shape[1]
        newest = x.shape[1] - 1 if trained else 0  # without a training the plain backbone's is their own
        held, info = held_out(target) & (target >= known), dict[str, Json]()
        if held.any():
            kept = self.prototypes.with_examples(x[~held], target[~held], newest)
            logits, labels = kept.logits(x[held], self.alpha), target[held]
            found, count = balanced_temperature(logits, labels)
            before, self.held_out_count = self.held_out_count, self.held_out_count + count
            logarithm = before * math.log(self.temperature) + count * math.log(found)
            self.temperature = math.exp(logarithm / self.held_out_count)
            info = self.record_held_out(HeldOutPredictions(labels, logits.argmax(1)))
        self.prototypes = self.prototypes.with_examples(x, target, newest)
        return Learned(info)

    def flops(self) -> int:
        return 2 * self.prototypes.mean.numel()

    def reset(self) -> None:
        self.memory = ClassMemory.empty(self.width)
        self.prototypes = SubspacePrototypes.empty(1, self.width)
        self.temperature, self.held_out_count = 1.0, 0

    def state(self) -> dict[str, Tensor]:
        own = {f"prototypes.{name}": tensor for name, tensor in vars(self.prototypes).items()}
        own["scalars"] = torch.tensor([self.temperature, self.held_out_count], dtype=torch.float64)
        return {**self.memory.tensors(), **{PREFIX + name: tensor for name, tensor in own.items()}}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.memory = ClassMemory.from_tensors(state)
        self.prototypes = SubspacePrototypes(
            **{name: state[f"{PREFIX}prototypes.{name}"] for name in vars(self.prototypes)}
        )
        self.temperature, self.held_out_count = state[PREFIX + "scalars"].tolist()

    def keep(self, classes: list[int]) -> None:
        self.memory, self.prototypes = self.memory.at(classes), self.prototypes.at(classes)

    def _by_subspace(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch subspace width"]:
        return features.view(len(features), features.shape[1] // self.width, self.width)
