"""Embeddings of categorical, multi-valued, numeric and vector fields in one width."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from newcomer.nn.ctr.computed_embeddings import ComputedEmbedding
from newcomer.nn.ctr.row_shards import RowShard, lookup, own_rows
from newcomer.shapes import Float, Tensor

BLOCK = 2**20
"""Numbers that are drawn at once."""


@dataclass(frozen=True)
class CategoricalSize:
    """A categorical field with `count` values, index 0 (padding, missing) and 1 (unseen) included.

    `is_sharded`: the rows of its table are spread over the processes of a group; see `nn.ctr.row_shards`.
    """

    count: int
    is_sharded: bool = False


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
    >>> fields([colour, words, price, torch.ones(2, 3)]).shape      # thing, field, width
    torch.Size([2, 4, 4])
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

    @property
    def is_sharded(self) -> bool:
        """Whether some table is not whole in this process."""
        return any(isinstance(table, RowShard) for table in self.tables)

    def vector_maps(self) -> Iterator[tuple[Tensor, int]]:
        """The maps of vector fields, each with the length of its vectors."""
        for table, size in zip(self.tables, self.sizes, strict=True):
            if isinstance(size, NumericSize) and size.count > 1:
                yield table, size.count

    def forward(self, values: Sequence[Tensor]) -> Float[Tensor, "thing field width"]:
        """`values[field]`: of names Int[thing] one value each, or Int[thing most] several, filled up with 0; of numbers
        Float[thing], or Float[thing number]."""
        vectors = [self.vectors(field, value) for field, value in enumerate(values)]
        return torch.cat(vectors, dim=1).view(-1, len(vectors), self.width)

    def vectors(self, field: int, value: Tensor) -> Float[Tensor, "thing width"]:
        """Embeddings of one field; see `forward`."""
        if str(field) in self.computed:
            found: Tensor = self.computed[str(field)](value)
            return found
        table, size = self.tables[field], self.sizes[field]
        if not isinstance(size, CategoricalSize):
            return _mapped(value, table)
        sparse = self.sparse_from is not None and size.count >= self.sparse_from
        if not isinstance(table, RowShard):
            return _embedded(value, table, sparse)
        # the rows of this batch are a table of its own, with the padding at 0
        ids, at = torch.unique(torch.cat([value.new_zeros(1), value.flatten()]), return_inverse=True)
        return _embedded(at[1:].view_as(value), lookup(table, ids, sparse), sparse=False)


def _table(size: FieldSize, width: int, init_std: float) -> Float[Tensor, "row width"]:
    if isinstance(size, CategoricalSize) and size.is_sharded:
        return _shard(size.count, width, init_std)
    if isinstance(size, NumericSize):
        table = torch.randn(size.count + 1, width) * init_std
        table[:-1] *= max(size.count, 1) ** -0.5  # a long vector says as much at first as a number does
        return table
    table = torch.randn(size.count, width) * init_std
    table[:2] = 0
    return table


def _shard(count: int, width: int, init_std: float) -> RowShard:
    """This process's rows of the table that `_table` would make, which is drawn in blocks and never whole."""
    own = own_rows(count)
    rows, done = torch.empty(len(own) * width), 0
    for size in normal_blocks(count * width):
        block = torch.randn(size) * init_std
        begin, end = max(own.start * width, done), min(own.stop * width, done + size)
        if begin < end:
            rows[begin - own.start * width : end - own.start * width] = block[begin - done : end - done]
        done += size
    shard = rows.view(len(own), width)
    shard[: max(2 - own.start, 0)] = 0
    return RowShard(shard, count)


def normal_blocks(count: int) -> Iterator[int]:
    """Sizes of blocks that together have the same normal draws as `count` numbers at once: multiples of 16, the last one longer.

    >>> torch.manual_seed(0).initial_seed(), (blocks := [torch.randn(size) for size in normal_blocks(3 * BLOCK + 1)])[0].shape
    (0, torch.Size([1048576]))
    >>> torch.manual_seed(0).initial_seed(), torch.equal(torch.cat(blocks), torch.randn(3 * BLOCK + 1))
    (0, True)
    """
    while count >= 2 * BLOCK:
        yield BLOCK
        count -= BLOCK
    yield count


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
