"""Adapters that are prompts: a query pass through the frozen backbone, then a pass with prompts."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import torch
from PIL.Image import new
from torch import nn

from newcomer.backbones.backbone import Backbone
from newcomer.classes.configuration import Training
from newcomer.classes.parts import Adapter, Learned, Steps, Task, autocast
from newcomer.classes.training_loop import TrainingLoop
from newcomer.data.examples import Input
from newcomer.errors import LearnerError
from newcomer.nn.lora.fused_linear import FusedLinear
from newcomer.nn.prompts.prefixes import Attention, Prefix, prefixed
from newcomer.seeds import spawn
from newcomer.shapes import Float, Tensor
from newcomer.training.fit import evaluating

KEYS_AND_VALUES = (
    ("k_proj", "v_proj"),
    ("key", "value"),
    ("k_lin", "v_lin"),
    ("k", "v"),
    ("key_proj", "value_proj"),
)
"""Names of the key and value projections in the known encoder families."""


class PromptAdapter(Adapter):
    """Prompts, and no other weight of the backbone; an input's frozen feature is the query that selects its prompts.

    A subclass holds the module `prompts`, computes features with them, and calls `_require_effect` at the end of its constructor.
    """

    prompts: nn.Module

    def __init__(self, backbone: Backbone, training: Training) -> None:
        super().__init__(backbone)
        self.precision, self.seed = training.precision, training.seed
        self.attentions = list(attentions(backbone.model).values())
        """Attention layers that can take prompts, in order of depth."""
        if not self.attentions:
            raise LearnerError(
                f"backbone '{backbone.name}' has no attention with key and value projections that are known"
            )

    @property
    def passes(self) -> int:
        return 2  # one for the query

    @abstractmethod
    def features_with_prompts(
        self, encoded: Mapping[str, Tensor], query: Float[Tensor, "batch width"]
    ) -> tuple[Float[Tensor, "batch width"], Float[Tensor, " batch"]]:
        """Features with the prompts that the queries select, and each example's prompt loss."""

    @abstractmethod
    def open(self, generator: torch.Generator) -> None:
        """Add a task's prompts."""

    @abstractmethod
    def close(self) -> dict[str, Tensor]:
        """Freeze the open task's prompts. Returns what its entry adds."""

    def train(self, task: Task, loop: TrainingLoop) -> Steps:
        """Open prompts, train them, close them."""
        self.open(task.spawn("prompts"))
        yield from loop.fit(task, self, {"factors": list(self.prompts.parameters())})
        return Learned(tensors=self.close())

    def encode(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        return self.encode_with_loss(encoded)[0]

    def encode_with_loss(self, encoded: Mapping[str, Tensor]) -> tuple[Float[Tensor, "batch width"], Tensor]:
        """Features and the prompts' loss: a query pass without prompts or gradients, then a pass with prompts.

        Prompts are selected in full precision.
        """
        with torch.no_grad(), autocast(self.backbone, self.precision):
            query = self.backbone(encoded).float()
        with autocast(self.backbone, "fp32"):
            features, losses = self.features_with_prompts(encoded, query)
        return features.float(), losses.sum()

    def features_with_prefixes(
        self, encoded: Mapping[str, Tensor], prefixes: Mapping[int, Prefix]
    ) -> Float[Tensor, "batch width"]:
        """Features with a prefix in each of these layers."""
        layers = ((self.attentions[layer], prefix) for layer, prefix in prefixes.items())
        with prefixed(layers), autocast(self.backbone, self.precision):
            features: Tensor = self.backbone(encoded)
        return features

    def all_tensors(self) -> Iterable[Tensor]:
        return [*self.prompts.parameters(), *self.prompts.buffers()]

    def _require_effect(self) -> None:
        """Raises LearnerError for a backbone whose features do not change with prompts, as a trial pass shows."""
        self.reset()
        self.open(spawn(self.seed, "trial", "prompts"))
        some: list[Input] = [new("RGB", (48, 48))] if self.backbone.reads_images else ["a text of words"]
        encoded = self.backbone.encode(some)
        with evaluating(self.backbone):
            plain = self.backbone(encoded)
            try:
                prompted = self.encode(encoded)
                effective = prompted.shape == plain.shape and not torch.equal(prompted, plain)
            except (RuntimeError, ValueError, IndexError, TypeError):  # each family fails in its own way
                effective = False
        if not effective:
            kind = type(self.attentions[0].whole).__name__
            raise LearnerError(
                f"backbone '{self.backbone.name}' has attention that takes no prompts ({kind}); give another backbone"
            )


def attentions(model: nn.Module) -> dict[str, Attention]:
    """Attention layers of a transformer by module name, in order of depth; empty for an unknown architecture.

    A fused query-key-value projection was split when the backbone was loaded (`FusedLinear`).
    """
    found = {}
    for name, part in model.named_modules():
        children = {child for child, _ in part.named_children()}
        key, value = next((pair for pair in KEYS_AND_VALUES if set(pair) <= children), ("", ""))
        if isinstance(part, FusedLinear):
            name, _, projection = name.rpartition(".")
            key, value = f"{projection}.{key}", f"{projection}.{value}"
        if key:
            found[name] = Attention(model.get_submodule(name), key, value)
    return found


def layer_of(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """The transformer layer (an element of a module list) that contains the first of these modules."""
    path = names[0].split(".")
    depth = next((i for i, part in enumerate(path, 1) if part.isdigit()), len(path))
    return model.get_submodule(".".join(path[:depth]))
