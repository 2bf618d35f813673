"""Kernel regression on points that stand for the classes: what a ridge on random features comes to, as their number grows.

RanPAC (McDonnell et al., NeurIPS 2023, arXiv 2307.02251) reads max(0, x R) with R drawn from a standard normal. The mean of such
features' products is half the arc-cosine kernel of order one (Cho, Saul, NeurIPS 2009): with θ the angle between x and z

    k(x, z) = |x| |z| (sin θ + (π − θ) cos θ) / 2π

so that the regression needs neither R nor sums over it. And in place of examples it takes, for each class, the points that have its
mean and its covariance along the directions that are kept of it (the unscented transform: Julier, Uhlmann 1997): they are made from
the same statistics that all heads read, so they move along with these when the weights move.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from newcomer.nn.features.class_statistics import ClassStatistics
from newcomer.nn.heads.head import Found, Head, Linear
from newcomer.shapes import Float, Tensor


@dataclass(frozen=True)
class KernelRidge(Head):
    """The answer of least squares to one-hot targets at the points z, W = Yᵀ (K + λ I)⁻¹ with K = k(z, z); the terms are k(x, z).

    - `noise`: λ, in units of the kernel's mean diagonal.
    - `limit`: of points; where classes are many, each gets fewer, along its main directions.
    """

    slow: ClassVar[bool] = True

    noise: float = 0.03
    limit: int = 4096

    def fold(self, statistics: ClassStatistics, trained: Linear) -> Found:
        points, classes = self.points(statistics), len(statistics.count)
        klass = torch.arange(classes).repeat_interleave(len(points) // classes)
        target = F.one_hot(klass).to(points) - 1 / classes
        matrix = arc_cosine(points, points)
        matrix.diagonal().add_((self.noise * matrix.diagonal().mean()).clamp(min=1e-9))
        weight = torch.cholesky_solve(target, torch.linalg.cholesky(matrix)).T
        return weight, torch.zeros_like(weight[:, 0])

    def terms(
        self, statistics: ClassStatistics, features: Float[Tensor, "batch width"]
    ) -> Float[Tensor, "batch point"]:
        # among features that lie close together, products differ by less than float32 tells
        return arc_cosine(features.double(), self.points(statistics.double()))

    def points(self, statistics: ClassStatistics) -> Float[Tensor, "point width"]:
        """μ ± √r s / √(n − 1) for the r main directions s of each class of n examples, class by class."""
        classes, kept, _ = statistics.spread.shape
        rank = min(kept, max(1, self.limit // (2 * max(1, classes))))
        each = (statistics.count - 1).clamp(min=1)[:, None, None]
        apart = statistics.spread[:, :rank] * (rank / each).sqrt()
        return (statistics.mean[:, None] + torch.cat([apart, -apart], dim=1)).flatten(0, 1)


def arc_cosine(x: Float[Tensor, "batch width"], z: Float[Tensor, "point width"]) -> Float[Tensor, "batch point"]:
    """k(x, z) of all pairs."""
    size = torch.outer(x.norm(dim=1), z.norm(dim=1)).clamp(min=torch.finfo(x.dtype).tiny)
    cosine = (x @ z.T / size).clamp(-1, 1)
    angle = cosine.acos()
    return size * (angle.sin() + (math.pi - angle) * cosine) / (2 * math.pi)
