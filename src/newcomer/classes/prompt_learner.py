"""Base class of prompt learners: a query pass through the frozen backbone, then a pass with prompts."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import torch
from PIL.Image import new
from torch import nn
from torch.nn import functional as F

from newcomer.backbones.backbone import Backbone
from newcomer.classes.configuration import Classifier, Runtime, Training
from newcomer.classes.training_loop import GradientLearner
from newcomer.data.examples import Input
from newcomer.errors import LearnerError
from newcomer.nn.lora.fused_linear import FusedLinear
from newcomer.nn.prompts.prefixes import Attention, Prefix, prefixed
from newcomer.shapes import Float, Int, Tensor
from newcomer.training.fit import evaluating

KEYS_AND_VALUES = (
    ("k_proj", "v_proj"),
    ("key", "value"),
    ("k_lin", "v_lin"),
    ("k", "v"),
    ("key_proj", "value_proj"),
)
"""Names of the key and value projections in the known encoder families."""


class PromptLearner(GradientLearner):
    """Trains prompts and a linear head, no weight of the backbone; an input's frozen feature is the query that selects its prompts.

    The loss is the cross entropy over the new classes' logits plus the prompts' own loss. A subclass holds the module `prompts`,
    computes features with them (`_features_with_prompts`) and calls `_initialize` at the end of its constructor.
    """

    passes: ClassVar[int] = 2
    prompts: nn.Module

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        training: Training,
        classifier: Classifier,
        runtime: Runtime,
    ) -> None:
        super().__init__(backbone, loss_classes="new", training=training, classifier=classifier, runtime=runtime)
        self.attentions = list(attentions(self.backbone.model).values())
        """Attention layers that can take prompts, in order of depth."""
        if not self.attentions:
            raise LearnerError(
                f"{self._backbone_name()} has no attention with key and value projections that are known"
            )

    def trainable(self) -> dict[str, list[nn.Parameter]]:
        """The prompts, at `learning_rate`, and the linear head."""
        return {"factors": list(self.prompts.parameters()), "head": list(self.linear_head.parameters())}

    def _initialize(self) -> None:
        """Reset, after a trial pass has shown that prompts change the features.

        Raises LearnerError for a backbone whose attention takes no prompts.
        """
        self._reset()
        self._begin_task("trial")
        some: list[Input] = [new("RGB", (48, 48))] if self.backbone.reads_images else ["a"]
        encoded = self.backbone.encode(some)
        with evaluating(self.backbone):
            plain = self.backbone(encoded)
            try:
                prompted = self._encode(encoded)
                effective = prompted.shape == plain.shape and not torch.equal(prompted, plain)
            except (RuntimeError, ValueError, IndexError, TypeError):  # each family fails in its own way
                effective = False
        if not effective:
            kind = type(self.attentions[0].whole).__name__
            raise LearnerError(
                f"{self._backbone_name()} has attention that takes no prompts ({kind}); give another backbone"
            )
        self._reset()

    def _backbone_name(self) -> str:
        return f"backbone '{self.backbone.name}'"

    @abstractmethod
    def _features_with_prompts(
        self, encoded: Mapping[str, Tensor], query: Float[Tensor, "batch width"]
    ) -> tuple[Float[Tensor, "batch width"], Float[Tensor, " batch"]]:
        """Features with the prompts that the queries select, and each example's prompt loss."""

    def _features_with_prefixes(
        self, encoded: Mapping[str, Tensor], prefixes: Mapping[int, Prefix]
    ) -> Float[Tensor, "batch width"]:
        """Features with a prefix in each of these layers."""
        with prefixed((self.attentions[layer], prefix) for layer, prefix in prefixes.items()), self._autocast():
            features: Tensor = self.backbone(encoded)
        return features

    def _query_and_features(
        self, encoded: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, "batch width"], Float[Tensor, " batch"]]:
        """Features and prompt losses: a query pass without prompts or gradients, then a pass with prompts.

        Prompts are selected in full precision.
        """
        with torch.no_grad(), self._autocast():
            query = self.backbone(encoded).float()
        with torch.autocast(self.device.type, enabled=False):
            features, losses = self._features_with_prompts(encoded, query)
        return features.float(), losses

    def _autocast(self) -> torch.autocast:
        """Autocast context of a forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.training.precision == "bf16")

    def _encode(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        return self._query_and_features(encoded)[0]

    def _loss(
        self, encoded: Mapping[str, Tensor], target: Int[Tensor, " batch"], loss_classes: Int[Tensor, " class"]
    ) -> Float[Tensor, ""]:
        features, losses = self._query_and_features(encoded)
        return F.cross_entropy(self.linear_head(features)[:, loss_classes], target, reduction="sum") + losses.sum()

    def _stored_tensors(self) -> Iterable[Tensor]:
        """The prompts of all tasks, not only what the last one added."""
        return [*GradientLearner._tensors(self).values(), *self.prompts.parameters(), *self.prompts.buffers()]


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
