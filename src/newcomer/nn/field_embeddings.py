"""Fields of any kind become vectors of one width."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from newcomer.shapes import Float, Tensor


class FieldEmbeddings(nn.Module):
    """One embedding a field: of a value, the mean of several values' embeddings, or a number times a vector.

    `sizes[field]` is the number of values, index 0 (padding, 'no value') and 1 (unseen) among them, both of which start at
    zero, where they say nothing; a size of 0 means numbers, of which NaN, 'not known', has a vector of its own.

    >>> fields = FieldEmbeddings([5, 7, 0], width=4, deviation=0.1)
    >>> colour, words, price = torch.tensor([2, 4]), torch.tensor([[2, 3, 6], [5, 0, 0]]), torch.tensor([0.3, float("nan")])
    >>> fields([colour, words, price]).shape      # field, thing, width
    torch.Size([3, 2, 4])
    """

    def __init__(self, sizes: Sequence[int], width: int, deviation: float) -> None:
        super().__init__()
        self.sizes, self.width = tuple(sizes), width
        self.tables = nn.ParameterList(torch.randn(size or 2, width) * deviation for size in sizes)
        with torch.no_grad():
            for size, table in zip(sizes, self.tables, strict=True):
                table[: 2 if size else 0] = 0

    def forward(self, values: Sequence[Tensor]) -> Float[Tensor, "field thing width"]:
        """`values[field]`: Int[thing] one value each, Int[thing most] several, filled up with 0, or Float[thing] numbers."""
        vectors = [
            _embedded(value, table) if size else _scaled(value, table)
            for value, size, table in zip(values, self.sizes, self.tables, strict=True)
        ]
        return torch.stack(vectors)


def _embedded(value: Tensor, table: Tensor) -> Float[Tensor, "thing width"]:
    if value.ndim == 1:
        return functional.embedding(value, table, padding_idx=0)
    return functional.embedding_bag(value, table, mode="mean", padding_idx=0)


def _scaled(value: Tensor, table: Tensor) -> Float[Tensor, "thing width"]:
    known = ~value.isnan()
    return torch.where(known, value, 0.0)[:, None] * table[0] + (~known)[:, None] * table[1]
