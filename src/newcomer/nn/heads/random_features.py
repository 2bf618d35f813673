"""Ridge regression on random features, from sums that grow with the classes (RanPAC, McDonnell et al., NeurIPS 2023).

Features x are spread over many more numbers, h = max(0, x R) with R drawn once from a standard normal; there classes are nearer to
being linearly separable. The regression of one-hot targets on h needs no more than the sums G = Σ h hᵀ and Q = Σ h yᵀ, to which
every lesson adds its own: W = (G + λ I)⁻¹ Q is what all examples together would give, whatever the order they came in.

λ is chosen by a lesson's own examples, as in the paper: on four fifths of them the regression is solved with each of `RIDGES`, and
the rest says which foretells its targets best.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from newcomer.shapes import Float, Int, Tensor

RIDGES = tuple(10.0**power for power in range(-8, 9))
FOLDS = 5
"""Every fifth example of a class is held out, from its second on."""
EPSILON = 2.0**-23
"""What float32, in which the sums are kept, can tell from nothing."""


def spread_out(
    features: Float[Tensor, "batch width"], projection: Float[Tensor, "width wide"]
) -> Float[Tensor, "batch wide"]:
    """max(0, x R)."""
    return (features @ projection).relu()


@dataclass(frozen=True)
class RidgeSums:
    """G = Σ h hᵀ and, one row a class, Qᵀ = Σ y hᵀ. Computed in float64, kept in float32."""

    gram: Float[Tensor, "wide wide"]
    by_class: Float[Tensor, "klass wide"]

    @classmethod
    def empty(cls, wide: int) -> "RidgeSums":
        """Of no example."""
        return cls(torch.zeros(wide, wide), torch.zeros(0, wide))

    def joined(self, h: Float[Tensor, "batch wide"], klass: Int[Tensor, " batch"]) -> "RidgeSums":
        """With these examples, too; `klass` counts from 0 and may go beyond the classes known."""
        h = h.double()
        known, classes = len(self.by_class), max(len(self.by_class), int(klass.max()) + 1)
        by_class = F.pad(self.by_class.double(), (0, 0, 0, classes - known)).index_add(0, klass, h)
        return RidgeSums((self.gram.double() + h.T @ h).float(), by_class.float())

    def at(self, classes: list[int]) -> "RidgeSums":
        """Of these classes only; the others' examples go on being examples of none."""
        return RidgeSums(self.gram, self.by_class[classes])

    def solved(self, ridge: float) -> Float[Tensor, "klass wide"]:
        """Wᵀ; a ridge that float32 cannot tell from nothing is raised to what it can."""
        gram = self.gram.double()
        strength = max(ridge, EPSILON * float(gram.trace()), torch.finfo(torch.float32).tiny)
        gram.diagonal().add_(strength)
        return torch.cholesky_solve(self.by_class.double().T, torch.linalg.cholesky(gram)).T.float()


def chosen_ridge(
    h: Float[Tensor, "batch wide"], klass: Int[Tensor, " batch"]
) -> tuple[float, Float[Tensor, "held klass"], Int[Tensor, " held"]] | None:
    """The ridge under which part of the examples foretells the rest best (squared error); what it says of them, and their classes.

    `klass` counts the classes of these examples from 0. None where no class has a second example. All ridges are solved by one
    decomposition, of h hᵀ or of hᵀh, whichever is smaller.
    """
    held = _rank_in_class(klass) % FOLDS == 1
    if not held.any():
        return None
    target = F.one_hot(klass).double()
    x, asked, wanted = h[~held].double(), h[held].double(), target[~held]
    if len(x) < x.shape[1]:
        asked, x = asked @ x.T, x @ x.T
    else:
        wanted, x = x.T @ wanted, x.T @ x
    values, vectors = torch.linalg.eigh(x)
    asked, wanted = asked @ vectors, vectors.T @ wanted
    said = [(asked / (values.clamp(min=0) + ridge)) @ wanted for ridge in RIDGES]
    best = min(range(len(RIDGES)), key=lambda i: float((said[i] - target[held]).square().sum()))
    return RIDGES[best], said[best], klass[held]


def _rank_in_class(klass: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """The how-manieth of its class each example is, from 0."""
    found = F.one_hot(klass).cumsum(0) - 1
    return found.gather(1, klass[:, None])[:, 0]
