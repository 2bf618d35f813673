"""KLDA: kernel linear discriminant analysis on a frozen encoder (Momeni et al., AAAI 2025, arXiv 2412.15571)."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, final

import torch
from torch.nn import functional as F

from newcomer.backbones.backbone import Backbone
from newcomer.classes.class_memory import ClassMemory
from newcomer.classes.classifier import FeatureClassifier
from newcomer.classes.configuration import Classifier, Runtime
from newcomer.classes.confusions import HeldOutPredictions
from newcomer.classes.learner import ClassLearner, open_backbone
from newcomer.classes.parts import Learned, NoAdapter, Steps, Task
from newcomer.classes.training_loop import TrainingLoop
from newcomer.errors import LearnerError
from newcomer.nn.features.class_statistics import ClassStatistics
from newcomer.nn.features.temperature import balanced_temperature, temperature_of_means
from newcomer.nn.heads.fourier_features import FourierFeatures, typical_distance
from newcomer.nn.heads.head import Prior, WeightBias
from newcomer.nn.heads.lda import LDA
from newcomer.nn.heads.random_features import held_out
from newcomer.seeds import spawn
from newcomer.settings import Json
from newcomer.shapes import Float, Int, Tensor
from newcomer.training.settings import Count, Rate, Share

PREFIX = "klda."


class KLDA(ClassLearner):
    """Linear discriminant analysis of random Fourier features φ of a frozen encoder's features: no training.

        φ(x) = √(2/D) cos(x Ω + b),    Σ = Σ_examples (φ − μ_class)(φ − μ_class)ᵀ
        logit_k = μ_kᵀ Σ⁻¹ φ − ½ μ_kᵀ Σ⁻¹ μ_k

    Kept are the mean of every class and one shared covariance of φ, so the order of tasks does not matter, but for the scale of Ω,
    which the first task gives. Novelty scores use the encoder's features, as in every learner. The classifier is not linear in the
    features, so a model cannot be exported.

    Departures from the paper: its bandwidth is a number for each encoder, here it is relative to the distance between two examples
    of the first task; its covariance is pseudo-inverted, here it is shrunk towards a multiple of the identity; its ensemble of
    several draws of Ω (KLDA-E) is left out.

    - `projection_dim`: D, number of Fourier features (paper: 5,000). A stage stores a square matrix of this size.
    - `bandwidth`: h of the kernel exp(−|x − z|² / 2h²), in units of the root mean squared distance between two of the first
      task's examples.
    - `shrinkage`: of the covariances, for the classifier and for novelty scores.
    - `prior`: 'uniform' or 'empirical', see `classes.configuration.Classifier`.
    - `seed`: of Ω and b. `device`, `shard_backbone`: see `classes.configuration.Runtime`.
    """

    name = "klda"

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        projection_dim: Count = 2000,
        bandwidth: Rate = 2.0,
        shrinkage: Share = 0.1,
        prior: Prior = "uniform",
        seed: int = 0,
        device: str | None = None,
        shard_backbone: bool = False,
    ) -> None:
        runtime = Runtime(cache_gib=0, device=device, shard_backbone=shard_backbone)
        backbone = open_backbone(backbone, runtime)
        classifier = KernelDiscriminant(backbone.width, shrinkage, prior, projection_dim, bandwidth, seed)
        super().__init__(NoAdapter(backbone), None, classifier, runtime)

    def _train(self, task: Task, loop: TrainingLoop) -> Steps:
        yield from ()  # never called: there is no loop
        return Learned()


@final
class KernelDiscriminant(FeatureClassifier):
    """Discriminant analysis of Fourier features; the class memory, of the features themselves, gives novelty scores."""

    is_linear = False
    fourier: FourierFeatures
    """Drawn from the seed at the first task, in whose entry it is."""
    statistics: ClassStatistics
    """Of the Fourier features, without principal directions."""
    temperature: float
    """Of the softmax: geometric mean of the tasks' temperatures, weighted by their held-out examples."""
    held_out_count: float
    """Effective number of held-out examples behind the temperature."""
    _solved: tuple[ClassStatistics, Any] | None

    def __init__(
        self, width: int, shrinkage: float, prior: Prior, projection_dim: int, bandwidth: float, seed: int
    ) -> None:
        super().__init__(width, Classifier("lda", shrinkage, drift_map=False, prior=prior))
        self.projection_dim, self.bandwidth, self.seed = projection_dim, bandwidth, seed
        self.head = LDA(shrinkage)

    def logits(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch class"]:
        weight, bias = self._weight_bias()
        return F.linear(self.fourier(features), weight, bias)

    def linear_classifier(self) -> WeightBias:
        """Raises LearnerError: there is none."""
        raise LearnerError("KLDA's head is not linear in the backbone's features, so it cannot be exported")

    def update(self, features: Float[Tensor, "batch width"], target: Int[Tensor, " batch"]) -> Learned:
        known = self.memory.classes
        self.update_memory(features, target, calibrated=["lda"])  # without the accuracy of an LDA of the features
        added = {}
        if not len(self.fourier.phases):
            bandwidth = self.bandwidth * typical_distance(features)
            self.fourier = FourierFeatures.draw(
                self.width, self.projection_dim, bandwidth, spawn(self.seed, "fourier features")
            )
            added = {PREFIX + name: tensor for name, tensor in vars(self.fourier).items()}
        x = self.fourier(features)
        info = self._calibrate(x, target, known)
        self.statistics = self.statistics.with_examples(x, target, 0)
        return Learned(info, added)

    def _calibrate(self, x: Float[Tensor, "batch wide"], target: Int[Tensor, " batch"], known: int) -> dict[str, Json]:
        """Update the temperature by a fifth of the new classes' examples, held out; others may have been learned before."""
        held = held_out(target) & (target >= known)
        if not held.any():
            return {}
        weight, bias = self._fold(self.statistics.with_examples(x[~held], target[~held], 0))
        logits, labels = F.linear(x[held], weight, bias), target[held]
        found, count = balanced_temperature(logits, labels)
        before, self.held_out_count = self.held_out_count, self.held_out_count + count
        logarithm = before * math.log(self.temperature) + count * math.log(found)
        self.temperature = math.exp(logarithm / self.held_out_count)
        return self.record_held_out(HeldOutPredictions(labels, logits.argmax(1)))

    def flops(self) -> int:
        return 2 * self.projection_dim * (self.width + self.memory.classes)

    def reset(self) -> None:
        wide = self.projection_dim
        self.memory = ClassMemory.empty(self.width)
        self.fourier = FourierFeatures(torch.zeros(self.width, 0), torch.zeros(0))
        self.statistics = ClassStatistics.of(torch.zeros(0, wide), torch.zeros(0, dtype=torch.long), 0).float()
        self.temperature, self.held_out_count, self._solved = 1.0, 0, None

    def state(self) -> dict[str, Tensor]:
        """The class memory and the statistics, and the classifier, so that an opened store predicts at once."""
        own = {f"statistics.{name}": tensor for name, tensor in vars(self.statistics).items()}
        own["scalars"] = torch.tensor([self.temperature, self.held_out_count], dtype=torch.float64)
        if self.memory.classes:
            own["weight"], own["bias"] = self._weight_bias()
        return {**self.memory.tensors(), **{PREFIX + name: tensor for name, tensor in own.items()}}

    def all_tensors(self) -> Iterable[Tensor]:
        return [*self.memory.needed_tensors(), *vars(self.fourier).values(), *vars(self.statistics).values()]

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        if PREFIX + "phases" in tensors:
            self.fourier = FourierFeatures(**{name: tensors[PREFIX + name] for name in vars(self.fourier)})

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.memory = ClassMemory.from_tensors(state)
        own = {key.removeprefix(PREFIX): t for key, t in state.items() if key.startswith(PREFIX)}
        self.statistics = ClassStatistics(**{name: own[f"statistics.{name}"] for name in vars(self.statistics)})
        self.temperature, self.held_out_count = own["scalars"].tolist()
        if "weight" in own:
            self._solved = self.statistics, (own["weight"], own["bias"])

    def keep(self, classes: list[int]) -> None:
        self.memory, self.statistics = self.memory.at(classes), self.statistics.at(classes)

    def _fold(self, statistics: ClassStatistics) -> WeightBias:
        """Weight and bias on the Fourier features."""
        no_head = torch.zeros_like(statistics.mean), torch.zeros_like(statistics.count)
        weight, bias = self.head.fold(statistics.double(), no_head)
        return weight.float(), bias.float()

    def _weight_bias(self) -> WeightBias:
        solved = self._solved
        if solved is None or solved[0] is not self.statistics:
            weight, bias = self._fold(self.statistics)
            divisor = self.temperature
            if not self.held_out_count:
                divisor = temperature_of_means(F.linear(self.statistics.mean, weight, bias), self.statistics.count)
            bias = bias / divisor + self.memory.log_prior(self.settings.prior)
            solved = self._solved = self.statistics, (weight / divisor, bias)
        found: WeightBias = solved[1]
        return found
