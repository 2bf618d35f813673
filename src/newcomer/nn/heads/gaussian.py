"""Gaussian class statistics and a short realignment (SLCA: Zhang et al., ICCV 2023, arXiv 2303.05118)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from newcomer.nn.features.class_statistics import ClassStatistics, shrunk
from newcomer.nn.features.temperature import temperature
from newcomer.nn.heads.head import Head, Linear
from newcomer.nn.heads.lda import Discriminant
from newcomer.seeds import spawn
from newcomer.shapes import Float, Int, Tensor


@dataclass(frozen=True)
class RealignedGaussians(Head):
    """The softmax regression on features drawn from a Gaussian a class, all classes compared with all.

    A class of n examples is drawn with (1 − 1/n) of its own covariance and 1/n of the one that all classes share, `pairs` features
    and their mirror images about its mean, so that the mean is met. The regression starts from the discriminant, which is the
    answer where all covariances are equal, its logits divided by what makes the draws likeliest; it takes a few quasi-Newton
    steps, and its weights are held there by `decay`, in units of the draws' variance for each class.

    SLCA starts from the trained rows, draws with covariances as they are, and is not held.
    """

    slow: ClassVar[bool] = True

    shrinkage: float = 0.3
    pairs: int = 32
    steps: int = 20
    decay: float = 1.0

    def fold(self, statistics: ClassStatistics, trained: Linear) -> Linear:
        start = Discriminant(self.shrinkage).fold(statistics, trained)
        if len(statistics.count) < 2:
            return start
        # whatever the caller's mode
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
            x, klass = self.drawn(statistics)
            origin, bias = (t.float().clone() for t in start)
            hot = temperature(F.linear(x, origin, bias), klass)
            origin = origin / hot
            weight, bias = origin.clone().requires_grad_(), (bias / hot).requires_grad_()
            optimizer = torch.optim.LBFGS(
                [weight, bias], max_iter=self.steps, history_size=5, line_search_fn="strong_wolfe"
            )
            hold = self.decay * x.var() / len(weight)

            def loss() -> Tensor:
                optimizer.zero_grad()
                found = F.cross_entropy(F.linear(x, weight, bias), klass) + hold * (weight - origin).square().sum()
                found.backward()  # type: ignore[no-untyped-call]
                return found

            optimizer.step(loss)  # type: ignore[no-untyped-call]
        return weight.detach().to(statistics.mean), bias.detach().to(statistics.mean)

    def drawn(self, statistics: ClassStatistics) -> tuple[Float[Tensor, "draw width"], Int[Tensor, " draw"]]:
        """Features of every class, drawn by a chance that is the same each time."""
        classes, rank, width = statistics.spread.shape
        chance, kind = spawn(0, "gaussian head"), statistics.scatter.dtype

        def normal(size: int) -> Float[Tensor, "klass pair size"]:
            return torch.randn(classes, self.pairs, size, generator=chance, dtype=kind)

        common = normal(width) @ torch.linalg.cholesky(shrunk(statistics.within, 1e-3)).T
        each = (statistics.count - 1).clamp(min=1).sqrt()[:, None, None]
        around = (statistics.rest.clamp(min=0) / width).sqrt()[:, None, None]
        own = (normal(rank) @ statistics.spread + normal(width) * around) / each
        share = 1 / statistics.count.clamp(min=1)[:, None, None]
        apart = (1 - share).sqrt() * own + share.sqrt() * common
        x = statistics.mean[:, None] + torch.cat([apart, -apart], dim=1)
        return x.flatten(0, 1).float(), torch.arange(classes).repeat_interleave(2 * self.pairs)
