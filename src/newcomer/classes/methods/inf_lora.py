"""InfLoRA: interference-free low-rank adaptation (Liang & Li, CVPR 2024, arXiv 2404.00228)."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, final

from newcomer.backbones.backbone import Backbone
from newcomer.classes.classifier import MemoryClassifier
from newcomer.classes.configuration import Classifier, CompiledRuntime, Training
from newcomer.classes.learner import ClassLearner, open_backbone
from newcomer.classes.lora_adapters import Directions, low_rank_updates
from newcomer.classes.parts import Learned, Part, Steps, Task
from newcomer.classes.training_loop import TrainingLoop
from newcomer.errors import LearnerError
from newcomer.nn.lora.decoupled_lora import DecoupledLoRA
from newcomer.nn.lora.gradient_memory import GradientMemory
from newcomer.nn.lora.input_moments import InputMoments
from newcomer.settings import Json
from newcomer.shapes import Float, Tensor
from newcomer.training.learner import Step
from newcomer.training.settings import Count, Share

FORMS = ("remembered", "free")
"""Names in a store of the directions that a gradient memory holds: see `GradientMemory.dual`."""
ROW_NORM = 3**-0.5
"""Norm of a row of A: the expected one of LoRA's initialization, uniform in ±1/√width."""


class InfLoRA(ClassLearner):
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
    adapter: Directions

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
        backbone = open_backbone(backbone, runtime)
        self.lora = low_rank_updates(backbone, rank, type(self).__name__)
        self.old_inputs = OldInputs(self.lora)
        loop = TrainingLoop(backbone, training, runtime)
        head = MemoryClassifier(backbone.width, classifier, loop.linear_head)
        super().__init__(Directions(backbone, self.lora, training.precision), loop, head, runtime, self.old_inputs)

    def info(self) -> dict[str, Json]:
        """`remembered`: share of input directions in the gradient memory, one number a projection; `cost`."""
        return {
            **super().info(),
            "remembered": [old.remembered / len(old.directions) for old in self.old_inputs.memories],
        }

    def _train(self, task: Task, loop: TrainingLoop) -> Steps:
        new = yield from self._input_moments("inputs before", task)
        self.lora.open(self.rank, task.spawn("direction"))
        for old, moment, down in zip(self.old_inputs.memories, new, self.lora.open_down, strict=True):
            rows = old.free(moment, self.rank)
            down.data.zero_()
            down.data[: len(rows)] = ROW_NORM * rows.to(down)
            down.requires_grad_(False)
        # B alone: A is set, and magnitudes of closed tasks do not change
        yield from loop.fit(task, self.adapter, {"factors": list(self.lora.open_up)})
        self.lora.close()
        new = yield from self._input_moments("inputs after", task)
        number = min(self.lora.directions, self.total_tasks) - 1
        self.old_inputs.extend(new, self.threshold + (1 - self.threshold) * number / self.total_tasks)
        return Learned(tensors=self.adapter.last_direction())

    def _input_moments(self, part: str, task: Task) -> Generator[Step, None, list[Float[Tensor, "width width"]]]:
        """Second moments of a task's inputs to each projection, summed over processes."""
        moments = InputMoments(self.backbone.model, self.backbone.projections)

        def watch(rows: Sequence[int], encoded: Mapping[str, Tensor]) -> None:
            with moments.watched(encoded.get("attention_mask")):
                self.adapter.encode(encoded)

        yield from self._pass(f"{task.name}, {part}", task.loader, range(len(task.target)), watch)
        self.processes.add_up(moments.found)
        if not all(moment.isfinite().all() for moment in moments.found):
            raise LearnerError("the inputs of a layer are not finite; lower the learning rate")
        return [moment.cpu().double() for moment in moments.found]


@final
class OldInputs(Part):
    """Gradient memory of old tasks' inputs, one a projection."""

    memories: list[GradientMemory]

    def __init__(self, lora: DecoupledLoRA) -> None:
        self.widths = [down.shape[1] for down in lora.down]

    def extend(self, moments: list[Float[Tensor, "width width"]], share: float) -> None:
        """Add this share of a task's input energy to the memory."""
        self.memories = [old.extended(moment, share) for old, moment in zip(self.memories, moments, strict=True)]

    def reset(self) -> None:
        self.memories = [GradientMemory.empty(width) for width in self.widths]

    def state(self) -> dict[str, Tensor]:
        return {f"inputs.{p}.{FORMS[old.dual]}": old.directions for p, old in enumerate(self.memories)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        for p in range(len(self.memories)):
            (dual,) = (k for k, form in enumerate(FORMS) if f"inputs.{p}.{form}" in state)
            self.memories[p] = GradientMemory(state[f"inputs.{p}.{FORMS[dual]}"], dual=bool(dual))
