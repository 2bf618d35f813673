"""RanPAC: random projections and an exact ridge regression after every task (McDonnell et al., NeurIPS 2023, arXiv 2307.02251)."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, final

import torch
from torch.nn import functional as F

from newcomer.backbones.backbone import Backbone
from newcomer.classes.class_memory import ClassMemory
from newcomer.classes.classifier import FeatureClassifier
from newcomer.classes.configuration import Classifier, CompiledRuntime, Training
from newcomer.classes.confusions import HeldOutPredictions
from newcomer.classes.learner import ClassLearner, open_backbone
from newcomer.classes.lora_adapters import Directions, low_rank_updates
from newcomer.classes.parts import Learned, Steps, Task
from newcomer.classes.training_loop import TrainingLoop
from newcomer.errors import LearnerError
from newcomer.nn.features.temperature import balanced_temperature, temperature
from newcomer.nn.heads.head import Prior, WeightBias
from newcomer.nn.heads.linear_layer import LinearHead
from newcomer.nn.heads.random_features import RidgeStatistics, random_features, select_ridge
from newcomer.seeds import spawn
from newcomer.settings import Json
from newcomer.shapes import Float, Int, Tensor
from newcomer.training.settings import Count, Share

PREFIX = "ranpac."


class RanPAC(ClassLearner):
    """Ridge regression of all examples on random features of a frozen encoder.

    See `nn.heads.random_features`. The result does not depend on the order of tasks, except for the ridge parameter, which the last
    task selects. Novelty scores use the encoder's features, as in every learner. The classifier is not linear in the features, so
    a model cannot be exported.

    - `projection_dim`: number of random features (paper: 10,000). A stage stores a square matrix of this size.
    - `adapt_first_task`: 'lora' adapts the encoder to the first task by one LoRA, frozen afterwards (the paper's first-session
      adaptation, there with other adapters); 'none' does not.
    - `rank`, `training`, `runtime`: of that LoRA, see `classes.configuration`. `shrinkage`: of covariances, for novelty scores.
    - `prior`: 'uniform': each class's logit is divided by its share of the examples; 'empirical': the regression as it is (the
      paper); see `classes.configuration.Classifier`.
    """

    name = "ranpac"
    adapter: Directions

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        projection_dim: Count = 2000,
        adapt_first_task: Literal["none", "lora"] = "none",
        rank: Count = 10,
        shrinkage: Share = 0.3,
        prior: Prior = "uniform",
        training: Training = Training(),
        runtime: CompiledRuntime = CompiledRuntime(),
        **settings: Any,
    ) -> None:
        backbone = open_backbone(backbone, runtime)
        self.adapt_first_task, self.rank = adapt_first_task, rank
        self.lora = low_rank_updates(backbone, rank, type(self).__name__)
        loop = TrainingLoop(backbone, training, runtime)
        head = RandomFeatureClassifier(
            backbone.width, shrinkage, prior, loop.linear_head, projection_dim, training.seed
        )
        super().__init__(Directions(backbone, self.lora, training.precision), loop, head, runtime)

    def _adapts_now(self) -> bool:
        return self.adapt_first_task == "lora" and not any(entry.info["what"] == "learn" for entry in self.entries)

    def _train(self, task: Task, loop: TrainingLoop) -> Steps:
        """One LoRA, with a linear head that is not used afterwards."""
        self.lora.open(self.rank, task.spawn("direction"))
        yield from loop.fit(task, self.adapter, {"factors": self.lora.trainable()["factors"]})
        self.lora.close()
        return Learned(tensors=self.adapter.last_direction())


@final
class RandomFeatureClassifier(FeatureClassifier):
    """Ridge regression on random features; the class memory, of the features themselves, gives novelty scores."""

    is_linear = False
    projection: Float[Tensor, "width wide"]
    """R, drawn from the seed at the first task, in whose entry it is."""
    sums: RidgeStatistics
    ridge: float
    """λ, selected by the last task in which a class had two examples."""
    temperature: float
    """Of the softmax: geometric mean of the tasks' temperatures, weighted by their held-out examples."""
    held_out_count: float
    """Effective number of held-out examples behind the temperature."""
    _solved: tuple[RidgeStatistics, Tensor] | None

    def __init__(
        self, width: int, shrinkage: float, prior: Prior, linear_head: LinearHead, projection_dim: int, seed: int
    ) -> None:
        super().__init__(width, Classifier("ridge", shrinkage, drift_map=False, prior=prior), linear_head)
        self.projection_dim, self.seed = projection_dim, seed

    def logits(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch class"]:
        return F.linear(random_features(features, self.projection), self._weight())

    def linear_classifier(self) -> WeightBias:
        """Raises LearnerError: there is none."""
        raise LearnerError("RanPAC's head is not linear in the backbone's features, so it cannot be exported")

    def update(self, features: Float[Tensor, "batch width"], target: Int[Tensor, " batch"]) -> Learned:
        self.update_memory(features, target, calibrated=["ridge"])  # without the accuracy of a ridge on the features
        added = {}
        if not self.projection.numel():
            chance = spawn(self.seed, "random projection")
            self.projection = torch.randn(self.width, self.projection_dim, generator=chance)
            added[PREFIX + "projection"] = self.projection
        h = random_features(features, self.projection)
        self.sums = self.sums.joined(h, target)
        classes, among = torch.unique(target, return_inverse=True)
        chosen, info = select_ridge(h, among), dict[str, Json]()
        if chosen is not None:
            self.ridge, logits, labels = chosen
            logits = logits * self._scale()[classes]
            if self.settings.prior == "uniform":
                found, count = balanced_temperature(logits, labels)
            else:
                found, count = temperature(logits, labels), float(len(labels))
            self.held_out_count, before = self.held_out_count + count, self.held_out_count
            self.temperature = math.exp(
                (before * math.log(self.temperature) + count * math.log(found)) / self.held_out_count
            )
            predictions = HeldOutPredictions(classes[labels], classes[logits.argmax(1)])
            info = {"ridge": self.ridge} | self.record_held_out(predictions)
        return Learned(info, added)

    def flops(self) -> int:
        return 2 * self.projection_dim * (self.width + self.memory.classes)

    def reset(self) -> None:
        self.memory = ClassMemory.empty(self.width)
        self.projection = torch.zeros(self.width, 0)
        self.sums = RidgeStatistics.empty(self.projection_dim)
        self.ridge, self.temperature, self.held_out_count = 0.0, 1.0, 0
        self._solved = None

    def state(self) -> dict[str, Tensor]:
        """The class memory and the sums, and the regression's weights, so that an opened store predicts at once."""
        scalars = torch.tensor([self.ridge, self.temperature, self.held_out_count], dtype=torch.float64)
        own = {"gram": self.sums.gram, "by_class": self.sums.by_class, "scalars": scalars}
        if self.memory.classes:
            own["weight"] = self._weight()
        return {**self.memory.tensors(), **{PREFIX + name: tensor for name, tensor in own.items()}}

    def all_tensors(self) -> Iterable[Tensor]:
        return [*self.memory.needed_tensors(), self.projection, self.sums.gram, self.sums.by_class]

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        self.projection = tensors.get(PREFIX + "projection", self.projection)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.memory = ClassMemory.from_tensors(state)
        tensors = {key.removeprefix(PREFIX): t for key, t in state.items() if key.startswith(PREFIX)}
        self.sums = RidgeStatistics(tensors["gram"], tensors["by_class"])
        self.ridge, self.temperature, self.held_out_count = tensors["scalars"].tolist()
        if "weight" in tensors:
            self._solved = self.sums, tensors["weight"]

    def keep(self, classes: list[int]) -> None:
        self.memory, self.sums = self.memory.at(classes), self.sums.at(classes)

    def _weight(self) -> Float[Tensor, "class wide"]:
        solved = self._solved
        if solved is None or solved[0] is not self.sums:
            weight = self.sums.solved(self.ridge) * self._scale()[:, None]
            solved = self._solved = self.sums, weight / self.temperature
        return solved[1]

    def _scale(self) -> Float[Tensor, " class"]:
        """Factor of each class's row: the rows of the regression are proportional to the numbers of examples."""
        count = self.memory.statistics.count.clamp(min=1)
        return torch.ones_like(count) if self.settings.prior == "empirical" else count.mean() / count
