"""What learners share that prompt the backbone: two passes, the frozen one for a query and another with the prompts it is given."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import torch
from PIL.Image import new
from torch import nn
from torch.nn import functional as F

from newcomer.backbones.backbone import Backbone
from newcomer.classes.class_memory import HeadName
from newcomer.classes.training_loop import TrainedLearner, Training
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
"""What the projections of an attention are called in the families of encoders that the backbones' table has."""


class PromptedLearner(TrainedLearner):
    """Trains prompts and head rows, and no weight: an input's frozen feature is the query that finds its prompts.

    The loss is the cross entropy over the new classes' logits, and what the prompts themselves lose. A subclass holds them in
    `prompts` and says how the backbone sees with them (`_prompted`); when all is made it calls `_begin`.
    """

    passes: ClassVar[int] = 2
    prompts: nn.Module

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        training: Training,
        head: HeadName,
        shrinkage: float,
        drift_map: bool,
        cache_gib: float,
        device: str | None,
    ) -> None:
        super().__init__(
            backbone,
            loss_over="new",
            training=training,
            head=head,
            shrinkage=shrinkage,
            drift_map=drift_map,
            compile=False,
            cache_gib=cache_gib,
            device=device,
        )
        self.attentions = list(attentions(self.backbone.model).values())
        """The layers that prompts may enter, in order of depth."""
        if not self.attentions:
            raise LearnerError(f"{self._where()} has no attention with key and value projections that are known")

    def trainable(self) -> dict[str, list[nn.Parameter]]:
        """The prompts that the stage under way trains, at the rate of factors, and the head's rows."""
        return {"factors": list(self.prompts.parameters()), "head": list(self.rows.parameters())}

    def _begin(self) -> None:
        """Start without classes, when one input has shown that prompts reach what the backbone sees.

        Raises LearnerError where its attention cannot take them.
        """
        self._clear()
        self._open("trial")
        some: list[Input] = [new("RGB", (48, 48))] if self.backbone.pictures else ["a"]
        encoded = self.backbone.encode(some)
        with evaluating(self.backbone):
            plain = self.backbone(encoded)
            try:
                seen = self._see(encoded)
                taken = seen.shape == plain.shape and not torch.equal(seen, plain)
            except (RuntimeError, ValueError, IndexError, TypeError):  # every family has its own way to stumble
                taken = False
        if not taken:
            kind = type(self.attentions[0].whole).__name__
            raise LearnerError(f"{self._where()} has attention that takes no prompts ({kind}); give another backbone")
        self._clear()

    def _where(self) -> str:
        return f"backbone '{self.backbone.name}'"

    @abstractmethod
    def _prompted(
        self, encoded: Mapping[str, Tensor], query: Float[Tensor, "batch width"]
    ) -> tuple[Float[Tensor, "batch width"], Float[Tensor, " batch"]]:
        """The features of these inputs with the prompts of their queries, and what each example's prompts lose."""

    def _prefixed(self, encoded: Mapping[str, Tensor], prefixes: Mapping[int, Prefix]) -> Float[Tensor, "batch width"]:
        """The features with a prefix in each of these layers."""
        with prefixed((self.attentions[layer], prefix) for layer, prefix in prefixes.items()), self._precision():
            features: Tensor = self.backbone(encoded)
        return features

    def _both(self, encoded: Mapping[str, Tensor]) -> tuple[Float[Tensor, "batch width"], Float[Tensor, " batch"]]:
        """The two passes; the first has no prompts and no gradients. What comes between them is in full precision."""
        with torch.no_grad(), self._precision():
            query = self.backbone(encoded).float()
        with torch.autocast(self.device.type, enabled=False):
            features, lost = self._prompted(encoded, query)
        return features.float(), lost

    def _precision(self) -> torch.autocast:
        """What a pass of the backbone is computed in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.training.precision == "bf16")

    def _see(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        return self._both(encoded)[0]

    def _loss(
        self, encoded: Mapping[str, Tensor], target: Int[Tensor, " batch"], asked: Int[Tensor, " klass"]
    ) -> Float[Tensor, ""]:
        features, lost = self._both(encoded)
        return F.cross_entropy(self.rows(features)[:, asked], target, reduction="sum") + lost.sum()

    def _stored(self) -> Iterable[Tensor]:
        """The prompts of all tasks, and not what the last one added to them."""
        return [*TrainedLearner._tensors(self).values(), *self.prompts.parameters(), *self.prompts.buffers()]


def attentions(model: nn.Module) -> dict[str, Attention]:
    """The attentions of a transformer by their names in it, in order of depth; empty where none is known.

    A projection that holds query, key and value was taken apart when the backbone was loaded (`FusedLinear`).
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
    """The layer that the first of these modules is in: what stands in a list of layers."""
    path = names[0].split(".")
    depth = next((i for i, part in enumerate(path, 1) if part.isdigit()), len(path))
    return model.get_submodule(".".join(path[:depth]))
