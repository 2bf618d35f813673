"""The rows that were trained together with the adaptation, task by task: the paper's head."""

from newcomer.nn.features.class_statistics import ClassStatistics
from newcomer.nn.heads.head import Head, Linear


class TrainedRows(Head):
    """logits = x Wᵀ + b with the trained W and b. Rows of different tasks are never compared while they are trained."""

    def fold(self, statistics: ClassStatistics, trained: Linear) -> Linear:
        weight, bias = trained
        return weight.to(statistics.mean), bias.to(statistics.mean)
