"""Embedding tables whose rows are spread over the processes of a group: each holds, and trains, a share of them.

The rows lie in blocks, like those of DTensor's `Shard(0)` and of TorchRec's row-wise sharding: of n rows process r of R holds
r · ⌈n / R⌉ to (r + 1) · ⌈n / R⌉ − 1. `lookup` sends ids to the processes that hold their rows, and gets vectors; its backward pass
sends gradients there, so that a row's owner has the sum over all processes. Each is collective: all processes call it, in the same
order.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as group
from torch.autograd.function import once_differentiable

from newcomer.shapes import Float, Int

BLOCK = 2**16
"""Rows that are sent at once when the first process reads a whole table."""

DONE = -1


class RowShard(nn.Parameter):
    """This process's rows of a table of `total` rows, `first` of which lie before them."""

    total: int
    first: int
    number: int
    """Among those that are `served`."""

    def __new__(cls, rows: Tensor, total: int) -> "RowShard":
        shard: RowShard = super().__new__(cls, rows)
        shard.total, shard.first = total, own_rows(total).start
        return shard

    def __deepcopy__(self, memo: dict[int, Any]) -> "RowShard":
        memo[id(self)] = copy = type(self)(self.detach().clone(), self.total)
        return copy

    @property
    def whole_shape(self) -> tuple[int, ...]:
        """Shape of the whole table."""
        return (self.total, *self.shape[1:])

    def row_blocks(self) -> Iterator[Tensor]:
        """All rows in order, some at a time; in the first process, within `served`."""
        for rank in range(group.get_world_size()):
            rows = rows_of_rank(self.total, rank)
            for begin in range(0, len(rows), BLOCK):
                yield _ask(self, rank, begin, min(begin + BLOCK, len(rows)))


def rows_of_rank(total: int, rank: int) -> range:
    """The rows of a table that this process of the group holds."""
    most = -(-total // group.get_world_size())
    return range(min(rank * most, total), min((rank + 1) * most, total))


def own_rows(total: int) -> range:
    """The rows of a table that this process holds."""
    return rows_of_rank(total, group.get_rank())


def shards_of(tensors: Mapping[str, Tensor]) -> list[RowShard]:
    """Those of the tensors that are shards, by name: in the same order in all processes."""
    return [tensors[name] for name in sorted(tensors) if isinstance(tensors[name], RowShard)]  # type: ignore[misc]


def lookup(table: RowShard, ids: Int[Tensor, " row"], sparse: bool = False) -> Float[Tensor, "row width"]:
    """These rows of the whole table; `ids` are distinct and sorted. `sparse`: the gradient is a sparse tensor of rows."""
    found: Tensor = _Lookup.apply(table, ids, table.total, sparse)  # type: ignore[no-untyped-call]
    return found


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, ids: Tensor, total: int, sparse: bool) -> Tensor:
        ranks, own = range(group.get_world_size()), own_rows(total)
        begins = torch.tensor([rows_of_rank(total, rank).start for rank in ranks], device=ids.device)
        ends = torch.cat([torch.searchsorted(ids, begins[1:]), begins.new_tensor([len(ids)])])
        sent = ends.diff(prepend=begins.new_zeros(1))
        received = torch.empty_like(sent)
        group.all_to_all_single(received, sent)
        ctx.sent, ctx.received, ctx.sparse, ctx.shape = sent.tolist(), received.tolist(), sparse, rows.shape
        asked = ids.new_empty(sum(ctx.received))
        group.all_to_all_single(asked, ids, ctx.received, ctx.sent)
        ctx.asked = asked - own.start
        found = rows.new_empty(len(ids), *rows.shape[1:])
        group.all_to_all_single(found, rows[ctx.asked], ctx.sent, ctx.received)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        values = gradient.new_empty(len(ctx.asked), *ctx.shape[1:])
        group.all_to_all_single(values, gradient.contiguous(), ctx.received, ctx.sent)
        if ctx.sparse:
            rows = torch.sparse_coo_tensor(ctx.asked[None], values, ctx.shape, check_invariants=False)
        else:
            rows = gradient.new_zeros(ctx.shape).index_add_(0, ctx.asked, values)
        return rows, None, None, None


@contextmanager
def served(shards: Sequence[RowShard], is_first: bool) -> Iterator[None]:
    """Within, the first process may read whole tables (`row_blocks`): the others send their rows before they go on."""
    for number, shard in enumerate(shards):
        shard.number = number
    if shards and not is_first:
        while (order := _broadcast(shards[0], [0] * 4))[0] != DONE:
            number, rank, begin, end = order
            if rank == group.get_rank():
                group.send(shards[number].detach()[begin:end].contiguous(), 0)
    try:
        yield
    finally:
        if shards and is_first:
            _broadcast(shards[0], [DONE] * 4)


def _ask(shard: RowShard, rank: int, begin: int, end: int) -> Tensor:
    if rank == 0:
        return shard.detach()[begin:end]
    _broadcast(shard, [shard.number, rank, begin, end])
    rows = shard.detach().new_empty(end - begin, *shard.shape[1:])
    group.recv(rows, rank)
    return rows


def _broadcast(like: Tensor, order: list[int]) -> list[int]:
    numbers = torch.tensor(order, device=like.device)
    group.broadcast(numbers, 0)
    found: list[int] = numbers.tolist()
    return found
