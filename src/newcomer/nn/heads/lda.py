"""Linear discriminant analysis: Gaussian classes with a shared covariance."""

from dataclasses import dataclass

import torch

from newcomer.nn.features.class_statistics import ClassStatistics, shrunk
from newcomer.nn.heads.head import Head, Linear


@dataclass(frozen=True)
class LDA(Head):
    """W = P⁻¹μ, b = −½ μᵀP⁻¹μ with the pooled covariance, shrunk: P = (1 − shrinkage) Σ + shrinkage · tr(Σ)/d · I; equal priors.

    Means are centred, which adds the same to every class's logit and keeps logits small.
    """

    shrinkage: float = 0.3

    def fold(self, statistics: ClassStatistics, trained: Linear) -> Linear:
        covariance = shrunk(statistics.within, self.shrinkage)
        middle = statistics.mean.mean(0)
        centred = statistics.mean - middle
        weight = torch.linalg.solve(covariance, centred.T).T
        return weight, -0.5 * (weight * centred).sum(1) - weight @ middle
