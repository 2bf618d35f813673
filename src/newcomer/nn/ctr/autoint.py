"""AutoInt: self-attention over fields, in parallel with an MLP."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from newcomer.shapes import Float, Tensor

LAYERS, HEADS = 3, 2


class AutoInt(nn.Module):
    """Layers of self-attention over the fields, read out by a linear map, and an MLP (AutoInt+: Song et al., CIKM 2019, eq. 5-10).

    Every head is as wide as the embeddings. Without `hidden` the parallel part is
    linear, and this is AutoInt.
    """

    def __init__(self, fields: int, width: int, hidden: Sequence[int]) -> None:
        super().__init__()
        wide = HEADS * width
        self.layers = nn.ModuleList(FieldAttention(inputs, width) for inputs in [width, *[wide] * (LAYERS - 1)])
        sizes = [fields * width, *hidden]
        layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
        self.linear = nn.Linear(fields * wide, 1)
        self.deep = nn.Sequential(*(part for layer in layers for part in layer), nn.Linear(sizes[-1], 1, bias=False))

    def forward(self, vectors: Float[Tensor, "item field row width"]) -> Float[Tensor, "item row"]:
        first = attended = torch.transpose(vectors, 1, 2)
        for layer in self.layers:
            attended = layer(attended)
        logits: Tensor = (self.linear(attended.flatten(2)) + self.deep(first.flatten(2)))[..., 0]
        return logits


class FieldAttention(nn.Module):
    """ReLU(heads side by side + W_res e): a head's field m is Σ_k softmax_k(⟨W_Q e_m, W_K e_k⟩) W_V e_k, products not scaled."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.residual = (
            nn.Linear(inputs, HEADS * width, bias=False) for _ in range(4)
        )

    def forward(self, vectors: Float[Tensor, "item row field width"]) -> Float[Tensor, "item row field out"]:
        query, key, value = (self._heads(part(vectors)) for part in (self.query, self.key, self.value))
        attention = (query @ key.transpose(-1, -2)).softmax(dim=-1)
        attended = (attention @ value).transpose(-2, -3).flatten(-2)
        return torch.relu(attended + self.residual(vectors))

    @staticmethod
    def _heads(vectors: Tensor) -> Float[Tensor, "item row head field part"]:
        return vectors.view(*vectors.shape[:-1], HEADS, -1).transpose(-2, -3)
