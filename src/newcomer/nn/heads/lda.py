"""Linear discriminant analysis: Gaussian classes with a shared covariance."""

from dataclasses import dataclass

import torch

from newcomer.nn.features.class_statistics import ClassStatistics, shrunk
from newcomer.nn.heads.head import Head, Linear
from newcomer.shapes import Float, Tensor


@dataclass(frozen=True)
class LDA(Head):
    """W = P⁻¹μ, b = −½ μᵀP⁻¹μ with the pooled covariance, shrunk: P = (1 − shrinkage) Σ + shrinkage · tr(Σ)/d · I; equal priors.

    Means are centred, which adds the same to every class's logit and keeps logits small. A mean of n examples has an error, by
    which its class seems further away: half of tr(P⁻¹Σ)/n is given back, as far as classes differ in it (Moran, Murphy 1979).
    """

    shrinkage: float = 0.3

    def fold(
        self, statistics: ClassStatistics, trained: Linear, counts: Float[Tensor, " class"] | None = None
    ) -> Linear:
        covariance = shrunk(statistics.within, self.shrinkage)
        middle = statistics.mean.mean(0)
        centred = statistics.mean - middle
        weight = torch.linalg.solve(covariance, centred.T).T
        bias = -0.5 * (weight * centred).sum(1) - weight @ middle
        return weight, bias + self.allowance(statistics, counts)

    def allowance(
        self, statistics: ClassStatistics, counts: Float[Tensor, " class"] | None = None
    ) -> Float[Tensor, " class"]:
        """½ tr(P⁻¹Σ) (1/n − 1/n_max) of each class: what the error of its mean takes from its logit, on average."""
        counts = (statistics.count if counts is None else counts.to(statistics.count)).clamp(min=1)
        excess = 1 / counts - 1 / counts.max()
        if not excess.any():
            return excess
        within = statistics.within
        error: Tensor = torch.linalg.solve(shrunk(within, self.shrinkage), within).trace() * excess
        return error / 2
