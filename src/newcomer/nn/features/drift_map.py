"""Drift map: affine map from old to new features, fitted on the examples of the current task.

Statistics of old classes were computed with the old weights. The new task's features are known under both; an affine map
old → new, ridge regression on the difference, is applied to the old statistics (as in SDC, Yu et al., CVPR 2020, with a map in
place of a mean shift). It is fitted on new classes and used on old ones, so it is judged the same way: on classes left out of the
fit. A map that does not foretell them better than *nothing has moved* is not used: after a run that diverged it would only do harm.
"""

from dataclasses import dataclass

import torch

from newcomer.nn.features.class_statistics import ClassStatistics
from newcomer.shapes import Float, Int, Tensor

RIDGES = (0.005, 0.05, 0.5, 5.0)
"""Ridge parameters, in mean squares of the old features; selected on held-out classes."""
FOLDS = 5


@dataclass(frozen=True)
class DriftMap:
    """x ↦ centre + shift + (x − centre) · matrix."""

    matrix: Float[Tensor, "width width"]
    centre: Float[Tensor, " width"]
    shift: Float[Tensor, " width"]

    def __call__(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        return self.centre + self.shift + (x - self.centre) @ self.matrix

    def move(self, statistics: ClassStatistics) -> ClassStatistics:
        """Statistics mapped to the new weights."""
        return statistics.mapped(self.matrix, self.centre, self.shift)


def fitted(old: Float[Tensor, "batch width"], new: Float[Tensor, "batch width"], ridge: float) -> DriftMap:
    """Least-squares affine map from old to new features, shrunk towards a shift by `ridge`."""
    centre, change = old.mean(0), new - old
    shift = change.mean(0)
    x = old - centre
    gram = x.T @ x
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    strength = (ridge * gram.trace() / len(gram)).clamp(min=1e-12)
    return DriftMap(eye + torch.linalg.solve(gram + strength * eye, x.T @ (change - shift)), centre, shift)


def guarded(
    old: Float[Tensor, "batch width"],
    new: Float[Tensor, "batch width"],
    target: Int[Tensor, " batch"],
    unlabelled: tuple[Float[Tensor, "more width"], Float[Tensor, "more width"]] | None = None,
) -> tuple[DriftMap | None, float]:
    """The map with the best cross-validated fit, and the share of held-out drift that it explains; None if it explains none.

    `target` are the examples' classes, held out in turn; with one class examples are held out instead. `unlabelled`: old and new
    features of further inputs, which are in every fit and never held out.
    """
    x, y = old.double(), new.double()
    more = (x[:0], y[:0]) if unlabelled is None else tuple(t.double() for t in unlabelled)
    if len(x) < 2 or not all(t.isfinite().all() for t in (x, y, *more)):
        return None, 0.0

    def fit(rows: Tensor, ridge: float) -> DriftMap:
        return fitted(torch.cat([x[rows], more[0]]), torch.cat([y[rows], more[1]]), ridge)

    number = torch.unique(target, return_inverse=True)[1]
    if int(number.max()) == 0:
        number = torch.arange(len(x), device=x.device)
    fold = number % min(FOLDS, int(number.max()) + 1)
    still = (y - x).square().sum()
    if still == 0:
        return None, 0.0
    missed = torch.zeros(len(RIDGES), dtype=x.dtype, device=x.device)
    for left_out in torch.unique(fold):
        kept, out = fold != left_out, fold == left_out
        for i, ridge in enumerate(RIDGES):
            missed[i] += (fit(kept, ridge)(x[out]) - y[out]).square().sum()
    explained = float(1 - missed.min() / still)
    best = RIDGES[int(missed.argmin())]
    return (fit(torch.ones_like(fold, dtype=torch.bool), best), explained) if explained > 0 else (None, explained)
