"""Networks that write a graph from an item's characteristics."""

from itertools import pairwise

import torch
from torch import nn

from newcomer.shapes import Float, Tensor


class GraphWriter(nn.Module):
    """Row m of an item's graph is MLP_m([c ; onehot(m)]), three layers with ReLU between them; all F networks in one product.

    c: the embeddings of the item's own fields, one after the other. The one-hot part of the input is the same for every item, so
    its weights are nothing but one more bias of the first layer, and stand here as that.
    """

    def __init__(self, inputs: int, fields: int) -> None:
        super().__init__()
        sizes = [inputs, fields, fields, fields]
        self.weights = nn.ParameterList(
            torch.empty(fields, wide, out).uniform_(-1, 1) * (3 / wide) ** 0.5 for wide, out in pairwise(sizes)
        )
        self.biases = nn.ParameterList(torch.zeros(fields, 1, out) for out in sizes[1:])

    def forward(self, characteristics: Float[Tensor, "item input"]) -> Float[Tensor, "item field other"]:
        rows = characteristics.expand(len(self.biases[0]), -1, -1)  # field item input
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            rows = torch.relu(torch.baddbmm(bias, rows, weight))
        return torch.baddbmm(self.biases[-1], rows, self.weights[-1]).transpose(0, 1)

    @torch.no_grad()
    def start_at(self, graph: Float[Tensor, "field other"]) -> None:
        """What items have in common is this graph; by how much they differ from it stays as it was drawn."""
        self.biases[-1].copy_(graph[:, None])
