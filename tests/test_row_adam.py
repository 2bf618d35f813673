"""Adam row by row is dense Adam up to what its docstring says, and touches only the rows that have gradients."""

from collections.abc import Sequence

import polars as pl
import pytest
import torch
from torch import Tensor, nn

from newcomer.data.schema import Field, Schema
from newcomer.items.methods.emerg import EmerG
from newcomer.nn.ctr.field_embeddings import CategoricalSize, FieldEmbeddings
from newcomer.nn.optim.row_adam import RowAdam

ROWS, WIDTH = 40, 4


def train(sparse: bool, batches: Sequence[Tensor], rate: float = 0.05, **settings: float) -> nn.Embedding:
    """Regression of a target for each row by an embedding."""
    torch.manual_seed(0)
    table = nn.Embedding(ROWS, WIDTH, sparse=sparse)
    target = torch.randn(ROWS, WIDTH)
    kind = RowAdam if sparse else torch.optim.Adam
    optimizer = kind(table.parameters(), rate, **settings)  # type: ignore[arg-type]
    for batch in batches:
        optimizer.zero_grad()
        (table(batch) - target[batch]).square().mean().backward()
        optimizer.step()
    if isinstance(optimizer, RowAdam):
        optimizer.catch_up()
    return table


def random_batches(steps: int, size: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randint(ROWS, (size,), generator=draw) for _ in range(steps)]


def test_with_all_rows_in_every_batch_it_is_dense_adam() -> None:
    batches = [torch.arange(ROWS)] * 50
    found, wanted = train(True, batches, weight_decay=1e-2), train(False, batches, weight_decay=1e-2)
    torch.testing.assert_close(found.weight, wanted.weight)


@pytest.mark.parametrize("size", [2, 8])
def test_rows_that_are_seen_now_and_then_end_where_dense_adam_has_them(size: int) -> None:
    """To a fiftieth of the way that they went."""
    batches = random_batches(2000, size)
    found, wanted = train(True, batches, 1e-3), train(False, batches, 1e-3)
    start = train(False, [], 1e-3)
    gone = (wanted.weight - start.weight).norm()
    assert gone > 1
    assert (found.weight - wanted.weight).norm() < 0.02 * gone


def test_momentum_is_spent_after_the_last_gradient() -> None:
    """Without what is made up for it would end elsewhere."""
    once = [torch.tensor([3])] + [torch.tensor([5])] * 200
    found, wanted, start = train(True, once), train(False, once), train(False, [])
    moved = wanted.weight[3] - start.weight[3]
    torch.testing.assert_close(
        found.weight[3] - start.weight[3], moved, rtol=0.35, atol=0
    )  # the bias corrections change most here
    assert moved.abs().min() > 2 * 0.05


def test_rows_without_gradients_do_not_move_and_have_no_momentum() -> None:
    found, start = train(True, [torch.tensor([3, 4])] * 10), train(False, [])
    others = [row for row in range(ROWS) if row not in (3, 4)]
    assert torch.equal(found.weight[others], start.weight[others])


def test_it_goes_on_from_its_saved_state() -> None:
    batches = random_batches(60, 4)
    whole = train(True, batches)
    torch.manual_seed(0)
    table, target = nn.Embedding(ROWS, WIDTH, sparse=True), torch.randn(ROWS, WIDTH)
    optimizer = RowAdam(table.parameters(), 0.05)
    for number, batch in enumerate(batches):
        if number == 30:
            other = RowAdam(table.parameters(), 0.05)
            other.load_state_dict(optimizer.state_dict())
            optimizer = other
        optimizer.zero_grad()
        (table(batch) - target[batch]).square().mean().backward()
        optimizer.step()
    optimizer.catch_up()
    assert torch.equal(table.weight, whole.weight)


@pytest.mark.parametrize("value", [torch.tensor([2, 4, 4]), torch.tensor([[2, 3, 0], [4, 0, 0]])])
def test_sparse_gradients_of_tables_are_the_dense_ones(value: Tensor) -> None:
    """Of one value and of several, padded."""
    found = []
    for sparse_from in (None, 1):
        torch.manual_seed(0)
        fields = FieldEmbeddings([CategoricalSize(6)], WIDTH, 0.1)
        fields.sparse_from = sparse_from
        (fields([value]) ** 2).sum().backward()
        gradient = fields.tables[0].grad
        assert gradient is not None
        assert gradient.is_sparse == (sparse_from is not None)
        found.append(gradient.to_dense() if gradient.is_sparse else gradient)
    torch.testing.assert_close(found[0], found[1])


def test_no_gradient_of_a_table_remains_and_meta_learning_of_the_rule_makes_none() -> None:
    """One of a million users would be as large as the table."""
    rows = range(200)
    log = pl.DataFrame(
        {
            "item": [n % 10 for n in rows],
            "user": [n % 7 for n in rows],
            "label": [int(n * n % 3 == 1) for n in rows],
            "time": rows,
            "genre": [n % 10 % 3 for n in rows],
        }
    )
    learner = EmerG(Schema("item", "user", fields=(Field("genre", "item"),)), pretrain_epochs=1, meta_epochs=1).learn(
        log
    )
    assert learner.network.scales["bias"].grad is not None
    fields = nn.ModuleList([learner.network.item_fields, learner.network.row_fields])
    assert all(table.requires_grad and table.grad is None for table in fields.parameters())
