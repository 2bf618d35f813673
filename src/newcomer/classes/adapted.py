"""What learners share that adapt the backbone by low-rank updates and classify by a linear head, both trained by gradients."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch.nn import functional as F

from newcomer.classes.backbone import Backbone
from newcomer.classes.learner import ClassLearner
from newcomer.data.examples import Input
from newcomer.errors import LearnerError
from newcomer.nn.decoupled_lora import DecoupledLoRA, Sharing
from newcomer.nn.linear_head import LinearHead
from newcomer.shapes import Float, Int, Tensor
from newcomer.training.fit import batches, cosine, finite, fit
from newcomer.training.learner import Step

Schedule = Literal["constant", "cosine"]
LossOver = Literal["new", "seen"]


class AdaptedLearner(ClassLearner):
    """Low-rank updates on the query and value projections, and a linear head that grows with the classes.

    Trained by Adam on the cross entropy over the logits of the `new` classes alone, or of all classes `seen` so far. A subclass
    says what of the update is opened and closed at the ends of a stage.
    """

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        magnitudes: Sharing,
        loss_over: LossOver,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        head_learning_rate: float | None,
        schedule: Schedule,
        seed: int,
        device: str | None,
    ) -> None:
        super().__init__(backbone, device)
        if not self.backbone.projections:
            raise LearnerError(f"backbone '{self.backbone.name}' has no linear query and value projections to adapt")
        self.bank = DecoupledLoRA(self.backbone.model, self.backbone.projections, magnitudes)
        self.head = LinearHead(self.backbone.width).to(self.device)
        self.loss_over, self.epochs, self.batch_size, self.schedule = loss_over, epochs, batch_size, schedule
        self.learning_rate, self.head_learning_rate = learning_rate, head_learning_rate or learning_rate
        self.seed = seed

    def trainable(self) -> dict[str, list[torch.nn.Parameter]]:
        """The parameters that the stage under way trains, by group."""
        return {**self.bank.trainable(), "head": list(self.head.parameters())}

    def _teach(self, stage: str, inputs: Sequence[Input], klass: Int[Tensor, " example"], new: int) -> Iterator[Step]:
        self.head.grow(new)
        self._open(stage)
        groups = self.trainable()
        rates = {"factors": self.learning_rate}
        optimizer = torch.optim.Adam(
            [{"params": group, "lr": rates.get(name, self.head_learning_rate)} for name, group in groups.items()]
        )
        plan = batches(len(inputs), self.batch_size, self.epochs, self.seed, stage, "batches")
        factor = cosine(len(plan)) if self.schedule == "cosine" else lambda step: 1.0
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        first = self.head.classes - new if self.loss_over == "new" else 0

        def loss(batch: list[int]) -> Tensor:
            with self.bank.applied():
                logits = self.head(self._features([inputs[i] for i in batch]))
            return F.cross_entropy(logits[:, first:], klass[batch] - first)

        for step, seen in enumerate(fit(plan, loss, optimizer), 1):
            schedule.step()
            yield Step(stage, step, len(plan), seen)
        self._close()
        with torch.no_grad():
            finite(loss(plan[-1]))  # the last step is seen by no other

    def _logits(self, inputs: Sequence[Input]) -> Float[Tensor, "batch klass"]:
        with self.bank.applied():
            logits: Tensor = self.head(self._features(inputs))
        return logits

    def _clear(self) -> None:
        super()._clear()
        self.bank.clear()
        self.head = LinearHead(self.backbone.width).to(self.device)

    @abstractmethod
    def _open(self, stage: str) -> None:
        """Make ready what this stage trains of the update."""

    @abstractmethod
    def _close(self) -> None:
        """The stage's training is over."""
