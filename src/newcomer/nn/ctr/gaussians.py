"""Gaussian distributions with diagonal covariance."""

from dataclasses import dataclass

from newcomer.shapes import Float, Tensor


@dataclass(frozen=True)
class DiagonalGaussian:
    """One distribution a row: N(mean, diag(exp log_variance))."""

    mean: Float[Tensor, "thing number"]
    log_variance: Float[Tensor, "thing number"]

    @classmethod
    def of(cls, numbers: Float[Tensor, "thing both"]) -> "DiagonalGaussian":
        """From means (first half) and log variances (second half)."""
        mean, log_variance = numbers.chunk(2, dim=-1)
        return cls(mean, log_variance)

    @property
    def std(self) -> Float[Tensor, "thing number"]:
        return (self.log_variance / 2).exp()

    def sample(self, noise: Float[Tensor, "thing number"]) -> Float[Tensor, "thing number"]:
        """Reparameterized samples from standard normal `noise`."""
        return self.mean + self.std * noise


def squared_wasserstein(one: DiagonalGaussian, other: DiagonalGaussian) -> Float[Tensor, " thing"]:
    """Squared 2-Wasserstein distance W₂² = |μ − μ'|² + |σ − σ'|².

    >>> import torch
    >>> wide = DiagonalGaussian(torch.zeros(1, 2), torch.zeros(1, 2))
    >>> narrow = DiagonalGaussian(torch.ones(1, 2), torch.full((1, 2), -1e9))
    >>> squared_wasserstein(wide, narrow).item()      # 2 for the means, 2 for the deviations
    4.0
    """
    return ((one.mean - other.mean).square() + (one.std - other.std).square()).sum(dim=-1)
