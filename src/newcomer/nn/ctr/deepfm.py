"""DeepFM: linear terms, a factorization machine and an MLP."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from newcomer.shapes import Float, Tensor


class DeepFM(nn.Module):
    """Sum of linear terms, a factorization machine and an MLP (DeepFM: Guo et al., IJCAI 2017).

    A field's linear term is wᵀ of its embedding, as expressive as one weight a value.
    """

    def __init__(self, fields: int, width: int, hidden: Sequence[int]) -> None:
        super().__init__()
        sizes = [fields * width, *hidden]
        layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
        self.linear = nn.Linear(fields * width, 1)
        self.deep = nn.Sequential(*(part for layer in layers for part in layer), nn.Linear(sizes[-1], 1, bias=False))

    def forward(self, vectors: Float[Tensor, "item field row width"]) -> Float[Tensor, "item row"]:
        total = vectors.sum(dim=1)
        pairs = (total.square() - vectors.square().sum(dim=1)).sum(dim=-1) / 2
        together = torch.transpose(vectors, 1, 2).flatten(2)
        logits: Tensor = (self.linear(together) + self.deep(together))[..., 0] + pairs
        return logits
