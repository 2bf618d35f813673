"""Classifiers of features, from what is kept of each class."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, final

import torch
from torch.nn import functional as F

from newcomer.classes.class_memory import ClassMemory
from newcomer.classes.configuration import Classifier
from newcomer.classes.confusions import HeldOutPredictions
from newcomer.classes.heads import HeadName, make_head
from newcomer.classes.parts import Learned, Part
from newcomer.errors import LearnerError
from newcomer.nn.features.name_regression import means_of_names
from newcomer.nn.features.novelty import Novelty
from newcomer.nn.heads.head import Head, Linear, WeightBias
from newcomer.nn.heads.linear_layer import LinearHead
from newcomer.settings import Json
from newcomer.shapes import Float, Int, Tensor

LEAST_EXPLAINED = 0.1
"""Least variance of class means that names must explain: right names of three classes explain more, wrong ones less."""

TERMS_BATCH = 1024
"""Features whose kernel terms are held at once."""


class FeatureClassifier(Part):
    """Logits and novelty scores of features. Its class memory is kept in place of examples."""

    replaces_state: ClassVar[bool] = True
    is_linear: ClassVar[bool] = True
    """Whether it is one linear layer on the features or their kernels, so that a model can be exported."""
    memory: ClassMemory

    def __init__(self, width: int, settings: Classifier, linear_head: LinearHead | None = None) -> None:
        """`linear_head`: the one that is trained; None: rows of zeros."""
        self.width, self.linear_head, self.settings = width, linear_head, settings
        # a cache with the memory that it was computed from: a memory is immutable and gets replaced
        self._novelty: tuple[ClassMemory, Novelty] | None = None

    @property
    def head_name(self) -> HeadName:
        """The head of the settings; for 'auto', the best one of those judged so far."""
        return self.memory.best_head() if self.settings.head == "auto" else self.settings.head

    @abstractmethod
    def logits(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch class"]:
        """Logits of all classes."""

    @abstractmethod
    def linear_classifier(self) -> WeightBias:
        """Weight and bias, one row per class: see `ClassLearner.linear_classifier`."""

    @abstractmethod
    def update(self, features: Float[Tensor, "batch width"], target: Int[Tensor, " batch"]) -> Learned:
        """Add a task's examples; `target` are indices into all classes."""

    def update_memory(
        self,
        features: Float[Tensor, "batch width"],
        target: Int[Tensor, " batch"],
        calibrated: Sequence[HeadName] | None = None,
    ) -> HeldOutPredictions | None:
        """Add a task's examples to the class memory. Returns predictions of the settings' head on held-out ones, if any."""
        head, how = self.head_name, self.settings
        trained = self.trained(max(self.memory.classes, int(target.max()) + 1))
        self.memory, held_out = self.memory.with_task(
            features, target, head, how.shrinkage, trained, calibrated, how.prior
        )
        return held_out

    def record_held_out(self, held_out: HeldOutPredictions) -> dict[str, Json]:
        """Keep predictions on held-out examples of a task's classes; returns what to say of them."""
        self.memory = replace(self.memory, confusions=self.memory.confusions.with_predictions(held_out))
        return {"held-out accuracy": held_out.accuracy}

    def judge_heads(self, features: Float[Tensor, "batch width"], target: Int[Tensor, " batch"]) -> None:
        """Judge all heads by a task's examples, with their features from before its training."""
        self.memory = self.memory.with_judged_heads(features, target, self.settings.shrinkage, self.settings.prior)

    def require_names(self) -> None:
        raise LearnerError(
            "this method keeps no means of the backbone's features, which a class's name could tell; give examples of the class, "
            "or take another method, such as 'sd-lora' or 'frozen'"
        )

    def learn_names(
        self, known: Float[Tensor, "known width"], indices: Sequence[int], new: Float[Tensor, "new width"]
    ) -> float:
        """Add classes by embeddings of their names, beside those of the known classes with these indices.

        Returns the variance explained (`nn.features.name_regression`). Raises LearnerError where names explain too little.
        """
        means, explained = means_of_names(known, self.memory.statistics.mean[list(indices)], new)
        if explained < LEAST_EXPLAINED:
            raise LearnerError(
                f"the names of the known classes explain {100 * max(explained, 0):.0f} % of how their features differ, and "
                f"{100 * LEAST_EXPLAINED:.0f} % are needed to tell others by their names; give names or descriptions in words "
                "that the model reads, or examples"
            )
        self.memory = self.memory.with_names(means)
        return explained

    def map_drift(
        self,
        old: Float[Tensor, "batch width"],
        new: Float[Tensor, "batch width"],
        target: Int[Tensor, " batch"],
        unlabelled: tuple[Float[Tensor, "more width"], Float[Tensor, "more width"]] | None = None,
    ) -> float:
        """Map the class memory along with the features of a task that trained the adapter. Returns the variance explained."""
        self.memory, explained = self.memory.after_drift(old, new, target, unlabelled)
        return explained

    @abstractmethod
    def flops(self) -> int:
        """Floating-point operations of one input's logits."""

    @property
    def support_points(self) -> Float[Tensor, "point width"] | None:
        """Support points of a kernel head; None for a head that is linear in the features."""
        return None

    def novelty(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
        """Novelty scores: distance to the nearest known class, see `nn.features.novelty`."""
        cached = self._novelty
        if cached is None or cached[0] is not self.memory:
            novelty = Novelty.of(self.memory.statistics.without_directions().double(), self.settings.shrinkage)
            cached = self._novelty = self.memory, novelty
        return cached[1](features.double())

    def trained(self, classes: int) -> Linear:
        """Weight and bias of the trained linear head, for so many classes."""
        if self.linear_head is None:
            return torch.zeros(classes, self.width), torch.zeros(classes)
        return self.linear_head.rows()


@final
class MemoryClassifier(FeatureClassifier):
    """The head that the settings name, computed from the class memory."""

    def __init__(self, width: int, settings: Classifier, linear_head: LinearHead | None = None) -> None:
        super().__init__(width, settings, linear_head)
        self._classifier: tuple[ClassMemory, WeightBias] | None = None

    @property
    def head(self) -> Head:
        return make_head(self.head_name, self.settings.shrinkage, self.settings.prior)

    def logits(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch class"]:
        weight, bias = self.linear_classifier()
        found, head = [], self.head
        for part in torch.split(features, TERMS_BATCH):
            terms = head.terms(self.memory.statistics, part)
            found.append(F.linear(terms, weight.to(terms), bias.to(terms)).float())
        return torch.cat(found)

    def linear_classifier(self) -> WeightBias:
        cached = self._classifier
        if cached is None or cached[0] is not self.memory:
            how, trained = self.settings, self.trained(self.memory.classes)
            cached = self.memory, self.memory.classifier(self.head_name, how.shrinkage, how.prior, trained)
            # a trained head changes without notice, and costs nothing to compute
            self._classifier = None if self.settings.head == "linear" else cached
        return cached[1]

    @property
    def support_points(self) -> Float[Tensor, "point width"] | None:
        return self.head.support_points(self.memory.statistics)

    def update(self, features: Float[Tensor, "batch width"], target: Int[Tensor, " batch"]) -> Learned:
        held_out = self.update_memory(features, target)
        info = {} if held_out is None else self.record_held_out(held_out)
        return Learned(info | ({"head": self.head_name} if self.settings.head == "auto" else {}))

    def require_names(self) -> None:
        if self.settings.head == "linear":
            raise LearnerError(
                "the linear head knows what it was trained on alone; give examples of the class, or --set head=gaussian"
            )

    def flops(self) -> int:
        classes, points = self.memory.classes, self.support_points
        return 2 * (classes * self.width if points is None else len(points) * (self.width + classes))

    def reset(self) -> None:
        self.memory = ClassMemory.empty(self.width)

    def state(self) -> dict[str, Tensor]:
        """The class memory, and the classifier of a slow head, so that an opened store predicts at once."""
        tensors = self.memory.tensors()
        if self.memory.classes and self.head.slow:
            tensors |= dict(zip(self._cached_names, self.linear_classifier(), strict=True))
        return tensors

    def all_tensors(self) -> Iterable[Tensor]:
        return self.memory.needed_tensors()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.memory = ClassMemory.from_tensors(state)
        weight, bias = self._cached_names
        if weight in state:
            self._classifier = self.memory, (state[weight], state[bias])

    def keep(self, classes: list[int]) -> None:
        self.memory = self.memory.at(classes)

    @property
    def _cached_names(self) -> tuple[str, str]:
        """Tensor names of the stored classifier; they depend on head, shrinkage and prior."""
        name = f"fitted.{self.head_name}.{self.settings.shrinkage!r}"
        name += "" if self.settings.prior == "uniform" else f".{self.settings.prior}"
        return f"{name}.weight", f"{name}.bias"
