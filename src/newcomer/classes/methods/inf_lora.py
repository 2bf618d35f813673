"""InfLoRA: interference-free low-rank adaptation (Liang & Li, CVPR 2024, arXiv 2404.00228)."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Any

import torch

from newcomer.backbones.backbone import Backbone
from newcomer.classes.configuration import Classifier, CompiledRuntime, Training
from newcomer.classes.learner import EVAL_BATCH
from newcomer.classes.loader import Loader
from newcomer.classes.lora_learner import DirectionLearner
from newcomer.errors import LearnerError
from newcomer.nn.lora.gradient_memory import GradientMemory
from newcomer.nn.lora.input_moments import InputMoments
from newcomer.seeds import spawn
from newcomer.settings import Json
from newcomer.shapes import Float, Int, Tensor
from newcomer.store.folder import Entry
from newcomer.training.fit import chunks, evaluating
from newcomer.training.learner import Step
from newcomer.training.settings import Count, Share

FORMS = ("remembered", "free")
"""Names in a store of the directions that a gradient memory holds: see `GradientMemory.dual`."""
ROW_NORM = 3**-0.5
"""Norm of a row of A: the expected one of LoRA's initialization, uniform in ±1/√width."""


class InfLoRA(DirectionLearner):
    """Each task adds one low-rank update that does not change the outputs for old tasks' inputs, as far as they are remembered.

    Before a task the rows of A are set to the principal directions of the task's inputs to each projection, outside of the subspace
    that `nn.lora.gradient_memory` keeps of old tasks' inputs; they are not trained. After the task its inputs are added to that
    memory. All updates merge into the weights as SD-LoRA's do, each with the magnitude that its own training gave it.

    The query and value projections are adapted; in the paper key and value.

    - `rank`: of each task's update (paper: 10).
    - `threshold`: share of the input energy remembered after the first task (paper: 0.95 on CIFAR-100, 0.98 on ImageNet-R); it
      rises linearly towards 1, reached after `total_tasks` tasks, and stays where the last of these had it.
    - `classifier`, `training`, `runtime`: see `classes.configuration`; `schedule="cosine"` as in the released code.
    """

    name = "inf-lora"

    old_inputs: list[GradientMemory]
    """Gradient memory of old tasks' inputs, one a projection."""
    _new_inputs: list[Float[Tensor, "width width"]]

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        rank: Count = 10,
        threshold: Share = 0.95,
        total_tasks: Count = 10,
        classifier: Classifier = Classifier(),
        training: Training = Training(learning_rate=5e-4, schedule="cosine"),
        runtime: CompiledRuntime = CompiledRuntime(),
        **settings: Any,
    ) -> None:
        self.rank, self.threshold, self.total_tasks = rank, threshold, total_tasks
        super().__init__(
            backbone,
            rank=rank,
            loss_classes="new",
            training=training,
            classifier=classifier,
            runtime=runtime,
        )

    def info(self) -> dict[str, Json]:
        """`remembered`: share of input directions in the gradient memory, one number a projection; `cost`."""
        return {**super().info(), "remembered": [old.remembered / len(old.directions) for old in self.old_inputs]}

    def trainable(self) -> dict[str, list[torch.nn.Parameter]]:
        """B and the linear head: A is set before the task, and magnitudes of closed tasks do not change."""
        return {"factors": list(self.lora.open_up), "head": list(self.linear_head.parameters())}

    def _train(self, stage: str, loader: Loader, target: Int[Tensor, " example"]) -> Iterator[Step]:
        self._new_inputs = yield from self._input_moments(f"{stage}, inputs before", loader)
        yield from super()._train(stage, loader, target)
        new = yield from self._input_moments(f"{stage}, inputs after", loader)
        task = min(self.lora.directions, self.total_tasks) - 1
        share = self.threshold + (1 - self.threshold) * task / self.total_tasks
        self.old_inputs = [old.extended(moment, share) for old, moment in zip(self.old_inputs, new, strict=True)]

    def _input_moments(self, part: str, loader: Loader) -> Generator[Step, None, list[Float[Tensor, "width width"]]]:
        """Second moments of a task's inputs to each projection, summed over processes."""
        moments = InputMoments(self.backbone.model, self.backbone.projections)
        plan = [self.processes.share(rows) for rows in chunks(len(loader.inputs), EVAL_BATCH * self.processes.count)]
        with closing(loader.batches([rows for rows in plan if rows])) as tensors:
            for step, rows in enumerate(plan, 1):
                if rows:
                    encoded = self.backbone.to_device(next(tensors))
                    with evaluating(self.backbone), moments.watched(encoded.get("attention_mask")):
                        self._encode(encoded)
                yield Step(part, step, len(plan))
        self.processes.add_up(moments.found)
        if not all(moment.isfinite().all() for moment in moments.found):
            raise LearnerError("the inputs of a layer are not finite; lower the learning rate")
        return [moment.cpu().double() for moment in moments.found]

    def _begin_task(self, stage: str) -> None:
        self.lora.open(self.rank, spawn(self.training.seed, stage, "direction"))
        for old, moment, down in zip(self.old_inputs, self._new_inputs, self.lora.open_down, strict=True):
            rows = old.free(moment, self.rank)
            down.data.zero_()
            down.data[: len(rows)] = ROW_NORM * rows.to(down)
            down.requires_grad_(False)

    def _reset(self) -> None:
        super()._reset()
        self.old_inputs = [GradientMemory.empty(down.shape[1]) for down in self.lora.down]
        self._new_inputs = []

    def _tensors(self) -> dict[str, Tensor]:
        kept = {f"inputs.{p}.{FORMS[old.dual]}": old.directions for p, old in enumerate(self.old_inputs)}
        return {**super()._tensors(), **kept}

    def _stored_tensors(self) -> Iterable[Tensor]:
        return [*super()._stored_tensors(), *(old.directions for old in self.old_inputs)]

    def _apply_entry(self, entry: Entry) -> None:
        super()._apply_entry(entry)
        found = entry.tensors
        for p in range(len(self.old_inputs)):
            (dual,) = (k for k, form in enumerate(FORMS) if f"inputs.{p}.{form}" in found)
            self.old_inputs[p] = GradientMemory(found[f"inputs.{p}.{FORMS[dual]}"], dual=bool(dual))
