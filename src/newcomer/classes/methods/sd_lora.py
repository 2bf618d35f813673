"""SD-LoRA: scalable decoupled low-rank adaptation (Wu et al., ICLR 2025, arXiv 2501.13198), with its variants RR and KD."""

from typing import Annotated

import torch
from pydantic import Field

from newcomer.backbones.backbone import Backbone
from newcomer.classes.class_memory import HeadName
from newcomer.classes.direction_learner import DirectionLearner
from newcomer.classes.training_loop import Precision, Schedule, Start, Training
from newcomer.data.examples import Examples
from newcomer.errors import SettingError
from newcomer.nn.features.augmentation import Augmentation
from newcomer.nn.lora.decoupled_lora import Sharing
from newcomer.seeds import spawn
from newcomer.settings import Json, checked
from newcomer.shapes import Tensor
from newcomer.store.folder import Entry
from newcomer.streams.stage import Stage
from newcomer.training.settings import Count, NotNegative, Rate, Share

RankFrom = Annotated[list[Count], Field(min_length=2, max_length=2)]
"""From this task on (the first is 1), this rank."""

WATCHED = 24
"""Moments of a task's training at which magnitudes and residual are written down."""


class SDLoRA(DirectionLearner):
    """Each task adds one low-rank direction of unit norm, frozen afterwards, and trains the magnitudes of all of them.

    At inference the update folds into the weights: one pass of the plain backbone, all classes' logits, no task identity; no
    example is stored. See `nn.lora.decoupled_lora` for the equations and for the one place where they depart from the paper.

    - `rank`: of each task's direction (paper: 10), or a schedule of [task, rank] pairs: [[1, 10], [4, 8], [8, 6]] is the paper's
      SD-LoRA-RR.
    - `distill`: SD-LoRA-KD. A new direction whose relative residual on the older ones is at most this is not kept; its fit goes
      into their magnitudes (`DecoupledLoRA.distill`). Off by default.
    - `magnitudes`: 'shared', one number a task for all adapted projections (the paper), or one for each 'projection'.
    - `head`: what reads the features, see `nn.heads`: 'gaussian', 'kernel' (for texts; not one linear layer), 'lda', 'ridge',
      'prototypes', or the trained rows ('linear', the paper's).
    - `shrinkage`: of covariances towards a multiple of the identity, for heads and novelty.
    - `drift_map`: carry the statistics of old classes over to the weights after each task (`nn.features.drift_map`).
    - `epochs`, `batch_size`: passes over a task's examples (paper: 20, 128).
    - `accumulate`: parts of a batch whose gradients are taken one after the other; more parts, less memory, the same step. Texts
      of like length share a part: more parts, less padding, which on CPUs is time saved.
    - `learning_rate`: Adam's, for the factors of the new direction (paper: 0.008, for its own head).
    - `head_learning_rate`: for the trained rows and the magnitudes; the same by default.
    - `start`: of the head's rows in a task: all where 'lda' of the features as they are puts them, so that little has to move, or
      new ones at 'zero' (with the paper's head).
    - `later_rate`: what both rates are multiplied by after the first task (paper: 1).
    - `average`: a task's parameters end as their mean over this share of its steps, the last ones (paper: none).
    - `schedule`: of both rates within a task.
    - `augment`: of training pictures, 'flip' or 'crop' (and flip).
    - `precision`: 'fp32', or 'bf16' for mixed precision in training and inference.
    - `compile`: let torch compile the backbone for each task's training; a minute or two that only long training pays back.
    - `cache_gib`: memory for decoded training pictures.
    - `seed`: of the start of directions and the order of examples.
    - `device`: 'cpu', 'cuda', …; a GPU if there is one by default.
    """

    name = "sd-lora"
    fixed = ("magnitudes",)

    @checked
    def __init__(
        self,
        backbone: Backbone | str,
        *,
        rank: Count | list[RankFrom] = 10,
        distill: Share | None = None,
        magnitudes: Sharing = "shared",
        head: HeadName = "gaussian",
        shrinkage: Share = 0.3,
        drift_map: bool = True,
        epochs: Count = 4,
        batch_size: Count = 32,
        accumulate: Count = 1,
        learning_rate: Rate = 0.002,
        head_learning_rate: Rate | None = None,
        later_rate: Rate = 0.25,
        average: Share = 0.6,
        start: Start = "lda",
        schedule: Schedule = "constant",
        augment: Augmentation = "none",
        precision: Precision = "fp32",
        compile: bool = False,
        cache_gib: NotNegative = 2.0,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        self.rank, self.distill = _schedule(rank), distill
        super().__init__(
            backbone,
            magnitudes=magnitudes,
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

    def facts(self) -> dict[str, Json]:
        """`magnitudes`: α after the last stage, one row a direction; `ranks` of the directions; how many were `distilled`."""
        learned = [entry.facts for entry in self.entries]
        return {
            **super().facts(),
            "magnitudes": self.bank.magnitudes.detach().cpu().tolist(),
            "ranks": self.bank.ranks,
            "distilled": sum(facts.get("distilled", False) for facts in learned),
            **{key: learned[-1][key] for key in ("residual", "drift explained") if learned and key in learned[-1]},
        }

    def _open(self, stage: str) -> None:
        task = 1 + sum("residual" in entry.facts for entry in self.entries)
        self.bank.open(
            next(rank for start, rank in reversed(self.rank) if start <= task),
            spawn(self.training.seed, stage, "direction"),
        )
        self._moments: list[tuple[int, float, Tensor]] = []

    def _watch(self, step: int, steps: int) -> None:
        if step * WATCHED // steps > (step - 1) * WATCHED // steps:
            with torch.no_grad():
                residual, _ = self.bank.residual()
            self._moments.append((step, residual, self.bank.magnitudes.detach().cpu().clone()))

    def _close(self) -> None:
        super()._close()
        residual, _ = self.bank.residual()
        self.learned["residual"], self.learned["distilled"] = residual, False
        if self.distill is not None:
            self.learned["distilled"] = self.bank.distill(self.distill)

    def _clear(self) -> None:
        super()._clear()
        self._moments = []

    def _tensors(self) -> dict[str, Tensor]:
        tensors = super()._tensors()
        if self._moments:
            steps, residuals, magnitudes = zip(*self._moments, strict=True)
            tensors |= {
                "trace.step": torch.tensor(steps),
                "trace.residual": torch.tensor(residuals),
                "trace.magnitudes": torch.stack(magnitudes),
            }
        return tensors

    def _entry(self, stage: Stage[Examples, Examples]) -> Entry:
        entry = super()._entry(stage)
        self._moments = []  # they are this stage's alone
        return entry


def _schedule(rank: int | list[list[int]]) -> list[list[int]]:
    """[task, rank] pairs in order of tasks.

    Raises SettingError where the first task has no rank, or the tasks are not in order.
    """
    pairs = [[1, rank]] if isinstance(rank, int) else rank
    starts = [start for start, _ in pairs]
    if starts[:1] != [1] or starts != sorted(set(starts)):
        raise SettingError(
            f"SDLoRA: rank = {rank!r} cannot be: give [task, rank] pairs in order of tasks, the first from task 1 on"
        )
    return pairs
