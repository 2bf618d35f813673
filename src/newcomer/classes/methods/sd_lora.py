"""SD-LoRA: scalable decoupled low-rank adaptation (Wu et al., ICLR 2025, arXiv 2501.13198), with its variants RR and KD."""

import warnings
from collections.abc import Generator, Mapping
from contextlib import closing
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from newcomer.backbones.backbone import Backbone
from newcomer.classes.classifier import MemoryClassifier
from newcomer.classes.configuration import Classifier, CompiledRuntime, LoRATraining
from newcomer.classes.cross_validation import folds_of, held_out_losses
from newcomer.classes.heads import CANDIDATES
from newcomer.classes.learner import ClassLearner, open_backbone
from newcomer.classes.lora_adapters import Directions, low_rank_updates
from newcomer.classes.parts import Learned, Steps, Task
from newcomer.classes.training_loop import TrainingLoop
from newcomer.data.examples import Examples
from newcomer.errors import DataWarning, SettingError
from newcomer.nn.lora.decoupled_lora import Sharing
from newcomer.printable import stage_title
from newcomer.settings import Json
from newcomer.shapes import Tensor
from newcomer.streams.stage import Stage
from newcomer.training.learner import Step
from newcomer.training.settings import Count, Share

RankFrom = Annotated[list[Count], Field(min_length=2, max_length=2)]
"""[task, rank]: this rank from this task on; the first task is 1."""

Adapt = Literal["always", "auto"]

TRACE_POINTS = 24
"""Steps of a task's training at which magnitudes and residual are recorded."""


class SDLoRA(ClassLearner):
    """Each task adds one low-rank direction of unit norm, frozen afterwards, and trains the magnitudes of all directions.

    At inference the update merges into the weights: one forward pass of the plain backbone, logits of all classes, no task id. No
    example is stored. See `nn.lora.decoupled_lora` for the equations and the one departure from the paper.

    - `rank`: of each task's direction (paper: 10), or a schedule of [task, rank] pairs: [[1, 10], [4, 8], [8, 6]] is the paper's
      SD-LoRA-RR.
    - `kd_threshold`: SD-LoRA-KD. A new direction whose relative residual on the older ones is at most this is dropped; its fit
      goes into their magnitudes (`DecoupledLoRA.distill`). Off by default.
    - `magnitude_sharing`: 'shared', one magnitude a task for all projections (the paper), or one for each 'projection'.
    - `adapt`: 'always', or 'auto': the first task is trained on four fifths of its examples beforehand, and on all of them only if
      that lowered the loss of the others by more than a standard error; else the backbone stays frozen, in later tasks as well.
    - `classifier`, `training`, `runtime`: groups of settings, see `classes.configuration`; their fields may be given by name. The
      paper: `head="linear"`, `drift_map=False`, `epochs=20`, `batch_size=128`, `learning_rate=0.008`, `head_init="zero"`,
      `later_lr_factor=1`, `weight_averaging=0`.
    """

    name = "sd-lora"
    fixed_settings = ("magnitude_sharing",)
    adapter: Directions

    def __init__(
        self,
        backbone: Backbone | str,
        *,
        rank: Count | list[RankFrom] = 10,
        kd_threshold: Share | None = None,
        magnitude_sharing: Sharing = "shared",
        adapt: Adapt = "always",
        classifier: Classifier = Classifier(head="auto"),
        training: LoRATraining = LoRATraining(
            epochs=4, batch_size=32, learning_rate=0.002, head_init="lda", later_lr_factor=0.25, weight_averaging=0.6
        ),
        runtime: CompiledRuntime = CompiledRuntime(),
        **settings: Any,
    ) -> None:
        self.rank, self.kd_threshold = _rank_schedule(rank), kd_threshold
        self.adapt = adapt
        if adapt == "auto" and classifier.head == "linear":
            raise SettingError(
                "SDLoRA: adapt = 'auto' compares heads on class statistics, but head = 'linear'; leave one of them out"
            )
        backbone = open_backbone(backbone, runtime)
        largest = max(rank for _, rank in self.rank)
        self.lora = low_rank_updates(backbone, largest, type(self).__name__, magnitude_sharing)
        loop = TrainingLoop(backbone, training, runtime)
        head = MemoryClassifier(backbone.width, classifier, loop.linear_head)
        super().__init__(Directions(backbone, self.lora, training.precision), loop, head, runtime)

    def info(self) -> dict[str, Json]:
        """`magnitudes`: α after the last stage, one row a direction; `ranks` of the directions; number of `distilled` ones.

        With `adapt="auto"` also whether the backbone is `adapted`, once that is decided.
        """
        recorded = [entry.info for entry in self.entries]
        last = recorded[-1] if recorded else {}
        return {
            **super().info(),
            "magnitudes": self.lora.magnitudes.detach().cpu().tolist(),
            "ranks": self.lora.ranks,
            "distilled": sum(info.get("distilled", False) for info in recorded),
            **next(({"adapted": info["adapted"]} for info in recorded if "adapted" in info), {}),
            **{key: last[key] for key in ("residual", "drift explained") if key in last},
        }

    def _adapts_now(self) -> bool:
        return self.adapt == "always" or all(entry.info.get("adapted", True) for entry in self.entries)

    def _decide(self, stage: Stage[Examples, Examples]) -> Generator[Step, None, Mapping[str, Json]]:
        """Compare a frozen and a trained backbone on held-out examples of the first task that trains.

        The simpler one is taken unless the other's loss is lower by more than a standard error (Breiman et al. 1984). Both have the
        head that suits them best.
        """
        if self.adapt == "always" or self.lora.directions:
            return {}
        examples, how = Examples(stage.train.inputs, stage.train.labels), self.classifier.settings
        names = examples.classes
        target = torch.tensor([names.index(label) for label in examples.labels])
        if (torch.bincount(target) > 1).sum() < 2:  # too few classes to hold examples out of
            return {}
        trial = type(self)(self.backbone, **self.settings | {"adapt": "always"})
        held_out = folds_of(target) == 0
        frozen = held_out_losses(trial.features(examples.inputs), target, how.shrinkage, CANDIDATES, how.prior)
        kept = (~held_out).nonzero()[:, 0].tolist()
        yield from trial.fit_stage(Stage(f"{stage.name}, trial", examples.select(kept), {}))
        trained = held_out_losses(trial.features(examples.inputs), target, how.shrinkage, CANDIDATES, how.prior)
        gain = frozen - trained
        adapted = bool(gain.mean() > gain.std() / len(gain) ** 0.5)
        if not adapted:
            warnings.warn(
                f"{stage_title(stage.name)}: on held-out examples the frozen backbone (loss {frozen.mean():.2f}) is as good as a "
                f"trained one ({trained.mean():.2f}), so nothing is trained; adapt = 'always' trains it",
                DataWarning,
                stacklevel=4,
            )
        losses = {"held-out loss frozen": frozen.mean().item(), "held-out loss trained": trained.mean().item()}
        return {"adapted": adapted, **losses}

    def _train(self, task: Task, loop: TrainingLoop) -> Steps:
        number = 1 + sum("residual" in entry.info for entry in self.entries)
        rank = next(rank for first, rank in reversed(self.rank) if first <= number)
        self.lora.open(rank, task.spawn("direction"))
        trace: list[tuple[int, float, Tensor]] = []
        with closing(loop.fit(task, self.adapter, self.lora.trainable())) as steps:
            for step in steps:
                if step.step * TRACE_POINTS // step.steps > (step.step - 1) * TRACE_POINTS // step.steps:
                    trace.append((step.step, self.lora.residual()[0], self.lora.magnitudes.detach().cpu().clone()))
                yield step
        self.lora.close()
        residual, _ = self.lora.residual()
        distilled = self.kd_threshold is not None and self.lora.distill(self.kd_threshold)
        numbers, residuals, magnitudes = zip(*trace, strict=True)
        return Learned(
            {"residual": residual, "distilled": distilled},
            {
                **({} if distilled else self.adapter.last_direction()),
                "trace.step": torch.tensor(numbers),
                "trace.residual": torch.tensor(residuals),
                "trace.magnitudes": torch.stack(magnitudes),
                "trace.after": self.lora.magnitudes.detach().cpu(),
            },
        )


def _rank_schedule(rank: int | list[list[int]]) -> list[list[int]]:
    """[task, rank] pairs in order of tasks.

    Raises SettingError if the first task has no rank, or the tasks are not in order.
    """
    pairs = [[1, rank]] if isinstance(rank, int) else rank
    tasks = [task for task, _ in pairs]
    if tasks[:1] != [1] or tasks != sorted(set(tasks)):
        raise SettingError(
            f"SDLoRA: rank = {rank!r} cannot be: give [task, rank] pairs in order of tasks, the first from task 1 on"
        )
    return pairs
