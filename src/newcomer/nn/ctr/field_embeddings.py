"""Embeddings of categorical, multi-valued, numeric and vector fields in one width."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from newcomer.nn.ctr.computed_embeddings import ComputedEmbedding
from newcomer.shapes import Float, Tensor


@dataclass(frozen=True)
class CategoricalSize:
    """A categorical field with `count` values, index 0 (padding, missing) and 1 (unseen) included."""

    count: int


@dataclass(frozen=True)
class NumericSize:
    """A numeric field, or a vector field of length `count`."""

    count: int = 1


FieldSize = CategoricalSize | NumericSize


class FieldEmbeddings(nn.Module):
    """One embedding a field: of a value, the mean of several values' embeddings, or a linear map of numbers.

    The embeddings of 'missing' and 'unseen' are initialized at zero. Numbers are mapped without a bias; vectors with a NaN are
    missing, which has an embedding of its own.

    >>> fields = FieldEmbeddings([CategoricalSize(5), CategoricalSize(7), NumericSize(), NumericSize(3)], width=4, init_std=0.1)
    >>> colour, words, price = torch.tensor([2, 4]), torch.tensor([[2, 3, 6], [5, 0, 0]]), torch.tensor([0.3, float("nan")])
    >>> fields([colour, words, price, torch.ones(2, 3)]).shape      # field, thing, width
    torch.Size([4, 2, 4])
    """

    def __init__(self, sizes: Sequence[FieldSize], width: int, init_std: float) -> None:
        super().__init__()
        self.sizes, self.width = tuple(sizes), width
        self.tables = nn.ParameterList(_table(size, width, init_std) for size in sizes)
        self.computed = nn.ModuleDict()
        """Computed embeddings that replace tables during training, by field index."""
        self.sparse_from: int | None = None
        """Tables with at least so many rows have sparse gradients; None: no table."""

    def replace_table(self, field: int, table: ComputedEmbedding) -> None:
        """Replace a field's table by a computed embedding, until `fold`."""
        self.computed[str(field)] = table
        self.tables[field] = nn.Parameter(self.tables[field].new_zeros(0), requires_grad=False)

    @torch.no_grad()
    def fold(self) -> None:
        """Replace computed embeddings by plain tables with the same values."""
        for field, table in self.computed.items():
            self.tables[int(field)] = nn.Parameter(table.table())  # type: ignore[operator]
        self.computed = nn.ModuleDict()

    def forward(self, values: Sequence[Tensor]) -> Float[Tensor, "field thing width"]:
        """`values[field]`: of names Int[thing] one value each, or Int[thing most] several, filled up with 0; of numbers
        Float[thing], or Float[thing number]."""
        return torch.stack([self._vectors(field, value) for field, value in enumerate(values)])

    def _vectors(self, field: int, value: Tensor) -> Float[Tensor, "thing width"]:
        if str(field) in self.computed:
            found: Tensor = self.computed[str(field)](value)
            return found
        table = self.tables[field]
        if not isinstance(self.sizes[field], CategoricalSize):
            return _mapped(value, table)
        return _embedded(value, table, sparse=self.sparse_from is not None and len(table) >= self.sparse_from)


def _table(size: FieldSize, width: int, init_std: float) -> Float[Tensor, "row width"]:
    if isinstance(size, NumericSize):
        table = torch.randn(size.count + 1, width) * init_std
        table[:-1] *= max(size.count, 1) ** -0.5  # a long vector says as much at first as a number does
        return table
    table = torch.randn(size.count, width) * init_std
    table[:2] = 0
    return table


def _embedded(value: Tensor, table: Tensor, sparse: bool) -> Float[Tensor, "thing width"]:
    if value.ndim == 1:
        return functional.embedding(value, table, padding_idx=0, sparse=sparse)
    return functional.embedding_bag(value, table, mode="mean", padding_idx=0, sparse=sparse)


def _mapped(value: Tensor, table: Tensor) -> Float[Tensor, "thing width"]:
    numbers = value[:, None] if value.ndim == 1 else value
    known = ~numbers.isnan().any(dim=1, keepdim=True)
    mapped = torch.where(known, numbers, 0.0)
    if (
        len(table) == 2
    ):  # one number: a product is exact where a matrix product may round, whatever else is in the batch
        return mapped * table[0] + ~known * table[1]
    return mapped @ table[:-1] + ~known * table[-1]
