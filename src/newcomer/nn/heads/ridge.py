"""Ridge regression on accumulated second moments (RanPAC, McDonnell et al. 2023, arXiv 2307.02251; no random projection)."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from newcomer.nn.features.class_statistics import ClassStatistics, shrunk
from newcomer.nn.heads.head import Head, Linear, Prior
from newcomer.shapes import Float, Tensor


@dataclass(frozen=True)
class Ridge(Head):
    """Ridge regression of one-hot targets, W = T⁻¹ n_k (μ_k − x̄), with an unpenalized intercept.

    T is the total covariance, shrunk towards a multiple of the identity as in linear discriminant analysis.
    Under the uniform prior all classes have the same weight in the regression, under the empirical one all examples.
    """

    estimates_prior: ClassVar[bool] = True

    shrinkage: float = 0.1
    prior: Prior = "empirical"

    def fold(
        self, statistics: ClassStatistics, trained: Linear, counts: Float[Tensor, " class"] | None = None
    ) -> Linear:
        if self.prior == "uniform":
            statistics = statistics.with_equal_counts()
        share = statistics.count / statistics.count.sum().clamp(min=1)
        matrix = shrunk(statistics.total, self.shrinkage)
        target = share[:, None] * (statistics.mean - statistics.centre)
        weight = torch.linalg.solve(matrix, target.T).T
        return weight, share - weight @ statistics.centre
