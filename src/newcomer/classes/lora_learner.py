"""What learners share that adapt the backbone by low-rank updates."""

from collections.abc import Iterable, Mapping

import torch

from newcomer.backbones.backbone import Backbone
from newcomer.classes.class_memory import HeadName
from newcomer.classes.training_loop import LossOver, TrainedLearner, Training
from newcomer.errors import LearnerError
from newcomer.nn.lora.decoupled_lora import DecoupledLoRA, Sharing
from newcomer.shapes import Float, Tensor


class AdaptedLearner(TrainedLearner):
    """Low-rank updates on the query and value projections; a subclass opens and closes them at the ends of a stage."""

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        magnitudes: Sharing,
        loss_over: LossOver,
        training: Training,
        head: HeadName,
        shrinkage: float,
        drift_map: bool,
        compile: bool,
        cache_gib: float,
        device: str | None,
    ) -> None:
        super().__init__(
            backbone,
            loss_over=loss_over,
            training=training,
            head=head,
            shrinkage=shrinkage,
            drift_map=drift_map,
            compile=compile,
            cache_gib=cache_gib,
            device=device,
        )
        if not self.backbone.projections:
            raise LearnerError(
                f"backbone '{self.backbone.name}' has no linear query and value projections that are known; "
                "name the modules to adapt in its target_modules"
            )
        self.bank = DecoupledLoRA(self.backbone.model, self.backbone.projections, magnitudes)
        self._clear()

    def trainable(self) -> dict[str, list[torch.nn.Parameter]]:
        """The update's parameters that the stage under way trains, by group, and the head's."""
        return {**self.bank.trainable(), "head": list(self.rows.parameters())}

    @torch.no_grad()
    def encoder_weights(self) -> dict[str, Tensor]:
        """W0 + ΔW of every adapted projection."""
        return {f"{name}.frozen.weight": self.bank.weight(p) for p, name in enumerate(self.backbone.projections)}

    def _see(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        lower = self.training.precision == "bf16"
        with self.bank.applied(), torch.autocast(self.device.type, torch.bfloat16, enabled=lower):
            return super()._see(encoded).float()

    def _clear(self) -> None:
        super()._clear()
        self.bank.clear()

    def _stored(self) -> Iterable[Tensor]:
        """The update of all tasks, and not what the last one added to it."""
        return [*TrainedLearner._tensors(self).values(), *self.bank.parameters(), *self.bank.up, *self.bank.down]
