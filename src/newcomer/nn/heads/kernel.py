"""Kernel ridge regression on support points of the classes: the limit of a ridge on random features.

RanPAC (McDonnell et al., NeurIPS 2023, arXiv 2307.02251) reads max(0, x R) with R drawn from a standard normal. The mean of such
features' products is half the arc-cosine kernel of order one (Cho, Saul, NeurIPS 2009): with θ the angle between x and z

    k(x, z) = |x| |z| (sin θ + (π − θ) cos θ) / 2π

so that the regression needs no R. Instead of examples it uses support points of each class: points with its mean, and its
covariance along the kept principal directions (the unscented transform: Julier, Uhlmann 1997). They are computed from the
class statistics, so the drift map applies to them.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from newcomer.nn.features.class_statistics import ClassStatistics
from newcomer.nn.heads.head import Head, Linear, WeightBias
from newcomer.shapes import Float, Tensor


@dataclass(frozen=True)
class KernelRidge(Head):
    """Kernel ridge regression of one-hot targets at the support points z: W = Yᵀ (K + λ I)⁻¹, K = k(z, z); the terms are k(x, z).

    - `noise`: λ, in units of the kernel's mean diagonal.
    - `limit`: maximum number of support points; with many classes each gets fewer, along its first principal directions.
    """

    slow: ClassVar[bool] = True
    uses_directions: ClassVar[bool] = True

    noise: float = 0.03
    limit: int = 4096

    def fold(
        self, statistics: ClassStatistics, trained: Linear, counts: Float[Tensor, " class"] | None = None
    ) -> WeightBias:
        points, classes = self.support_points(statistics), len(statistics.count)
        target = torch.arange(classes).repeat_interleave(len(points) // classes)
        target = F.one_hot(target).to(points) - 1 / classes
        matrix = arc_cosine(points, points)
        matrix.diagonal().add_((self.noise * matrix.diagonal().mean()).clamp(min=1e-9))
        weight = torch.cholesky_solve(target, torch.linalg.cholesky(matrix)).T
        return weight, torch.zeros_like(weight[:, 0])

    def terms(
        self, statistics: ClassStatistics, features: Float[Tensor, "batch width"]
    ) -> Float[Tensor, "batch point"]:
        # for close features, products differ by less than float32 resolves
        return arc_cosine(features.double(), self.support_points(statistics.double()))

    def support_points(self, statistics: ClassStatistics) -> Float[Tensor, "point width"]:
        """μ ± √r s / √(n − 1) for r principal directions s of each class with n examples, class by class."""
        classes, kept, _ = statistics.directions.shape
        rank = min(kept, max(1, self.limit // (2 * max(1, classes))))
        each = (statistics.count - 1).clamp(min=1)[:, None, None]
        offset = statistics.directions[:, :rank] * (rank / each).sqrt()
        return (statistics.mean[:, None] + torch.cat([offset, -offset], dim=1)).flatten(0, 1)


def arc_cosine(x: Float[Tensor, "batch width"], z: Float[Tensor, "point width"]) -> Float[Tensor, "batch point"]:
    """Kernel matrix k(x, z)."""
    size = torch.outer(x.norm(dim=1), z.norm(dim=1)).clamp(min=torch.finfo(x.dtype).tiny)
    cosine = (x @ z.T / size).clamp(-1, 1)
    angle = cosine.acos()
    return size * (angle.sin() + (math.pi - angle) * cosine) / (2 * math.pi)
