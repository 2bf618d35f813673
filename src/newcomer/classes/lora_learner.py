"""Base classes of learners with low-rank updates (LoRA) of the query and value projections."""

from collections.abc import Iterable, Mapping

import torch

from newcomer.backbones.backbone import Backbone
from newcomer.classes.configuration import Classifier, CompiledRuntime, LossClasses, Training
from newcomer.classes.training_loop import GradientLearner
from newcomer.errors import LearnerError, SettingError
from newcomer.nn.lora.decoupled_lora import DecoupledLoRA, Sharing
from newcomer.shapes import Float, Tensor
from newcomer.store.folder import Entry


class LoRALearner(GradientLearner):
    """A backbone with low-rank updates; a subclass starts and ends them with each task."""

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        rank: int,
        magnitude_sharing: Sharing = "shared",
        loss_classes: LossClasses,
        training: Training,
        classifier: Classifier,
        runtime: CompiledRuntime,
    ) -> None:
        super().__init__(backbone, loss_classes=loss_classes, training=training, classifier=classifier, runtime=runtime)
        if not self.backbone.projections:
            raise LearnerError(
                f"backbone '{self.backbone.name}' has no linear query and value projections that are known; "
                "name the modules to adapt in its target_modules"
            )
        self.lora = DecoupledLoRA(self.backbone.model, self.backbone.projections, magnitude_sharing)
        if rank > (largest := self.lora.largest_rank):
            raise SettingError(
                f"{type(self).__name__}: rank = {rank}, but the projections of '{self.backbone.name}' have rank {largest}; "
                f"give at most {largest}"
            )
        self._reset()

    def trainable(self) -> dict[str, list[torch.nn.Parameter]]:
        """Parameters of the update that this stage trains, by group, and those of the linear head."""
        return {**self.lora.trainable(), "head": list(self.linear_head.parameters())}

    @torch.no_grad()
    def encoder_weights(self) -> dict[str, Tensor]:
        """W0 + ΔW of every adapted projection, by the weight's name in `backbone.model`."""
        return {f"{name}.frozen.weight": self.lora.weight(p) for p, name in enumerate(self.backbone.projections)}

    def _encode(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        mixed = self.training.precision == "bf16"
        with self.lora.applied(), torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            return super()._encode(encoded).float()

    def _reset(self) -> None:
        super()._reset()
        self.lora.clear()

    def _stored_tensors(self) -> Iterable[Tensor]:
        """The update of all tasks, not only what the last one added."""
        return [*GradientLearner._tensors(self).values(), *self.lora.parameters(), *self.lora.up, *self.lora.down]


class DirectionLearner(LoRALearner):
    """One low-rank direction a task, frozen at its end.

    An entry holds the direction of its task, if any, and the magnitudes of all directions after it.
    """

    def _end_task(self) -> None:
        self.lora.close()

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {**super()._tensors(), "magnitudes": self.lora.magnitudes}
        if self._stored_directions() < self.lora.directions:
            for p, (up, down) in enumerate(self.lora.direction(self.lora.directions - 1)):
                tensors |= {f"direction.{p}.up": up, f"direction.{p}.down": down}
        return tensors

    def _stored_directions(self) -> int:
        """Number of directions that the entries hold."""
        return sum("direction.0.up" in entry.tensors for entry in self.entries)

    def _apply_entry(self, entry: Entry) -> None:
        super()._apply_entry(entry)
        tensors = entry.tensors
        count = sum(key.startswith("direction.") and key.endswith(".up") for key in tensors)
        direction = [(tensors[f"direction.{p}.up"], tensors[f"direction.{p}.down"]) for p in range(count)]
        self.lora.restore(direction, tensors["magnitudes"])
