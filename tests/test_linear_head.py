"""The trained linear head grows by new rows, and old rows keep their bits; golden losses."""

import torch

from newcomer.nn.heads.linear_layer import LinearHead


def test_a_new_head_has_no_class() -> None:
    head = LinearHead(3)
    assert head.classes == 0
    assert head(torch.ones(2, 3)).shape == (2, 0)


def test_growing_keeps_the_bits_of_old_rows_and_starts_new_ones_at_zero() -> None:
    head = LinearHead(3)
    head.set(torch.randn(2, 3), torch.randn(2))
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    head.grow(3)
    assert head.classes == 5
    assert torch.equal(head.weight[:2], weight)
    assert torch.equal(head.bias[:2], bias)
    assert not head.weight[2:].any()
    assert not head.bias[2:].any()


def test_old_logits_keep_their_bits_when_the_head_grows() -> None:
    head = LinearHead(3)
    head.set(torch.randn(2, 3), torch.randn(2))
    x = torch.randn(4, 3)
    before = head(x)
    head.grow(1)
    assert torch.equal(head(x)[:, :2], before)


def test_rows_of_zeros_learn_under_a_loss_over_the_new_classes_alone() -> None:
    head = LinearHead(3)
    head.grow(2)
    head.set(torch.randn(2, 3), torch.randn(2))
    head.grow(2)
    loss = torch.nn.functional.cross_entropy(head(torch.randn(4, 3))[:, 2:], torch.tensor([0, 1, 0, 0]))
    weight, bias = torch.autograd.grad(loss, [head.weight, head.bias])
    assert not weight[:2].any()
    assert not bias[:2].any()
    assert weight[2:].ne(0).all()
    assert bias[2:].ne(0).all()
