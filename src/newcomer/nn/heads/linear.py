"""The linear head trained with the adapter, task by task: the paper's head."""

from newcomer.nn.features.class_statistics import ClassStatistics
from newcomer.nn.heads.head import Head, Linear


class TrainedLinearHead(Head):
    """logits = x Wᵀ + b with the trained W and b. The training loss never compares rows of different tasks."""

    def fold(self, statistics: ClassStatistics, trained: Linear) -> Linear:
        weight, bias = trained
        return weight.to(statistics.mean), bias.to(statistics.mean)
