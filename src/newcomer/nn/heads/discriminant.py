"""Linear discriminant analysis: Gaussian classes that share one covariance."""

from dataclasses import dataclass

import torch

from newcomer.nn.class_statistics import ClassStatistics, shrunk
from newcomer.nn.heads.head import Linear


@dataclass(frozen=True)
class Discriminant:
    """W = P⁻¹μ, b = −½ μᵀP⁻¹μ with the pooled covariance, shrunk: P = (1 − shrinkage) Σ + shrinkage · tr(Σ)/d · I; equal priors."""

    shrinkage: float = 0.3

    def fold(self, statistics: ClassStatistics, trained: Linear) -> Linear:
        freedom = float(statistics.count.sum()) - len(statistics.count)
        precise = shrunk(statistics.scatter, freedom, self.shrinkage)
        weight = torch.linalg.solve(precise, statistics.mean.T).T
        return weight, -0.5 * (weight * statistics.mean).sum(1)
