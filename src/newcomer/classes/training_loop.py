"""What learners share that are trained by gradients: the loop over a task's examples, and a linear head that grows."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from newcomer.backbones.backbone import Backbone
from newcomer.classes.class_memory import HeadName, make_head
from newcomer.classes.cost import numbers
from newcomer.classes.learner import ClassLearner
from newcomer.classes.loader import Feed
from newcomer.errors import LearnerError
from newcomer.nn.features.augmentation import Augmentation, augmented
from newcomer.nn.heads.head import Linear
from newcomer.nn.heads.linear_layer import LinearHead
from newcomer.seeds import spawn
from newcomer.shapes import Float, Int, Tensor
from newcomer.store.folder import Entry
from newcomer.training.averaging import Average
from newcomer.training.fit import batches, chunks, compiled, cosine, fit
from newcomer.training.learner import Step

Schedule = Literal["constant", "cosine"]
LossOver = Literal["new", "seen"]
Precision = Literal["fp32", "bf16"]
Start = Literal["zero", "lda"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a task is trained; see `SDLoRA` for what each setting means."""

    epochs: int
    batch_size: int
    accumulate: int
    learning_rate: float
    head_learning_rate: float | None
    schedule: Schedule
    augment: Augmentation
    precision: Precision
    seed: int
    start: Start = "zero"
    later_rate: float = 1.0
    average: float = 0.0


class TrainedLearner(ClassLearner):
    """Adapts the backbone by Adam, together with head rows that grow with the classes.

    The loss is the cross entropy over the logits of the lesson's classes alone (`new`), or of all classes `seen` so far. A subclass
    says what is trained (`trainable`), how the backbone computes with it (`_see`), and what happens at the ends of a stage.
    """

    adapts = True

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        loss_over: LossOver,
        training: Training,
        head: HeadName,
        shrinkage: float,
        drift_map: bool,
        compile: bool,
        cache_gib: float,
        device: str | None,
    ) -> None:
        super().__init__(backbone, head=head, shrinkage=shrinkage, drift_map=drift_map, device=device)
        self.loss_over, self.training, self.cache_gib, self.compile = loss_over, training, cache_gib, compile

    @abstractmethod
    def trainable(self) -> dict[str, list[torch.nn.Parameter]]:
        """The parameters that the stage under way trains, by group; 'factors' has a rate of its own, the rest the head's."""

    def encoder_weights(self) -> dict[str, Tensor]:
        raise LearnerError(f"{type(self).__name__} is more than an encoder's weights, so it cannot be exported")

    def _starts_from_features(self) -> bool:
        return self.training.start == "lda"

    def _start(self, features: Float[Tensor, "batch width"], klass: Int[Tensor, " batch"]) -> None:
        """With `start` 'lda' all rows begin where linear discriminant analysis of the classes so far puts them, calibrated."""
        if self._starts_from_features():
            seen, _ = self.memory.with_lesson(features, klass, "lda", self.shrinkage, self._trained())
            weight, bias = seen.fold(make_head("lda", self.shrinkage), self._trained())
            hot = seen.temperature("lda")
            self.rows.set(weight / hot, bias / hot)

    def _teach(self, stage: str, feed: Feed, klass: Int[Tensor, " example"]) -> Iterator[Step]:
        how = self.training
        slower = how.later_rate if self.classes else 1.0
        self._open(stage)
        groups = self.trainable()
        rates = {"factors": how.learning_rate * slower}
        other = (how.head_learning_rate or how.learning_rate) * slower
        trained = [p for group in groups.values() for p in group]
        mean = Average(trained, how.average)
        optimizer = torch.optim.Adam([{"params": p, "lr": rates.get(name, other)} for name, p in groups.items()])
        plan = batches(len(klass), how.batch_size, how.epochs, how.seed, stage, "batches")
        factor = cosine(len(plan)) if how.schedule == "cosine" else lambda step: 1.0
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        asked = torch.unique(klass) if self.loss_over == "new" else torch.arange(self.rows.classes)
        target, asked = torch.searchsorted(asked, klass).to(self.device), asked.to(self.device)
        update = numbers(p for name, group in groups.items() if name != "head" for p in group)
        self.trained_numbers = update + len(asked) * (self.backbone.width + 1)
        chance = spawn(how.seed, stage, "augmentation", self.processes.index)
        mine = [self._parts(feed, batch) for batch in plan]
        tensors = feed.batches([part for parts in mine for part in parts])

        def losses(step: int) -> Iterator[Tensor]:
            for part in mine[step]:
                encoded = augmented(self.backbone.ready(next(tensors)), how.augment, chance)
                yield self._loss(encoded, target[part], asked) / len(plan[step])

        with closing(tensors), self._compiled():
            for step, seen in enumerate(fit(range(len(plan)), losses, optimizer, self.processes), 1):
                schedule.step()
                mean.see(trained, step / len(plan))
                self._watch(step, len(plan))
                yield Step(stage, step, len(plan), seen)
        mean.give(trained)
        self._close()

    @contextmanager
    def _compiled(self) -> Iterator[None]:
        """Within, this learner's passes, and nobody else's, run through torch's compiler, if that was asked for."""
        plain = self._encoder
        self._encoder = compiled(plain) if self.compile else plain
        try:
            yield
        finally:
            self._encoder = plain

    def _loss(
        self, encoded: Mapping[str, Tensor], target: Int[Tensor, " batch"], asked: Int[Tensor, " klass"]
    ) -> Float[Tensor, ""]:
        """What a batch's examples lose, summed: `target` numbers their classes among those `asked` for."""
        logits = self.rows(self._see(encoded))[:, asked].float()
        return F.cross_entropy(logits, target, reduction="sum")

    def _parts(self, feed: Feed, batch: Sequence[int]) -> list[list[int]]:
        """This process's share of a batch, in as many parts as gradients are accumulated over, texts of like length together."""
        share, parts = self.processes.share(batch), self.training.accumulate
        order = self.backbone.alike(feed.inputs, share) if parts > 1 else list(share)
        return [order[part.start : part.stop] for part in chunks(len(order), max(1, math.ceil(len(order) / parts)))]

    def _grow(self, classes: int) -> None:
        self.rows.grow(classes)

    def _keep(self, classes: list[int]) -> None:
        super()._keep(classes)
        self.rows.set(self.rows.weight[classes].detach(), self.rows.bias[classes].detach())

    def _trained(self) -> Linear:
        return self.rows.weight.detach().cpu(), self.rows.bias.detach().cpu()

    def _clear(self) -> None:
        super()._clear()
        self.rows = LinearHead(self.backbone.width).to(self.device)

    def _tensors(self) -> dict[str, Tensor]:
        return {**super()._tensors(), "rows.weight": self.rows.weight, "rows.bias": self.rows.bias}

    def _absorb(self, entry: Entry) -> None:
        super()._absorb(entry)
        self.rows.set(entry.tensors["rows.weight"], entry.tensors["rows.bias"])

    def _watch(self, step: int, steps: int) -> None:
        """Look on after each step of a task."""

    @abstractmethod
    def _open(self, stage: str) -> None:
        """Make ready what this stage trains of the update."""

    @abstractmethod
    def _close(self) -> None:
        """The stage's training is over."""
