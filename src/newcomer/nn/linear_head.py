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

    def grow(self, classes: int, generator: torch.Generator) -> None:
        """Add rows for new classes, uniform in ±1/√width as torch's linear layers start; the old ones keep their bits."""
        width = self.weight.shape[1]
        new = torch.empty(classes, width + 1).uniform_(-(width**-0.5), width**-0.5, generator=generator).to(self.weight)
        self.set(torch.cat([self.weight.detach(), new[:, :-1]]), torch.cat([self.bias.detach(), new[:, -1]]))

    def set(self, weight: Float[Tensor, "klass width"], bias: Float[Tensor, " klass"]) -> None:
        """Take over these rows."""
        self.weight, self.bias = nn.Parameter(weight.to(self.weight)), nn.Parameter(bias.to(self.bias))

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch klass"]:
        return F.linear(x, self.weight, self.bias)
