"""Sequential fine-tuning of one LoRA (Hu et al., ICLR 2022): what every method has to beat, and what forgets."""

import torch

from newcomer.backbones.backbone import Backbone
from newcomer.classes.adapted import AdaptedLearner
from newcomer.classes.memory import HeadName
from newcomer.classes.trained import LossOver, Precision, Schedule, Training
from newcomer.nn.augment import Augmentation
from newcomer.seeds import spawn
from newcomer.settings import checked
from newcomer.shapes import Tensor
from newcomer.store.folder import Entry
from newcomer.training.settings import Count, NotNegative, Rate, Share


class SequentialLoRA(AdaptedLearner):
    """One low-rank update, trained on from task to task. On a stream of one stage it is joint training.

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
        loss_over: LossOver = "new",
        head: HeadName = "linear",
        shrinkage: Share = 0.3,
        drift_map: bool = True,
        epochs: Count = 20,
        batch_size: Count = 128,
        accumulate: Count = 1,
        learning_rate: Rate = 0.008,
        head_learning_rate: Rate | None = None,
        schedule: Schedule = "constant",
        augment: Augmentation = "none",
        precision: Precision = "fp32",
        compile: bool = False,
        cache_gib: NotNegative = 2.0,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        self.rank = rank
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
            ),
            head=head,
            shrinkage=shrinkage,
            drift_map=drift_map,
            compile=compile,
            cache_gib=cache_gib,
            device=device,
        )

    def trainable(self) -> dict[str, list[torch.nn.Parameter]]:
        """The factors and the head: LoRA has no magnitude of its own."""
        return {name: group for name, group in super().trainable().items() if name != "magnitudes"}

    def _open(self, stage: str) -> None:
        if not len(self.bank.open_up):
            self.bank.open(self.rank, spawn(self.training.seed, stage, "direction"))

    def _close(self) -> None:
        """Nothing is closed: the next task trains the same factors on."""

    def _tensors(self) -> dict[str, Tensor]:
        return {**super()._tensors(), **{f"bank.{key}": t for key, t in self.bank.state_dict().items()}}

    def _absorb(self, entry: Entry) -> None:
        super()._absorb(entry)
        state = {key.removeprefix("bank."): t for key, t in entry.tensors.items() if key.startswith("bank.")}
        if len(state) > 1 and not len(self.bank.open_up):
            self.bank.open(self.rank, spawn(self.training.seed, entry.name, "direction"))
        self.bank.load_state_dict(state)
