"""The frozen backbone with a head that needs no training: the floor that every adaptation has to clear."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field

from newcomer.classes.backbone import Backbone
from newcomer.classes.learner import EXAM_BATCH, ClassLearner
from newcomer.data.examples import Examples, Input
from newcomer.nn.class_statistics import ClassStatistics, linear_discriminant, nearest_mean
from newcomer.settings import checked
from newcomer.shapes import Float, Int, Tensor
from newcomer.store.folder import Entry
from newcomer.streams.stage import Stage
from newcomer.training.fit import chunks, evaluating
from newcomer.training.learner import Step


class FrozenBackbone(ClassLearner):
    """Class means of frozen features, by cosine or with one pooled covariance. One pass over the data, order does not matter.

    - `head`: 'nearest-mean' (cosine prototypes; SimpleCIL, Zhou et al. 2023) or 'lda' (linear discriminant analysis).
    - `shrinkage`: of the covariance towards a multiple of the identity, for 'lda'.
    - `device`: 'cpu', 'cuda', …; a GPU if there is one by default.
    """

    name = "frozen"

    @checked
    def __init__(
        self,
        backbone: Backbone | str,
        *,
        head: Literal["nearest-mean", "lda"] = "lda",
        shrinkage: Annotated[float, Field(ge=0, le=1)] = 0.3,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(backbone, device)
        self.head, self.shrinkage = head, shrinkage
        self._clear()

    def _clear(self) -> None:
        super()._clear()
        self.statistics: ClassStatistics | None = None

    def _teach(self, stage: str, inputs: Sequence[Input], klass: Int[Tensor, " example"], new: int) -> Iterator[Step]:
        parts = chunks(len(inputs), EXAM_BATCH)
        rows = []
        for step, part in enumerate(parts, 1):
            with evaluating(self.backbone):
                rows.append(self._features(inputs[part.start : part.stop]).cpu())
            yield Step(stage, step, len(parts))
        found = ClassStatistics.of(torch.cat(rows), klass.cpu() - klass.min().cpu(), new)
        self._take(self.statistics.joined(found) if self.statistics else found)

    def _take(self, statistics: ClassStatistics) -> None:
        self.statistics = statistics
        if self.head == "lda":
            weight, bias = linear_discriminant(statistics, self.shrinkage)
        else:
            weight, bias = nearest_mean(statistics)
        self.weight, self.bias = (t.float().to(self.device) for t in (weight, bias))

    def _logits(self, inputs: Sequence[Input]) -> Float[Tensor, "batch klass"]:
        return torch.nn.functional.linear(self._features(inputs), self.weight, self.bias)

    def _entry(self, stage: Stage[Examples, Examples]) -> Entry:
        assert self.statistics is not None  # _teach has just set it
        tensors = {key: t.clone() for key, t in vars(self.statistics).items()}
        return Entry(stage.name, tensors, {"classes": list(self.classes)})

    def _absorb(self, entry: Entry) -> None:
        self._take(ClassStatistics(**entry.tensors))
        self.classes = list(entry.facts["classes"])
