"""Normal distributions without correlations, each of a mean and the logarithm of its variances."""

from dataclasses import dataclass

from newcomer.shapes import Float, Tensor


@dataclass(frozen=True)
class Gaussians:
    """One distribution a thing: N(mean, diag(exp log_variance))."""

    mean: Float[Tensor, "thing number"]
    log_variance: Float[Tensor, "thing number"]

    @classmethod
    def of(cls, numbers: Float[Tensor, "thing both"]) -> "Gaussians":
        """Means in the first half, logarithms of variances in the second."""
        mean, log_variance = numbers.chunk(2, dim=-1)
        return cls(mean, log_variance)

    @property
    def deviation(self) -> Float[Tensor, "thing number"]:
        return (self.log_variance / 2).exp()

    def drawn(self, noise: Float[Tensor, "thing number"]) -> Float[Tensor, "thing number"]:
        """One draw each, from standard normal `noise`: gradients reach mean and variance."""
        return self.mean + self.deviation * noise


def wasserstein(one: Gaussians, other: Gaussians) -> Float[Tensor, " thing"]:
    """W₂², what it costs to carry one distribution over to the other: |μ − μ'|² + |σ − σ'|².

    >>> import torch
    >>> wide, narrow = Gaussians(torch.zeros(1, 2), torch.zeros(1, 2)), Gaussians(torch.ones(1, 2), torch.full((1, 2), -1e9))
    >>> wasserstein(wide, narrow).item()      # 2 for the means, 2 for the deviations
    4.0
    """
    return ((one.mean - other.mean).square() + (one.deviation - other.deviation).square()).sum(dim=-1)
