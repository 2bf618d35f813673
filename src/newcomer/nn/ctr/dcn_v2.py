"""DCN-V2: a cross network, in parallel with an MLP."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from newcomer.shapes import Float, Tensor

LAYERS = 3
"""Of crosses: degrees 2, 3 and 4."""


class DCNv2(nn.Module):
    """x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l over the concatenated fields, and an MLP of x_0 (DCN-V2: Wang et al., WWW 2021, eq. 1).

    The parallel form: one linear map reads the last cross and the MLP's last layer. W_l has full rank.
    """

    def __init__(self, fields: int, width: int, hidden: Sequence[int]) -> None:
        super().__init__()
        size = fields * width
        self.crosses = nn.ModuleList(nn.Linear(size, size) for _ in range(LAYERS))
        sizes = [size, *hidden]
        layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
        self.linear = nn.Linear(size, 1)
        self.deep = nn.Sequential(*(part for layer in layers for part in layer), nn.Linear(sizes[-1], 1, bias=False))

    def forward(self, vectors: Float[Tensor, "item field row width"]) -> Float[Tensor, "item row"]:
        first = crossed = torch.transpose(vectors, 1, 2).flatten(2)
        for cross in self.crosses:
            crossed = first * cross(crossed) + crossed
        logits: Tensor = (self.linear(crossed) + self.deep(first))[..., 0]
        return logits
