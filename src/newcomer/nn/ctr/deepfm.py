"""Every field by itself, all pairs of fields, and an MLP over all of them."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from newcomer.shapes import Float, Tensor


class DeepFactorisation(nn.Module):
    """Linear terms, a factorisation machine and an MLP, added up (DeepFM: Guo et al., IJCAI 2017).

    A field's linear term is wᵀ of its embedding, which is as free as a weight of its own for every value.
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
