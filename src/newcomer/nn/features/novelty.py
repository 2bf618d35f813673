"""Novelty scores: relative Mahalanobis distance to the nearest known class."""

from dataclasses import dataclass

import torch

from newcomer.nn.features.class_statistics import ClassStatistics, shrunk
from newcomer.shapes import Float, Tensor

QUANTILES = 33
"""Number of stored quantiles of a class's novelty scores."""


@dataclass(frozen=True)
class Novelty:
    """Relative Mahalanobis distance to the nearest class (Ren et al. 2021, arXiv 2106.09022).

    min_k (x − μ_k)ᵀP⁻¹(x − μ_k) − (x − x̄)ᵀT⁻¹(x − x̄) with the pooled covariance P within classes and the total one T: the second
    term removes what is unusual for any input.
    """

    within: Float[Tensor, "width width"]
    """Whitening by the pooled covariance: P⁻¹ = within · withinᵀ."""
    overall: Float[Tensor, "width width"]
    means: Float[Tensor, "class width"]
    centre: Float[Tensor, " width"]

    @classmethod
    def of(cls, statistics: ClassStatistics, shrinkage: float) -> "Novelty":
        """From class statistics."""
        within = _whitening(shrunk(statistics.within, shrinkage))
        overall = _whitening(shrunk(statistics.total, shrinkage))
        return cls(within, overall, statistics.mean @ within, statistics.centre)

    def __call__(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
        near = torch.cdist(x @ self.within, self.means).square().min(1).values
        return near - ((x - self.centre) @ self.overall).square().sum(1)


def quantiles(novelty: Float[Tensor, " batch"]) -> Float[Tensor, " quantile"]:
    """`QUANTILES` quantiles of these scores."""
    return torch.quantile(novelty, torch.linspace(0, 1, QUANTILES, dtype=novelty.dtype))


def _whitening(covariance: Float[Tensor, "width width"]) -> Float[Tensor, "width width"]:
    values, directions = torch.linalg.eigh(covariance)
    whitening: Tensor = directions * values.clamp(min=1e-12).rsqrt()
    return whitening
