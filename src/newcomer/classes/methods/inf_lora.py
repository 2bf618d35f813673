"""InfLoRA: interference-free low-rank adaptation (Liang & Li, CVPR 2024, arXiv 2404.00228)."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

import torch

from newcomer.backbones.backbone import Backbone
from newcomer.classes.class_memory import HeadName
from newcomer.classes.direction_learner import DirectionLearner
from newcomer.classes.learner import EXAM_BATCH
from newcomer.classes.loader import Feed
from newcomer.classes.training_loop import Precision, Schedule, Training
from newcomer.errors import LearnerError
from newcomer.nn.features.augmentation import Augmentation
from newcomer.nn.lora.gradient_memory import GradientMemory
from newcomer.nn.lora.input_moments import InputMoments
from newcomer.seeds import spawn
from newcomer.settings import Json, checked
from newcomer.shapes import Float, Int, Tensor
from newcomer.store.folder import Entry
from newcomer.training.fit import chunks, evaluating
from newcomer.training.learner import Step
from newcomer.training.settings import Count, NotNegative, Rate, Share

FORMS = ("remembered", "free")
"""What a store calls the directions that a memory holds: see `GradientMemory.dual`."""
ROW = 3**-0.5
"""The length of a row of A: what LoRA's own start, uniform in ±1/√width, has on average."""


class InfLoRA(DirectionLearner):
    """Each task adds one low-rank update that does nothing to the inputs of old tasks, as far as they are remembered.

    Before a task the rows of A are chosen among the main directions of the task's own inputs to each projection, outside of what
    `nn.lora.gradient_memory` remembers of old tasks' inputs; they are not trained. After it the memory takes up this task's inputs. All
    updates fold into the weights as SD-LoRA's do, each with the magnitude that training gave it, which no later task changes.

    Adapted are the library's query and value projections; the paper adapts key and value.

    - `rank`: of each task's update (paper: 10).
    - `threshold`: the share of a task's inputs that is remembered after the first task (paper: 0.95 on CIFAR-100, 0.98 on
      ImageNet-R); it rises evenly towards 1, which it would reach after `tasks` tasks, and stays where the last of these had it.
    - `schedule`: 'cosine' within a task, as in the released code.
    - the other settings are `SDLoRA`'s.
    """

    name = "inf-lora"

    old_inputs: list[GradientMemory]
    """What is remembered of old tasks' inputs, one memory a projection."""
    _new_inputs: list[Float[Tensor, "width width"]]

    @checked
    def __init__(
        self,
        backbone: Backbone | str,
        *,
        rank: Count = 10,
        threshold: Share = 0.95,
        tasks: Count = 10,
        head: HeadName = "linear",
        shrinkage: Share = 0.3,
        drift_map: bool = True,
        epochs: Count = 20,
        batch_size: Count = 128,
        accumulate: Count = 1,
        learning_rate: Rate = 5e-4,
        head_learning_rate: Rate | None = None,
        schedule: Schedule = "cosine",
        augment: Augmentation = "none",
        precision: Precision = "fp32",
        compile: bool = False,
        cache_gib: NotNegative = 2.0,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        self.rank, self.threshold, self.tasks = rank, threshold, tasks
        super().__init__(
            backbone,
            magnitudes="shared",
            loss_over="new",
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

    def facts(self) -> dict[str, Json]:
        """`remembered`: the share of all directions that is, one number a projection; `cost`."""
        return {**super().facts(), "remembered": [old.remembered / len(old.directions) for old in self.old_inputs]}

    def trainable(self) -> dict[str, list[torch.nn.Parameter]]:
        """B, and the head: A was chosen, and a closed task's magnitude stays."""
        return {"factors": list(self.bank.open_up), "head": list(self.rows.parameters())}

    def _teach(self, stage: str, feed: Feed, klass: Int[Tensor, " example"]) -> Iterator[Step]:
        self._new_inputs = yield from self._inputs(f"{stage}, inputs before", feed)
        yield from super()._teach(stage, feed, klass)
        new = yield from self._inputs(f"{stage}, inputs after", feed)
        task = min(self.bank.directions, self.tasks) - 1
        share = self.threshold + (1 - self.threshold) * task / self.tasks
        self.old_inputs = [old.extended(moment, share) for old, moment in zip(self.old_inputs, new, strict=True)]

    def _inputs(self, part: str, feed: Feed) -> Generator[Step, None, list[Float[Tensor, "width width"]]]:
        """The second moments of a lesson's inputs to each projection, each process seeing its share."""
        moments = InputMoments(self.backbone.model, self.backbone.projections)
        plan = [self.processes.share(rows) for rows in chunks(len(feed.inputs), EXAM_BATCH * self.processes.count)]
        with closing(feed.batches([rows for rows in plan if rows])) as tensors:
            for step, rows in enumerate(plan, 1):
                if rows:
                    encoded = self.backbone.ready(next(tensors))
                    with evaluating(self.backbone), moments.watched(encoded.get("attention_mask")):
                        self._see(encoded)
                yield Step(part, step, len(plan))
        self.processes.add_up(moments.found)
        if not all(moment.isfinite().all() for moment in moments.found):
            raise LearnerError("the inputs of a layer are no longer numbers; lower the learning rate")
        return [moment.cpu().double() for moment in moments.found]

    def _open(self, stage: str) -> None:
        self.bank.open(self.rank, spawn(self.training.seed, stage, "direction"))
        for old, moment, down in zip(self.old_inputs, self._new_inputs, self.bank.open_down, strict=True):
            rows = old.free(moment, self.rank)
            down.data.zero_()
            down.data[: len(rows)] = ROW * rows.to(down)
            down.requires_grad_(False)

    def _clear(self) -> None:
        super()._clear()
        self.old_inputs = [GradientMemory.empty(down.shape[1]) for down in self.bank.down]
        self._new_inputs = []

    def _tensors(self) -> dict[str, Tensor]:
        kept = {f"inputs.{p}.{FORMS[old.dual]}": old.directions for p, old in enumerate(self.old_inputs)}
        return {**super()._tensors(), **kept}

    def _stored(self) -> Iterable[Tensor]:
        return [*super()._stored(), *(old.directions for old in self.old_inputs)]

    def _absorb(self, entry: Entry) -> None:
        super()._absorb(entry)
        found = entry.tensors
        for p in range(len(self.old_inputs)):
            (dual,) = (k for k, form in enumerate(FORMS) if f"inputs.{p}.{form}" in found)
            self.old_inputs[p] = GradientMemory(found[f"inputs.{p}.{FORMS[dual]}"], dual=bool(dual))
