"""Fields of any kind become vectors."""

import torch

from newcomer.nn.field_embeddings import FieldEmbeddings


def made() -> FieldEmbeddings:
    torch.manual_seed(0)
    return FieldEmbeddings([5, 6, 0], width=3, deviation=1.0)


def test_several_values_are_the_mean_of_their_embeddings_and_none_is_zero() -> None:
    fields = made()
    words = torch.tensor([[2, 4, 5], [3, 0, 0], [0, 0, 0]])
    found = fields([torch.tensor([2, 3, 4]), words, torch.zeros(3)])[1]
    table = fields.tables[1]
    torch.testing.assert_close(found, torch.stack([table[[2, 4, 5]].mean(dim=0), table[3], torch.zeros(3)]))


def test_a_number_is_a_multiple_of_a_vector_and_a_missing_one_has_its_own() -> None:
    fields = made()
    values = torch.tensor([2.0, float("nan")])
    found = fields([torch.tensor([2, 2]), torch.tensor([[2], [2]]), values])[2]
    torch.testing.assert_close(found, torch.stack([2 * fields.tables[2][0], fields.tables[2][1]]))
    found.sum().backward()
    assert fields.tables[2].grad is not None
    assert fields.tables[2].grad.isfinite().all()


def test_no_value_and_an_unseen_one_say_nothing_at_first() -> None:
    fields = made()
    found = fields([torch.tensor([0, 1]), torch.tensor([[0], [1]]), torch.zeros(2)])
    assert not found[:2].any()


def test_padding_is_never_trained() -> None:
    fields = made()
    fields([torch.tensor([0, 2]), torch.tensor([[2, 0], [3, 0]]), torch.zeros(2)]).square().sum().backward()
    for table in list(fields.tables)[:2]:
        assert table.grad is not None
        assert not table.grad[0].any()
        assert table.grad[2].any()
