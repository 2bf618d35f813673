"""Linear discriminant analysis: Gaussian classes that share one covariance."""

from dataclasses import dataclass

import torch

from newcomer.nn.features.class_statistics import ClassStatistics, shrunk
from newcomer.nn.heads.head import Head, Linear


@dataclass(frozen=True)
class Discriminant(Head):
    """W = P⁻¹μ, b = −½ μᵀP⁻¹μ with the pooled covariance, shrunk: P = (1 − shrinkage) Σ + shrinkage · tr(Σ)/d · I; equal priors.

    Taken around the middle of all means, which adds the same to every class's logit and keeps logits small.
    """

    shrinkage: float = 0.3

    def fold(self, statistics: ClassStatistics, trained: Linear) -> Linear:
        covariance = shrunk(statistics.within, self.shrinkage)
        middle = statistics.mean.mean(0)
        apart = statistics.mean - middle
        weight = torch.linalg.solve(covariance, apart.T).T
        return weight, -0.5 * (weight * apart).sum(1) - weight @ middle
