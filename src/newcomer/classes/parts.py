"""The parts that a class learner is made of: adapter, training loop, classifier; and what they hand to each other."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from newcomer.backbones.backbone import Backbone
from newcomer.classes.loader import Loader
from newcomer.errors import SettingError
from newcomer.nn.heads.head import Prior
from newcomer.seeds import spawn
from newcomer.settings import Json
from newcomer.shapes import Float, Int, Tensor
from newcomer.training.learner import Step


@dataclass(frozen=True)
class Task:
    """A task that is being trained."""

    name: str
    """Name of its stage."""
    loader: Loader
    target: Int[Tensor, " example"]
    """Indices into all classes, new ones last."""
    known: int
    """Number of classes known before it."""
    seed: int
    prior: Prior = "uniform"
    """Of its classes in the loss."""

    @property
    def is_first(self) -> bool:
        """Whether no class is known yet."""
        return not self.known

    def spawn(self, *purpose: str | int) -> torch.Generator:
        """The generator for this purpose in this task."""
        return spawn(self.seed, self.name, *purpose)


@dataclass(frozen=True)
class Learned:
    """What a task adds to the entry of its stage; the parts' states come besides (`Part.state`)."""

    info: Mapping[str, Json] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


Encode = Callable[[Mapping[str, Tensor]], Float[Tensor, "batch width"]]
"""Features of preprocessed inputs."""

Steps = Generator[Step, None, Learned]
"""Training of a task: yields every step, and returns what the task adds."""


class Part(ABC):
    """A part of a learner, with its state."""

    replaces_state: ClassVar[bool] = False
    """Whether the tensors of its state never change in place, so that an entry needs no copy of them."""

    @abstractmethod
    def reset(self) -> None:
        """Set to the state before the first task."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Its state besides what tasks added (`Learned`)."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state`, after the tasks' additions."""

    def add(self, tensors: Mapping[str, Tensor]) -> None:  # noqa: B027  # few parts grow by tasks
        """Add what a task added."""

    def all_tensors(self) -> Iterable[Tensor]:
        """What it takes to predict and to learn on: counted as the learner's size."""
        return self.state().values()

    def require_names(self) -> None:  # noqa: B027  # most parts know no classes
        """Raises LearnerError for a part that cannot know a class by its name alone."""

    def keep(self, classes: list[int]) -> None:  # noqa: B027  # most parts know no classes
        """Remove all other classes."""


class Adapter(Part):
    """What of a backbone is adapted: the forward pass with it, its parameters, and its tensors in a store."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.encoder: nn.Module = backbone.model
        """The model of a forward pass. Other threads may use it at the same time, so a pass stores nothing in it."""

    @property
    def width(self) -> int:
        """Number of features."""
        return self.backbone.width

    @property
    def passes(self) -> int:
        """Forward passes of the backbone a prediction."""
        return 1

    @abstractmethod
    def encode(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        """Features of the adapted backbone."""

    def encode_with_loss(self, encoded: Mapping[str, Tensor]) -> tuple[Float[Tensor, "batch width"], Tensor | float]:
        """Features, and the adapter's own term of the loss, summed over the batch."""
        return self.encode(encoded), 0.0

    def teacher(self) -> Encode:
        """The forward pass, without gradients, by the weights as they are now, whatever is trained later.

        Raises SettingError for an adapter that keeps no such weights.
        """
        raise SettingError(f"{type(self).__name__} keeps no weights from before a task; leave logit_distillation out")

    def encoder_weights(self) -> dict[str, Tensor] | None:
        """Adapted weights by their names in `backbone.model`; None if other weights are not all that is adapted."""
        return None


class NoAdapter(Adapter):
    """The frozen backbone."""

    def encode(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        features: Tensor = self.backbone(encoded, self.encoder)
        return features

    def encoder_weights(self) -> dict[str, Tensor]:
        return {}

    def reset(self) -> None:
        """There is no state."""

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """There is no state."""


def autocast(backbone: Backbone, precision: str) -> torch.autocast:
    """Context of a forward pass in this precision."""
    return torch.autocast(backbone.device.type, torch.bfloat16, enabled=precision == "bf16")
