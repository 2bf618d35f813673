"""Hypernetworks that generate an item's graph from its features."""

from itertools import pairwise

import torch
from torch import nn

from newcomer.shapes import Float, Tensor


class GraphHypernetwork(nn.Module):
    """Row m of an item's graph is MLP_m([c ; onehot(m)]), three layers with ReLU between them; all F networks in one product.

    c: the concatenated embeddings of the item's fields. The one-hot part of the input is the same for every item, so its weights
    are biases of the first layer.
    """

    def __init__(self, inputs: int, fields: int) -> None:
        super().__init__()
        sizes = [inputs, fields, fields, fields]
        self.weights = nn.ParameterList(
            torch.empty(fields, wide, out).uniform_(-1, 1) * (3 / wide) ** 0.5 for wide, out in pairwise(sizes)
        )
        self.biases = nn.ParameterList(torch.zeros(fields, 1, out) for out in sizes[1:])

    def forward(self, characteristics: Float[Tensor, "item input"]) -> Float[Tensor, "item field other"]:
        fields, inputs, out = self.weights[0].shape
        first = self.weights[0].transpose(0, 1).reshape(inputs, fields * out)  # all networks have this input
        rows: Tensor = (characteristics @ first).view(-1, fields, out).transpose(0, 1) + self.biases[0]
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            rows = torch.bmm(torch.relu(rows), weight) + bias  # faster than baddbmm
        return rows.transpose(0, 1)

    @torch.no_grad()
    def start_at(self, graph: Float[Tensor, "field other"]) -> None:
        """Set the last biases to this graph, so that generated graphs are around it."""
        self.biases[-1].copy_(graph[:, None])
