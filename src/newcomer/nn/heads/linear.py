"""The linear head trained with the adapter, task by task: the paper's head."""

from typing import ClassVar

from newcomer.nn.features.class_statistics import ClassStatistics
from newcomer.nn.heads.head import Head, Linear
from newcomer.shapes import Float, Tensor


class TrainedLinearHead(Head):
    """logits = x Wᵀ + b with the trained W and b. The training loss never compares rows of different tasks."""

    estimates_prior: ClassVar[bool] = True

    def fold(
        self, statistics: ClassStatistics, trained: Linear, counts: Float[Tensor, " class"] | None = None
    ) -> Linear:
        weight, bias = trained
        return weight.to(statistics.mean), bias.to(statistics.mean)
