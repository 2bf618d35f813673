"""A linear classifier that grows by the rows of new classes."""

import torch
from torch import nn
from torch.nn import functional as F

from newcomer.shapes import Float, Tensor


class LinearHead(nn.Module):
    """logits = x Wᵀ + b, one row of W and b a class, in the order in which classes came."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(0, width))
        self.bias = nn.Parameter(torch.zeros(0))

    @property
    def classes(self) -> int:
        return self.weight.shape[0]

    def grow(self, classes: int) -> None:
        """Add rows of zeros for new classes; the old ones keep their bits.

        At zero every new class starts with the same logit, so that classes of different tasks stay comparable. Rows drawn at
        random, as torch's linear layers start, never lose their offset under a loss that compares the new classes with each
        other only.
        """
        weight = self.weight.new_zeros(classes, self.weight.shape[1])
        self.set(torch.cat([self.weight.detach(), weight]), torch.cat([self.bias.detach(), weight[:, 0]]))

    def set(self, weight: Float[Tensor, "klass width"], bias: Float[Tensor, " klass"]) -> None:
        """Take over these rows."""
        self.weight, self.bias = nn.Parameter(weight.to(self.weight)), nn.Parameter(bias.to(self.bias))

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch klass"]:
        return F.linear(x, self.weight, self.bias)
