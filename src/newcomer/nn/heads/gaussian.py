"""Gaussian class statistics and a short realignment (SLCA: Zhang et al., ICCV 2023, arXiv 2303.05118)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from newcomer.nn.features.class_statistics import ClassStatistics, shrunk
from newcomer.nn.features.temperature import temperature
from newcomer.nn.heads.head import Head, Linear
from newcomer.nn.heads.lda import LDA
from newcomer.seeds import spawn
from newcomer.shapes import Float, Int, Tensor


@dataclass(frozen=True)
class RealignedGaussian(Head):
    """Softmax regression over all classes on features sampled from one Gaussian per class.

    A class of n examples is sampled with covariance (1 − 1/n) of its own plus 1/n of the pooled one: `pairs` features and their
    mirror images about its mean, so that the sample mean is exact. The regression starts at linear discriminant analysis, which is
    the solution for equal covariances, with its logits divided by their maximum-likelihood temperature on the samples; it takes a
    few quasi-Newton steps, with an L2 penalty `decay` on the distance from the start, in units of the samples' variance per class.

    SLCA starts from the trained rows, samples with each class's own covariance, and has no penalty.
    """

    slow: ClassVar[bool] = True
    uses_directions: ClassVar[bool] = True

    shrinkage: float = 0.3
    pairs: int = 32
    steps: int = 20
    decay: float = 1.0

    def fold(
        self, statistics: ClassStatistics, trained: Linear, counts: Float[Tensor, " class"] | None = None
    ) -> Linear:
        lda = LDA(self.shrinkage)
        # samples are drawn around the means as they are: the allowance for their errors comes afterwards
        start = lda.fold(statistics, trained, torch.ones_like(statistics.count))
        if len(statistics.count) < 2:
            return start
        # whatever the caller's mode
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
            x, target = self.sample(statistics)
            origin, bias = (t.float().clone() for t in start)
            scale = temperature(F.linear(x, origin, bias), target)
            origin = origin / scale
            weight, bias = origin.clone().requires_grad_(), (bias / scale).requires_grad_()
            optimizer = torch.optim.LBFGS(
                [weight, bias], max_iter=self.steps, history_size=5, line_search_fn="strong_wolfe"
            )
            hold = self.decay * x.var() / len(weight)

            def loss() -> Tensor:
                optimizer.zero_grad()
                found = F.cross_entropy(F.linear(x, weight, bias), target) + hold * (weight - origin).square().sum()
                found.backward()  # type: ignore[no-untyped-call]
                return found

            optimizer.step(loss)  # type: ignore[no-untyped-call]
        allowance = lda.allowance(statistics, counts) / scale
        return weight.detach().to(statistics.mean), bias.detach().to(statistics.mean) + allowance

    def sample(self, statistics: ClassStatistics) -> tuple[Float[Tensor, "draw width"], Int[Tensor, " draw"]]:
        """Sampled features of every class, from a fixed seed."""
        classes, rank, width = statistics.directions.shape
        chance, kind = spawn(0, "gaussian head"), statistics.scatter.dtype

        def normal(size: int) -> Float[Tensor, "class pair size"]:
            return torch.randn(classes, self.pairs, size, generator=chance, dtype=kind)

        common = normal(width) @ torch.linalg.cholesky(shrunk(statistics.within, 1e-3)).T
        each = (statistics.count - 1).clamp(min=1).sqrt()[:, None, None]
        around = (statistics.residual.clamp(min=0) / width).sqrt()[:, None, None]
        deviations = (normal(rank) @ statistics.directions + normal(width) * around) / each
        share = 1 / statistics.count.clamp(min=1)[:, None, None]
        offsets = (1 - share).sqrt() * deviations + share.sqrt() * common
        x = statistics.mean[:, None] + torch.cat([offsets, -offsets], dim=1)
        return x.flatten(0, 1).float(), torch.arange(classes).repeat_interleave(2 * self.pairs)
