"""The merged linear layer: its gradients equal those of the sum of terms, by both ways of computing them."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from newcomer.nn.lora import decoupled_linear
from newcomer.nn.lora.decoupled_linear import _Multiply, low_rank_is_cheaper

WAYS = {"thin": True, "dense": False}


def parts(dtype: torch.dtype = torch.float64, closed: int = 3, opened: int = 2) -> tuple[Tensor, ...]:
    """x, W0, bias, scales, open factors, closed factors."""
    draw = torch.Generator().manual_seed(0)
    sizes = ((2, 4, 5), (6, 5), (6,), (closed + opened,), (6, opened), (opened, 5), (6, closed), (closed, 5))
    return tuple(torch.randn(*size, generator=draw, dtype=dtype) for size in sizes)


def fast(x: Tensor, frozen: Tensor, bias: Tensor, scales: Tensor, *factors: Tensor) -> Tensor:
    return _Multiply.apply(x, frozen, bias, scales, *factors)  # type: ignore[no-any-return,no-untyped-call]


def slow(x: Tensor, frozen: Tensor, bias: Tensor, scales: Tensor, *factors: Tensor) -> Tensor:
    """Term by term."""
    open_up, open_down, up, down = factors
    out = F.linear(x, frozen, bias)
    for i, (b, a) in enumerate(itertools.chain(zip(up.T, down, strict=True), zip(open_up.T, open_down, strict=True))):
        out = out + scales[i] * (x @ a)[..., None] * b
    return out


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("closed", "opened"), [(3, 2), (0, 2), (3, 0)])
def test_outputs_and_gradients_are_those_of_the_loop_over_terms(
    way: str, closed: int, opened: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoupled_linear, "low_rank_is_cheaper", lambda *_: WAYS[way])
    found = []
    for function in (fast, slow):
        given = parts(closed=closed, opened=opened)
        trained = [given[i].requires_grad_() for i in ((0, 3, 4, 5) if opened else (0, 3))]
        out = function(*given)
        found.append((out, *torch.autograd.grad(out.square().sum(), trained)))
    for quick, plain in zip(*found, strict=True):
        torch.testing.assert_close(quick, plain)


@pytest.mark.parametrize("way", WAYS)
def test_gradients_are_those_of_finite_differences(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoupled_linear, "low_rank_is_cheaper", lambda *_: WAYS[way])
    given = [t.requires_grad_(i in (0, 3, 4, 5)) for i, t in enumerate(parts())]
    assert torch.autograd.gradcheck(fast, tuple(given))


@pytest.mark.parametrize("way", WAYS)
def test_mixed_precision_multiplies_in_the_lower_one_and_keeps_gradients_in_the_higher(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoupled_linear, "low_rank_is_cheaper", lambda *_: WAYS[way])
    given = parts(torch.float32)
    trained = [given[i].requires_grad_() for i in (0, 3, 4, 5)]
    with torch.autocast("cpu", torch.bfloat16):
        out = fast(*given)
    assert out.dtype == torch.bfloat16
    rough = torch.autograd.grad(out.float().square().sum(), trained)
    exact = torch.autograd.grad(slow(*given).square().sum(), trained)
    for low, high in zip(rough, exact, strict=True):
        assert low.dtype == torch.float32
        assert (low - high).norm() < 0.05 * high.norm()


def test_backward_passes_keep_the_frozen_weight_and_none_that_is_merged() -> None:
    given, kept = parts(), list[Tensor]()
    given[0].requires_grad_()
    given[3].requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):  # type: ignore[func-returns-value]
        fast(*given)
    assert [tensor.data_ptr() for tensor in kept if tensor.shape == given[1].shape] == [given[1].data_ptr()]


def test_inputs_that_need_no_gradient_get_none() -> None:
    given = parts()
    given[3].requires_grad_()
    fast(*given).sum().backward()  # type: ignore[no-untyped-call]
    assert given[0].grad is None
    assert given[3].grad is not None


def test_more_terms_make_the_dense_way_cheaper_and_wider_layers_the_thin_one() -> None:
    assert low_rank_is_cheaper(tokens=4000, rank=200, width_in=768, width_out=768)
    assert not low_rank_is_cheaper(tokens=4000, rank=2000, width_in=768, width_out=768)
    assert not low_rank_is_cheaper(tokens=4000, rank=10, width_in=192, width_out=192)
