"""Ridge regression on accumulated second moments (RanPAC, McDonnell et al. 2023, arXiv 2307.02251; no random projection)."""

from dataclasses import dataclass

import torch

from newcomer.nn.features.class_statistics import ClassStatistics, shrunk
from newcomer.nn.heads.head import Head, Linear


@dataclass(frozen=True)
class Ridge(Head):
    """Ridge regression of one-hot targets, W = T⁻¹ n_k (μ_k − x̄), with an unpenalized intercept.

    T is the total covariance, shrunk towards a multiple of the identity as in linear discriminant analysis.
    """

    shrinkage: float = 0.1

    def fold(self, statistics: ClassStatistics, trained: Linear) -> Linear:
        share = statistics.count / statistics.count.sum().clamp(min=1)
        matrix = shrunk(statistics.total, self.shrinkage)
        target = share[:, None] * (statistics.mean - statistics.centre)
        weight = torch.linalg.solve(matrix, target.T).T
        return weight, share - weight @ statistics.centre
