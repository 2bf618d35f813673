"""Sequential fine-tuning of one LoRA (Hu et al., ICLR 2022): what every method has to beat, and what forgets."""

from collections.abc import Mapping

import torch

from newcomer.backbones.backbone import Backbone
from newcomer.classes.class_memory import HeadName
from newcomer.classes.lora_learner import AdaptedLearner
from newcomer.classes.training_loop import LossOver, Precision, Schedule, Start, Training
from newcomer.nn.features.augmentation import Augmentation
from newcomer.seeds import spawn
from newcomer.settings import checked
from newcomer.shapes import Float, Tensor
from newcomer.store.folder import Entry
from newcomer.training.settings import Count, NotNegative, Rate, Share, Times


class SequentialLoRA(AdaptedLearner):
    """One low-rank update, trained on from task to task. On a stream of one stage it is joint training.

    - `adapted_tasks`: how many tasks move the weights, the first ones; 1 adapts to the first task and is frozen from there on
      ("first session adaptation"). The trained rows ('linear') learn on. None: all tasks.
    - `start`: see `SDLoRA`; here 'zero' by default.
    - `loss_over`: cross entropy over the logits of the 'new' classes, or of all classes 'seen' (old head rows then only learn
      to say no).
    - the other settings are `SDLoRA`'s.
    """

    name = "sequential-lora"

    @checked
    def __init__(
        self,
        backbone: Backbone | str,
        *,
        rank: Count = 10,
        adapted_tasks: Times | None = None,
        loss_over: LossOver = "new",
        head: HeadName = "linear",
        shrinkage: Share = 0.3,
        drift_map: bool = True,
        epochs: Count = 20,
        batch_size: Count = 128,
        accumulate: Count = 1,
        learning_rate: Rate = 0.008,
        head_learning_rate: Rate | None = None,
        later_rate: Rate = 1.0,
        average: Share = 0.0,
        start: Start = "zero",
        schedule: Schedule = "constant",
        augment: Augmentation = "none",
        precision: Precision = "fp32",
        compile: bool = False,
        cache_gib: NotNegative = 2.0,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        self.rank, self.adapted_tasks = rank, adapted_tasks
        super().__init__(
            backbone,
            magnitudes="shared",
            loss_over=loss_over,
            training=Training(
                epochs=epochs,
                batch_size=batch_size,
                accumulate=accumulate,
                learning_rate=learning_rate,
                head_learning_rate=head_learning_rate,
                schedule=schedule,
                augment=augment,
                precision=precision,
                seed=seed,
                start=start,
                later_rate=later_rate,
                average=average,
            ),
            head=head,
            shrinkage=shrinkage,
            drift_map=drift_map,
            compile=compile,
            cache_gib=cache_gib,
            device=device,
        )

    def trainable(self) -> dict[str, list[torch.nn.Parameter]]:
        """The factors, while they move, and the head: LoRA has no magnitude of its own."""
        asked = ("factors", "head") if self._moves() else ("head",)
        return {name: group for name, group in super().trainable().items() if name in asked}

    def _moves(self) -> bool:
        done = sum(entry.facts.get("adapted", False) for entry in self.entries)
        return self.adapted_tasks is None or done < self.adapted_tasks

    def _see(self, encoded: Mapping[str, Tensor]) -> Float[Tensor, "batch width"]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._moves()):
            return super()._see(encoded)

    def _open(self, stage: str) -> None:
        if self._moves() and not len(self.bank.open_up):
            self.bank.open(self.rank, spawn(self.training.seed, stage, "direction"))

    def _close(self) -> None:
        """Nothing is closed: the next task trains the same factors on."""
        self.learned["adapted"] = self._moves()

    def _tensors(self) -> dict[str, Tensor]:
        return {**super()._tensors(), **{f"bank.{key}": t for key, t in self.bank.state_dict().items()}}

    def _absorb(self, entry: Entry) -> None:
        super()._absorb(entry)
        state = {key.removeprefix("bank."): t for key, t in entry.tensors.items() if key.startswith("bank.")}
        if len(state) > 1 and not len(self.bank.open_up):
            self.bank.open(self.rank, spawn(self.training.seed, entry.name, "direction"))
        self.bank.load_state_dict(state)
