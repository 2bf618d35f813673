"""Fused query-key-value projection, split so that each part can be adapted separately."""

import torch
from torch import nn

from newcomer.shapes import Float, Tensor


class FusedLinear(nn.Module):
    """Three frozen layers instead of one whose rows are those of query, key and value, in this order, a third each.

    It keeps the name of the layer that it replaces and computes the same; `rows` are a part's rows in that layer.

    >>> whole = nn.Linear(2, 12)
    >>> split = FusedLinear(whole)
    >>> torch.equal(split.value.weight, whole.weight[FusedLinear.rows("value", 12)])
    True
    """

    PARTS = ("query", "key", "value")

    def __init__(self, whole: nn.Linear) -> None:
        super().__init__()
        self.query, self.key, self.value = (_part(whole, self.rows(part, whole.out_features)) for part in self.PARTS)
        self.train(whole.training)

    @staticmethod
    def rows(part: str, width_out: int) -> slice:
        """Rows of this part in the fused layer with `width_out` rows."""
        third, index = width_out // 3, FusedLinear.PARTS.index(part)
        return slice(index * third, (index + 1) * third)

    def forward(self, x: Float[Tensor, "*batch width_in"]) -> Float[Tensor, "*batch width_out"]:
        return torch.cat([self.query(x), self.key(x), self.value(x)], dim=-1)


def _part(whole: nn.Linear, rows: slice) -> nn.Linear:
    part = nn.Linear(whole.in_features, rows.stop - rows.start, bias=whole.bias is not None, device="meta")
    part.weight = nn.Parameter(whole.weight.detach()[rows], requires_grad=False)
    if whole.bias is not None:
        part.bias = nn.Parameter(whole.bias.detach()[rows], requires_grad=False)
    return part
