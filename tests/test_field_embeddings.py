"""Embeddings of fields of every kind."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from newcomer.items.training.pretraining import parameter_groups
from newcomer.nn.ctr.field_embeddings import CategoricalSize, FieldEmbeddings, NumericSize
from newcomer.nn.optim.row_adam import RowAdam


def made() -> FieldEmbeddings:
    torch.manual_seed(0)
    return FieldEmbeddings(
        [CategoricalSize(5), CategoricalSize(6), NumericSize(), NumericSize(4)], width=3, init_std=1.0
    )


def values(**given: torch.Tensor) -> list[torch.Tensor]:
    """Of two things each, nothing where not given."""
    none = {
        "one": torch.zeros(2, dtype=torch.int64),
        "several": torch.zeros(2, 1, dtype=torch.int64),
        "number": torch.zeros(2),
        "vector": torch.zeros(2, 4),
    }
    return list((none | given).values())


def test_several_values_are_the_mean_of_their_embeddings_and_none_is_zero() -> None:
    fields = made()
    words = torch.tensor([[2, 4, 5], [0, 0, 0]])
    found = fields(values(several=words))[:, 1]
    table = fields.tables[1]
    torch.testing.assert_close(found, torch.stack([table[[2, 4, 5]].mean(dim=0), torch.zeros(3)]))


def test_a_number_is_a_multiple_of_a_vector_and_a_missing_one_has_its_own() -> None:
    fields = made()
    found = fields(values(number=torch.tensor([2.0, float("nan")])))[:, 2]
    torch.testing.assert_close(found, torch.stack([2 * fields.tables[2][0], fields.tables[2][1]]))
    found.sum().backward()
    assert fields.tables[2].grad is not None
    assert fields.tables[2].grad.isfinite().all()


def test_a_vector_is_mapped_linearly() -> None:
    fields = made()
    one, other = torch.randn(2, 4), torch.randn(2, 4)
    map_ = fields.tables[3][:-1]
    slow = torch.stack([sum((x * row for x, row in zip(thing, map_, strict=True)), torch.zeros(3)) for thing in one])
    torch.testing.assert_close(fields(values(vector=one))[:, 3], slow)
    together = fields(values(vector=2 * one - other))[:, 3]
    torch.testing.assert_close(together, 2 * fields(values(vector=one))[:, 3] - fields(values(vector=other))[:, 3])


def test_a_vector_of_which_a_number_is_missing_is_not_known() -> None:
    fields = made()
    vector = torch.ones(2, 4)
    vector[0, 2] = float("nan")
    found = fields(values(vector=vector))[:, 3]
    torch.testing.assert_close(found[0], fields.tables[3][-1])
    found.sum().backward()
    assert fields.tables[3].grad is not None
    torch.testing.assert_close(fields.tables[3].grad, torch.ones(5, 3))  # each row of the map once, by the known one


def test_a_vector_of_one_is_a_number() -> None:
    torch.manual_seed(0)
    fields = FieldEmbeddings([NumericSize(), NumericSize(1)], width=3, init_std=1.0)
    with torch.no_grad():
        fields.tables[1].copy_(fields.tables[0])
    number = torch.tensor([0.7, float("nan"), -2.0])
    found = fields([number, number[:, None]])
    assert torch.equal(found[:, 0], found[:, 1])


def test_a_long_vector_has_the_initial_scale_of_a_number() -> None:
    torch.manual_seed(0)
    fields = FieldEmbeddings([NumericSize(), NumericSize(400)], width=2000, init_std=0.1)
    number, vector = fields([torch.ones(1), torch.randn(1, 400)])[0]
    assert 0.7 < vector.std() / number.std() < 1.4


def test_missing_and_unseen_values_start_at_zero() -> None:
    found = made()(values(one=torch.tensor([0, 1]), several=torch.tensor([[0], [1]])))
    assert not found[:, :2].any()


def test_padding_is_never_trained() -> None:
    fields = made()
    given = values(one=torch.tensor([0, 2]), several=torch.tensor([[2, 0], [3, 0]]))
    fields(given).square().sum().backward()
    for table in list(fields.tables)[:2]:
        assert table.grad is not None
        assert not table.grad[0].any()
        assert table.grad[2].any()


@pytest.mark.parametrize("length", [2, 64])
def test_a_vector_of_equal_numbers_learns_as_one_number_does(length: int) -> None:
    """Adam would move its image `length` times as far."""
    number, vector = (FieldEmbeddings([NumericSize(size)], width=3, init_std=1.0) for size in (1, length))
    with torch.no_grad():
        vector.tables[0].copy_(torch.cat([number.tables[0][:1].expand(length, -1) / length, number.tables[0][1:]]))
    given, aims = torch.randn(20), torch.randn(20, 3)
    for fields, value in ((number, given), (vector, given[:, None].expand(-1, length))):
        network: Any = SimpleNamespace(item_fields=fields, row_fields=FieldEmbeddings([], 3, 1.0))
        optimizer = RowAdam(parameter_groups(network, fields.parameters()), 0.1)
        for _ in range(5):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / group["length"]
            optimizer.zero_grad()
            (fields([value])[0] - aims).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(vector([given[:, None].expand(-1, length)]), number([given]), rtol=1e-4, atol=1e-5)
