"""Ridge regression on random features, from sufficient statistics (RanPAC, McDonnell et al., NeurIPS 2023).

Random features h = max(0, x R), with R standard normal and drawn once, make classes more linearly separable. The regression of
one-hot targets on h needs only the sums G = Σ h hᵀ and Q = Σ h yᵀ, to which each task adds its own: W = (G + λ I)⁻¹ Q equals the
solution on all examples, in any order.

λ is selected on a task's own examples, as in the paper: the regression is solved on four fifths of them with each of `RIDGES`, and
evaluated on the rest.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from newcomer.shapes import Bool, Float, Int, Tensor

RIDGES = tuple(10.0**power for power in range(-8, 9))
FOLDS = 5
"""Every fifth example of a class is held out, from its second on."""
EPSILON = 2.0**-23
"""Relative resolution of float32, in which the sums are kept."""


def random_features(
    features: Float[Tensor, "batch width"], projection: Float[Tensor, "width wide"]
) -> Float[Tensor, "batch wide"]:
    """h = max(0, x R)."""
    return (features @ projection).relu()


@dataclass(frozen=True)
class RidgeStatistics:
    """G = Σ h hᵀ and Qᵀ = Σ y hᵀ, one row a class. Computed in float64, kept in float32."""

    gram: Float[Tensor, "wide wide"]
    by_class: Float[Tensor, "class wide"]

    @classmethod
    def empty(cls, wide: int) -> "RidgeStatistics":
        """Sums of no example."""
        return cls(torch.zeros(wide, wide), torch.zeros(0, wide))

    def joined(self, h: Float[Tensor, "batch wide"], target: Int[Tensor, " batch"]) -> "RidgeStatistics":
        """With these examples added; `target` are class indices and may exceed the known classes."""
        h = h.double()
        known, classes = len(self.by_class), max(len(self.by_class), int(target.max()) + 1)
        by_class = F.pad(self.by_class.double(), (0, 0, 0, classes - known)).index_add(0, target, h)
        return RidgeStatistics((self.gram.double() + h.T @ h).float(), by_class.float())

    def at(self, classes: list[int]) -> "RidgeStatistics":
        """Restricted to these classes; examples of the others stay in G, as examples of no class."""
        return RidgeStatistics(self.gram, self.by_class[classes])

    def solved(self, ridge: float) -> Float[Tensor, "class wide"]:
        """Wᵀ = ((G + λ I)⁻¹ Q)ᵀ, with λ at least what float32 can resolve."""
        gram = self.gram.double()
        strength = max(ridge, EPSILON * float(gram.trace()), torch.finfo(torch.float32).tiny)
        gram.diagonal().add_(strength)
        return torch.cholesky_solve(self.by_class.double().T, torch.linalg.cholesky(gram)).T.float()


def select_ridge(
    h: Float[Tensor, "batch wide"], target: Int[Tensor, " batch"]
) -> tuple[float, Float[Tensor, "held class"], Int[Tensor, " held"]] | None:
    """Ridge with the smallest squared error on held-out examples, its predictions for these, and their classes.

    `target` are the classes of these examples, from 0. None if no class has a second example. One eigendecomposition, of h hᵀ or
    of hᵀh, whichever is smaller, solves all ridges.
    """
    held = held_out(target)
    if not held.any():
        return None
    one_hot = F.one_hot(target).double()
    x, queries, y = h[~held].double(), h[held].double(), one_hot[~held]
    if len(x) < x.shape[1]:
        queries, x = queries @ x.T, x @ x.T
    else:
        y, x = x.T @ y, x.T @ x
    values, vectors = torch.linalg.eigh(x)
    queries, y = queries @ vectors, vectors.T @ y
    predictions = [(queries / (values.clamp(min=0) + ridge)) @ y for ridge in RIDGES]
    best = min(range(len(RIDGES)), key=lambda i: float((predictions[i] - one_hot[held]).square().sum()))
    return RIDGES[best], predictions[best], target[held]


def held_out(target: Int[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
    """Mask of the held-out examples: of each class every fifth, from its second on."""
    rank = F.one_hot(target).cumsum(0) - 1
    return rank.gather(1, target[:, None])[:, 0] % FOLDS == 1
