"""Linear layer that grows by one row a class."""

import torch
from torch import nn
from torch.nn import functional as F

from newcomer.nn.heads.head import Linear
from newcomer.shapes import Float, Tensor


class LinearHead(nn.Module):
    """logits = x Wᵀ + b, one row of W and b a class, in the order in which classes were added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(0, width))
        self.bias = nn.Parameter(torch.zeros(0))

    @property
    def classes(self) -> int:
        return self.weight.shape[0]

    def grow(self, classes: int) -> None:
        """Add rows of zeros for new classes; old rows do not change.

        At zero all new classes have the same logit, so classes of different tasks stay comparable. Random rows would keep their
        offset under a loss that compares new classes only with each other.
        """
        weight = self.weight.new_zeros(classes, self.weight.shape[1])
        self.set(torch.cat([self.weight.detach(), weight]), torch.cat([self.bias.detach(), weight[:, 0]]))

    def set(self, weight: Float[Tensor, "class width"], bias: Float[Tensor, " class"]) -> None:
        """Replace all rows."""
        self.weight, self.bias = nn.Parameter(weight.to(self.weight)), nn.Parameter(bias.to(self.bias))

    def rows(self) -> Linear:
        """Weight and bias as they are, on the CPU."""
        return self.weight.detach().cpu(), self.bias.detach().cpu()

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch class"]:
        return F.linear(x, self.weight, self.bias)
