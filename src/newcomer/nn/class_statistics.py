"""Heads without training: what the features of each class are like on average, folded into one linear layer."""

from dataclasses import dataclass

import torch

from newcomer.shapes import Float, Int, Tensor


@dataclass(frozen=True)
class ClassStatistics:
    """Number and mean of each class's features, and the scatter Σ (x − μ_class)(x − μ_class)ᵀ pooled over all classes."""

    count: Float[Tensor, " klass"]
    mean: Float[Tensor, "klass width"]
    scatter: Float[Tensor, "width width"]

    @classmethod
    def of(
        cls, features: Float[Tensor, "batch width"], klass: Int[Tensor, " batch"], classes: int
    ) -> "ClassStatistics":
        """The statistics of these features, in float64; `klass` counts from 0, and every class occurs."""
        x = features.double()
        count = torch.bincount(klass, minlength=classes).double()
        mean = x.new_zeros(classes, x.shape[1]).index_add(0, klass, x) / count[:, None]
        centred = x - mean[klass]
        return cls(count, mean, centred.T @ centred)

    def joined(self, other: "ClassStatistics") -> "ClassStatistics":
        """These classes and then the other's: what both would be if computed together."""
        return ClassStatistics(
            torch.cat([self.count, other.count]), torch.cat([self.mean, other.mean]), self.scatter + other.scatter
        )


def nearest_mean(statistics: ClassStatistics) -> tuple[Float[Tensor, "klass width"], Float[Tensor, " klass"]]:
    """Weight and bias of cosine prototypes: logit = x·μ/‖μ‖, whose arg max is the class of nearest mean by angle."""
    mean = statistics.mean
    return mean / mean.norm(dim=1, keepdim=True).clamp(min=1e-12), mean.new_zeros(len(mean))


def linear_discriminant(
    statistics: ClassStatistics, shrinkage: float
) -> tuple[Float[Tensor, "klass width"], Float[Tensor, " klass"]]:
    """Weight and bias of Gaussian classes with one covariance: W = P⁻¹μ, b = −½ μᵀP⁻¹μ.

    P = (1 − shrinkage) Σ + shrinkage · tr(Σ)/d · I with the pooled covariance Σ; equal priors.
    """
    width = statistics.mean.shape[1]
    freedom = max(float(statistics.count.sum()) - len(statistics.count), 1.0)
    covariance = statistics.scatter / freedom
    ridge = (shrinkage * covariance.trace() / width).clamp(min=1e-9)
    eye = torch.eye(width, dtype=covariance.dtype, device=covariance.device)
    precise = (1 - shrinkage) * covariance + ridge * eye
    weight = torch.linalg.solve(precise, statistics.mean.T).T
    return weight, -0.5 * (weight * statistics.mean).sum(1)
