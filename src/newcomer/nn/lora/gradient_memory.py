"""Gradient memory: the input subspace of old tasks, for updates that do not interfere (InfLoRA, Liang & Li, CVPR 2024).

The gradient of a linear layer's weight is a sum of outer products with its inputs, so the inputs of old tasks span the space of
their gradients. The memory holds the principal directions of the inputs' second moments C = Σ h hᵀ, task by task
(GPM, Saha et al., ICLR 2021); where they are more than half of all, those that are *not* remembered are kept in their place
(DualGPM, Liang & Li, CVPR 2023), so that a memory is never more than half a square matrix.

A new task's update is B A whose rows of A (the paper's B_t: its letters are the other way round) are chosen before training
and never trained: the main directions of the new inputs outside of what is remembered. Then B A h = 0 for every remembered h.
"""

from dataclasses import dataclass

import torch

from newcomer.shapes import Float, Tensor

NOTHING = 1e-6
"""Directions with a smaller share of the second moments are rounding errors."""


@dataclass(frozen=True)
class GradientMemory:
    """Orthonormal input directions: those in the memory or, if `dual`, its orthogonal complement.

    Computed in float64, kept in float32.
    """

    directions: Float[Tensor, "width kept"]
    dual: bool = False

    @classmethod
    def empty(cls, width: int) -> "GradientMemory":
        """Empty memory."""
        return cls(torch.zeros(width, 0))

    @property
    def remembered(self) -> int:
        """Number of directions in the memory."""
        width, kept = self.directions.shape
        return width - kept if self.dual else kept

    def outside(self, x: Float[Tensor, "width column"]) -> Float[Tensor, "width column"]:
        """Projection of these columns onto the complement of the memory."""
        directions = self.directions.to(x)
        along = directions @ (directions.T @ x)
        return along if self.dual else x - along

    def free(self, moment: Float[Tensor, "width width"], count: int) -> Float[Tensor, "count width"]:
        """The top `count` principal directions of these inputs outside of the memory: orthonormal rows, zeros if there are fewer.

        Paper's section 4.2; with P the projection outside, they are those of P C P. The released code takes the left singular
        vectors of P C, which are not the inputs' principal directions there.
        """
        values, vectors = torch.linalg.eigh(self.outside(self.outside(moment).T))  # ascending
        values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
        found: Tensor = self.outside(vectors) * (values > NOTHING * moment.trace())
        return found.T

    def extended(self, moment: Float[Tensor, "width width"], share: float) -> "GradientMemory":
        """With as many more directions as needed to cover at least this share of these inputs.

        Coverage of inputs with second moment C is measured as in the released code, 1 − ‖P C‖² / ‖C‖², to which the published
        thresholds belong. In the paper it is the share of the inputs' own squares, tr(P C) against tr(C): a longer tail, so that at
        the same threshold more is remembered and later tasks have less room.
        """
        vectors, values, _ = torch.linalg.svd(self.outside(moment))
        squares, whole = values.square(), moment.square().sum()
        missing = squares.flip(0).cumsum(0).flip(0)  # before each direction is taken
        count = int(((missing > (1 - share) * whole) & (squares > NOTHING**2 * whole)).sum())
        return self._joined(vectors[:, :count]) if count else self

    def _joined(self, more: Float[Tensor, "width new"]) -> "GradientMemory":
        width, kept = self.directions.shape
        old = self.directions.to(more)
        if self.dual:
            rest = torch.linalg.svd(old - more @ (more.T @ old), full_matrices=False)[0][
                :, : max(0, kept - more.shape[1])
            ]
        elif kept + more.shape[1] <= width / 2:
            return GradientMemory(torch.cat([old, more], dim=1).float())
        else:
            rest = torch.linalg.svd(torch.cat([old, more], dim=1))[0][:, kept + more.shape[1] :]
        return GradientMemory(rest.float(), dual=True)
