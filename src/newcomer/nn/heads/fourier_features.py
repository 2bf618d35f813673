"""Random Fourier features: the Gaussian kernel as an inner product (Rahimi & Recht, NeurIPS 2007)."""

import math
from dataclasses import dataclass

import torch

from newcomer.shapes import Float, Tensor


@dataclass(frozen=True)
class FourierFeatures:
    """φ(x) = √(2/D) cos(x Ω + b), with Ω normal of variance 1/h² and b uniform in [0, 2π).

    ⟨φ(x), φ(z)⟩ is, in the mean over draws, exp(−|x − z|² / 2h²).
    """

    frequencies: Float[Tensor, "width wide"]
    """Ω."""
    phases: Float[Tensor, " wide"]
    """b."""

    @classmethod
    def draw(cls, width: int, wide: int, bandwidth: float, generator: torch.Generator) -> "FourierFeatures":
        """D = `wide` features of the kernel of bandwidth h."""
        frequencies = torch.randn(width, wide, generator=generator) / bandwidth
        return cls(frequencies, 2 * math.pi * torch.rand(wide, generator=generator))

    def __call__(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch wide"]:
        scale = math.sqrt(2 / max(1, len(self.phases)))
        return scale * torch.cos(features @ self.frequencies + self.phases)


def typical_distance(features: Float[Tensor, "batch width"]) -> float:
    """Root of the mean squared distance between two of these rows; 1 where all are the same.

    >>> typical_distance(torch.tensor([[0.0, 0.0], [2.0, 0.0]]))    # of all ordered pairs, equal ones included: √2
    1.4142135623730951
    """
    x = features.double()
    squared = 2 * float((x - x.mean(0)).square().sum(1).mean())
    return math.sqrt(squared) if squared > 0 else 1.0
