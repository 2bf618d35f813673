"""Gaussian class statistics and a short realignment (SLCA: Zhang et al., ICCV 2023, arXiv 2303.05118)."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from newcomer.nn.class_statistics import ClassStatistics, shrunk
from newcomer.nn.heads.discriminant import Discriminant
from newcomer.nn.heads.head import Linear
from newcomer.seeds import spawn
from newcomer.shapes import Float, Int, Tensor


@dataclass(frozen=True)
class RealignedGaussians:
    """The softmax regression on features drawn from a Gaussian a class, `draws` each, all classes compared with all.

    A class's covariance is its own main directions, shrunk halfway towards the covariance that all classes share, so that a class
    of few examples is not taken at its word. Starts from the discriminant, which is the answer where all covariances are equal, and
    takes a few quasi-Newton steps; the weights are held near it by `decay`.
    """

    shrinkage: float = 0.3
    draws: int = 64
    steps: int = 20
    decay: float = 1e-3

    def fold(self, statistics: ClassStatistics, trained: Linear) -> Linear:
        start = Discriminant(self.shrinkage).fold(statistics, trained)
        if len(statistics.count) < 2:
            return start
        x, klass = self.drawn(statistics)
        with torch.inference_mode(False), torch.enable_grad():  # whatever the caller's mode
            x, klass, origin = x.clone(), klass.clone(), start[0].float().clone()
            weight, bias = (t.float().clone().requires_grad_() for t in start)
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

        def normal(size: int) -> Float[Tensor, "klass draw size"]:
            return torch.randn(classes, self.draws, size, generator=chance, dtype=kind)

        common = normal(width) @ torch.linalg.cholesky(shrunk(statistics.within, 1e-3)).T
        each = (statistics.count - 1).clamp(min=1).sqrt()[:, None, None]
        around = (statistics.rest.clamp(min=0) / width).sqrt()[:, None, None]
        own = (normal(rank) @ statistics.spread + normal(width) * around) / each
        apart = torch.where((statistics.count < 2)[:, None, None], common, (common + own) / 2**0.5)
        x = statistics.mean[:, None] + apart
        return x.flatten(0, 1).float(), torch.arange(classes).repeat_interleave(self.draws)
