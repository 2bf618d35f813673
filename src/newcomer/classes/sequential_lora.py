"""Sequential fine-tuning of one LoRA (Hu et al., ICLR 2022): what every method has to beat, and what forgets."""

import torch

from newcomer.classes.adapted import AdaptedLearner, LossOver, Schedule
from newcomer.classes.backbone import Backbone
from newcomer.data.examples import Examples
from newcomer.seeds import spawn
from newcomer.settings import checked
from newcomer.store.folder import Entry
from newcomer.streams.stage import Stage
from newcomer.training.settings import Count, Rate


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
        epochs: Count = 20,
        batch_size: Count = 128,
        learning_rate: Rate = 0.008,
        head_learning_rate: Rate | None = None,
        schedule: Schedule = "constant",
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(
            backbone,
            magnitudes="shared",
            loss_over=loss_over,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            head_learning_rate=head_learning_rate,
            schedule=schedule,
            seed=seed,
            device=device,
        )
        self.rank = rank

    def trainable(self) -> dict[str, list[torch.nn.Parameter]]:
        """The factors and the head: LoRA has no magnitude of its own."""
        return {name: group for name, group in super().trainable().items() if name != "magnitudes"}

    def _open(self, stage: str) -> None:
        if not len(self.bank.open_up):
            self.bank.open(self.rank, spawn(self.seed, stage, "direction"))

    def _close(self) -> None:
        """Nothing is closed: the next task trains the same factors on."""

    def _entry(self, stage: Stage[Examples, Examples]) -> Entry:
        state = {f"{part}.{key}": t for part in ("bank", "head") for key, t in getattr(self, part).state_dict().items()}
        return Entry(stage.name, {key: t.detach().clone() for key, t in state.items()}, {"classes": list(self.classes)})

    def _absorb(self, entry: Entry) -> None:
        if not len(self.bank.open_up):
            self.bank.open(self.rank, spawn(self.seed, entry.name, "direction"))
        self.bank.load_state_dict(
            {k.removeprefix("bank."): t for k, t in entry.tensors.items() if k.startswith("bank.")}
        )
        self.head.set(entry.tensors["head.weight"], entry.tensors["head.bias"])
        self.classes = list(entry.facts["classes"])
