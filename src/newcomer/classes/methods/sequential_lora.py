"""Sequential fine-tuning of one LoRA (Hu et al., ICLR 2022): the baseline that forgets."""

from collections.abc import Mapping
from typing import Any

import torch

from newcomer.backbones.backbone import Backbone
from newcomer.classes.configuration import Classifier, CompiledRuntime, LoRATraining, LossClasses
from newcomer.classes.lora_learner import LoRALearner
from newcomer.seeds import spawn
from newcomer.shapes import Float, Tensor
from newcomer.store.folder import Entry
from newcomer.training.settings import Count, Times


class SequentialLoRA(LoRALearner):
    """One low-rank update, trained further on every task. On a stream of one stage it is joint training.

    - `rank`: of the update.
    - `adapted_tasks`: number of tasks that train the update, the first ones; 1 is first-session adaptation. The linear head trains
      on. None: all tasks.
    - `loss_classes`: cross entropy over the logits of the 'new' classes, or of all classes 'seen' (old rows of the head then only
      get negative examples).
    - `classifier`, `training`, `runtime`: see `classes.configuration`.
    """

    name = "sequential-lora"

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        rank: Count = 10,
        adapted_tasks: Times | None = None,
        loss_classes: LossClasses = "new",
        classifier: Classifier = Classifier(),
        training: LoRATraining = LoRATraining(),
        runtime: CompiledRuntime = CompiledRuntime(),
        **settings: Any,
    ) -> None:
        self.rank, self.adapted_tasks = rank, adapted_tasks
        super().__init__(
            backbone,
            rank=rank,
            loss_classes=loss_classes,
            training=training,
            classifier=classifier,
            runtime=runtime,
        )

    def trainable(self) -> dict[str, list[torch.nn.Parameter]]:
        """The factors, while the update trains, and the head; LoRA has no magnitudes."""
        groups = ("factors", "head") if self._adapts_now() else ("head",)
        return {name: group for name, group in super().trainable().items() if name in groups}

    def _adapts_now(self) -> bool:
        adapted = sum(entry.info.get("adapted", False) for entry in self.entries)
        return self.adapted_tasks is None or adapted < self.adapted_tasks

    def _encode(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._adapts_now()):
            return super()._encode(encoded)

    def _begin_task(self, stage: str) -> None:
        if self._adapts_now() and not len(self.lora.open_up):
            self.lora.open(self.rank, spawn(self.training.seed, stage, "direction"))

    def _end_task(self) -> None:
        """The update stays open: the next task trains it further."""
        self.stage_info["adapted"] = self._adapts_now()

    def _tensors(self) -> dict[str, Tensor]:
        return {**super()._tensors(), **{f"lora.{key}": t for key, t in self.lora.state_dict().items()}}

    def _apply_entry(self, entry: Entry) -> None:
        super()._apply_entry(entry)
        state = {key.removeprefix("lora."): t for key, t in entry.tensors.items() if key.startswith("lora.")}
        if len(state) > 1 and not len(self.lora.open_up):
            self.lora.open(self.rank, spawn(self.training.seed, entry.name, "direction"))
        self.lora.load_state_dict(state)
