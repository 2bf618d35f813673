"""RanPAC: random projections and an exact ridge regression after every task (McDonnell et al., NeurIPS 2023, arXiv 2307.02251)."""

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch.nn import functional as F

from newcomer.backbones.backbone import Backbone
from newcomer.classes.configuration import Classifier, CompiledRuntime, Training
from newcomer.classes.lora_learner import DirectionLearner
from newcomer.errors import LearnerError
from newcomer.nn.features.temperature import temperature
from newcomer.nn.heads.head import WeightBias
from newcomer.nn.heads.random_features import RidgeStatistics, random_features, select_ridge
from newcomer.seeds import spawn
from newcomer.shapes import Float, Int, Tensor
from newcomer.store.folder import Entry
from newcomer.training.settings import Count, Share

PREFIX = "ranpac."


class RanPAC(DirectionLearner):
    """Ridge regression of all examples on random features of a frozen encoder.

    See `nn.heads.random_features`. The result does not depend on the order of tasks, except for the ridge parameter, which the last
    task selects. Novelty scores use the encoder's features, as in every learner. The classifier is not linear in the features, so
    a model cannot be exported.

    - `projection_dim`: number of random features (paper: 10,000). A stage stores a square matrix of this size.
    - `adapt_first_task`: 'lora' adapts the encoder to the first task by one LoRA, frozen afterwards (the paper's first-session
      adaptation, there with other adapters); 'none' does not.
    - `rank`, `training`, `runtime`: of that LoRA, see `classes.configuration`. `shrinkage`: of covariances, for novelty scores.
    """

    name = "ranpac"

    projection: Float[Tensor, "width wide"]
    """R, drawn from the seed before the first task and stored in the first entry."""
    sums: RidgeStatistics
    ridge: float
    """λ, selected by the last task in which a class had two examples."""
    temperature: float
    """Of the softmax: geometric mean of the tasks' temperatures, weighted by their held-out examples."""
    held_out_count: int
    """Number of held-out examples behind the temperature."""
    _solved: tuple[RidgeStatistics, Tensor] | None

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        projection_dim: Count = 2000,
        adapt_first_task: Literal["none", "lora"] = "none",
        rank: Count = 10,
        shrinkage: Share = 0.3,
        training: Training = Training(),
        runtime: CompiledRuntime = CompiledRuntime(),
        **settings: Any,
    ) -> None:
        self.projection_dim, self.adapt_first_task, self.rank = projection_dim, adapt_first_task, rank
        super().__init__(
            backbone,
            rank=rank,
            loss_classes="new",
            training=training,
            classifier=Classifier("ridge", shrinkage, drift_map=False),
            runtime=runtime,
        )

    def trainable(self) -> dict[str, list[torch.nn.Parameter]]:
        """The factors of the first task's LoRA and the linear head, which is trained with it and not used afterwards."""
        return {name: group for name, group in super().trainable().items() if name != "magnitudes"}

    def linear_classifier(self) -> WeightBias:
        """Raises LearnerError: there is none."""
        self._require_classes()
        raise LearnerError("RanPAC's head is not linear in the backbone's features, so it cannot be exported")

    def encoder_weights(self) -> dict[str, Tensor]:
        """Raises LearnerError, as `linear_classifier` does."""
        self.linear_classifier()
        return {}

    def _adapts_now(self) -> bool:
        return self.adapt_first_task == "lora" and not any(entry.info["what"] == "learn" for entry in self.entries)

    def _begin_task(self, stage: str) -> None:
        self.lora.open(self.rank, spawn(self.training.seed, stage, "direction"))

    def _logits(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch class"]:
        self._require_classes()
        return F.linear(random_features(features, self.projection), self._weight())

    def _weight(self) -> Float[Tensor, "class wide"]:
        solved = self._solved
        if solved is None or solved[0] is not self.sums:
            solved = self._solved = self.sums, self.sums.solved(self.ridge) / self.temperature
        return solved[1]

    def _cached_head(self) -> dict[str, Tensor]:
        return {PREFIX + "weight": self._weight()} if self.classes else {}

    def _update_memory(self, features: Float[Tensor, "batch width"], target: Int[Tensor, " batch"]) -> None:
        super()._update_memory(features, target)
        h = random_features(features, self.projection)
        self.sums = self.sums.joined(h, target)
        index = torch.unique(target, return_inverse=True)[1]
        chosen = select_ridge(h, index)
        self.stage_info.pop("held-out accuracy", None)  # of a ridge on the features, not on random features
        if chosen is not None:
            self.ridge, logits, labels = chosen
            found = temperature(logits, labels)
            self.held_out_count, before = self.held_out_count + len(labels), self.held_out_count
            self.temperature = math.exp(
                (before * math.log(self.temperature) + len(labels) * math.log(found)) / self.held_out_count
            )
            self.stage_info |= {
                "ridge": self.ridge,
                "held-out accuracy": float((logits.argmax(1) == labels).double().mean()),
            }

    def _head_flops(self) -> int:
        return 2 * self.projection_dim * (self.backbone.width + len(self.classes))

    def _stored_tensors(self) -> Iterable[Tensor]:
        return [*super()._stored_tensors(), self.projection, self.sums.gram, self.sums.by_class]

    def _keep_classes(self, classes: list[int]) -> None:
        super()._keep_classes(classes)
        self.sums = self.sums.at(classes)

    def _reset(self) -> None:
        super()._reset()
        chance = spawn(self.training.seed, "random projection")
        self.projection = torch.randn(self.backbone.width, self.projection_dim, generator=chance)
        self.sums = RidgeStatistics.empty(self.projection_dim)
        self.ridge, self.temperature, self.held_out_count = 0.0, 1.0, 0
        self._solved = None

    def _tensors(self) -> dict[str, Tensor]:
        scalars = torch.tensor([self.ridge, self.temperature, self.held_out_count], dtype=torch.float64)
        tensors = {"gram": self.sums.gram, "by_class": self.sums.by_class, "scalars": scalars}
        if not self.entries:
            tensors["projection"] = self.projection
        return {**super()._tensors(), **{PREFIX + name: tensor for name, tensor in tensors.items()}}

    def _apply_entry(self, entry: Entry) -> None:
        super()._apply_entry(entry)
        tensors = {key.removeprefix(PREFIX): t for key, t in entry.tensors.items() if key.startswith(PREFIX)}
        self.projection = tensors.get("projection", self.projection)
        self.sums = RidgeStatistics(tensors["gram"], tensors["by_class"])
        self.ridge, self.temperature, held_out_count = tensors["scalars"].tolist()
        self.held_out_count = int(held_out_count)
        if "weight" in tensors:
            self._solved = self.sums, tensors["weight"]
