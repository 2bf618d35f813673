"""Decoupled LoRA: directions have unit norm, and the update of any number of tasks is one matrix."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from newcomer.nn.lora.decoupled_linear import AdaptedLinear
from newcomer.nn.lora.decoupled_lora import DecoupledLoRA, Sharing, _Folded, _squared_norm

WIDTH, RANKS = 6, (3, 2, 1)
SHARING: list[Sharing] = ["shared", "projection"]


class Net(nn.Module):
    """Two projections of different shapes, and a layer that is left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.between, self.value = nn.Linear(WIDTH, 8), nn.Linear(8, WIDTH), nn.Linear(WIDTH, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.value(torch.tanh(self.between(self.query(x))))
        return out


def made(sharing: Sharing, ranks: tuple[int, ...] = RANKS, leave_open: bool = True) -> tuple[Net, DecoupledLoRA]:
    """A network with tasks of these ranks, all moved away from where they start; the last is still open by default."""
    torch.manual_seed(0)
    net = Net().double().requires_grad_(False)
    bank = DecoupledLoRA(net, ["query", "value"], sharing)
    for task, rank in enumerate(ranks):
        bank.open(rank, torch.Generator().manual_seed(task))
        move(bank)
        if task < len(ranks) - 1 or not leave_open:
            bank.close()
    return net, bank


@torch.no_grad()
def move(bank: DecoupledLoRA) -> None:
    for parameter in [*bank.open_up, bank.magnitudes]:
        parameter += torch.randn_like(parameter)


def loop(bank: DecoupledLoRA, p: int) -> Tensor:
    """The update of projection p as the equation has it, task by task."""
    layer = bank._layers[p].frozen
    update = torch.zeros_like(layer.weight)
    column = 0 if bank.sharing == "shared" else p
    for task in range(bank.directions):
        up, down = bank.direction(task)[p]
        update = update + bank.magnitudes[task, column] * (up @ down)
    for up, down in zip(list(bank.open_up)[p : p + 1], list(bank.open_down)[p : p + 1], strict=True):
        update = update + bank.magnitudes[-1, column] * (up @ down)
    return update


def looped(net: Net, bank: DecoupledLoRA, x: Tensor) -> Tensor:
    """The slow twin of the network within `applied()`: frozen output plus each task's own products."""
    hidden = F.linear(x, net.query.frozen.weight, net.query.frozen.bias) + x @ loop(bank, 0).T  # type: ignore[arg-type,union-attr]
    hidden = torch.tanh(net.between(hidden))
    return hidden @ net.value.frozen.weight.T + hidden @ loop(bank, 1).T  # type: ignore[union-attr,operator]


@pytest.mark.parametrize("sharing", SHARING)
def test_the_folded_update_is_the_loop_over_tasks_in_outputs_and_gradients(sharing: Sharing) -> None:
    net, bank = made(sharing)
    x = torch.randn(4, WIDTH, dtype=torch.float64)
    parameters = [*bank.trainable()["factors"], *bank.trainable()["magnitudes"]]
    with bank.applied():
        fast = net(x)
        fast_gradients = torch.autograd.grad(fast.square().sum(), parameters)
    slow = looped(net, bank, x)
    slow_gradients = torch.autograd.grad(slow.square().sum(), parameters)
    torch.testing.assert_close(fast, slow)
    for quick, plain in zip(fast_gradients, slow_gradients, strict=True):
        torch.testing.assert_close(quick, plain)


@pytest.mark.parametrize("sharing", SHARING)
def test_directions_have_unit_norm(sharing: Sharing) -> None:
    _, bank = made(sharing, leave_open=False)
    for task in range(bank.directions):
        norms = torch.stack([torch.linalg.norm(up @ down) for up, down in bank.direction(task)])
        found = torch.linalg.norm(norms) if sharing == "shared" else norms
        torch.testing.assert_close(found, torch.ones_like(found))


@pytest.mark.parametrize("sharing", SHARING)
def test_closing_a_task_changes_no_output(sharing: Sharing) -> None:
    net, bank = made(sharing)
    x = torch.randn(4, WIDTH, dtype=torch.float64)
    with bank.applied():
        before = net(x)
    bank.close()
    with bank.applied():
        after = net(x)
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sharing", SHARING)
def test_a_new_task_changes_nothing_to_the_bit_until_it_learns(sharing: Sharing) -> None:
    _, bank = made(sharing, leave_open=False)
    before = bank.update(0)
    bank.open(2, torch.Generator().manual_seed(9))
    assert torch.equal(bank.update(0), before)


@pytest.mark.parametrize("sharing", SHARING)
def test_a_task_that_never_moved_closes_to_zero_and_not_to_nan(sharing: Sharing) -> None:
    _, bank = made(sharing, leave_open=False)
    before = bank.update(1)
    bank.open(2, torch.Generator().manual_seed(9))
    bank.close()
    assert bank.magnitudes[-1].eq(0).all()
    assert all(up.eq(0).all() and down.isfinite().all() for up, down in bank.direction(bank.directions - 1))
    assert torch.equal(bank.update(1), before)


def test_a_projection_that_never_moved_closes_to_zero_beside_one_that_did() -> None:
    _, bank = made("projection", ranks=(2,))
    with torch.no_grad():
        bank.open_up[0].zero_()
    bank.close()
    norms = [torch.linalg.norm(up @ down).item() for up, down in bank.direction(0)]
    assert norms == pytest.approx([0, 1])
    assert bank.magnitudes[0, 0] == 0
    assert bank.magnitudes[0, 1] != 0


@pytest.mark.parametrize("sharing", SHARING)
def test_the_rank_of_the_update_is_at_most_the_sum_of_ranks(sharing: Sharing) -> None:
    for closed in range(1, len(RANKS) + 1):
        _, bank = made(sharing, RANKS[:closed], leave_open=False)
        assert torch.linalg.matrix_rank(bank.update(0)) <= sum(RANKS[:closed])
        assert bank.ranks == list(RANKS[:closed])


@given(out=st.integers(1, 12), into=st.integers(1, 12), rank=st.integers(1, 12), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_norm_by_gram_matrices_is_that_of_the_product(out: int, into: int, rank: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    up = torch.randn(out, rank, generator=draw, dtype=torch.float64)
    down = torch.randn(rank, into, generator=draw, dtype=torch.float64)
    torch.testing.assert_close(_squared_norm(up, down).sqrt(), torch.linalg.norm(up @ down))


@pytest.mark.parametrize("sharing", SHARING)
def test_closed_directions_keep_their_bits_while_magnitudes_learn(sharing: Sharing) -> None:
    net, bank = made(sharing)
    x = torch.randn(4, WIDTH, dtype=torch.float64)
    closed = [factor.clone() for task in range(bank.directions) for pair in bank.direction(task) for factor in pair]
    start = bank.magnitudes.detach().clone()
    optimizer = torch.optim.Adam([p for group in bank.trainable().values() for p in group], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        with bank.applied():
            net(x).square().sum().backward()
        optimizer.step()
    now = [factor for task in range(bank.directions) for pair in bank.direction(task) for factor in pair]
    assert all(torch.equal(a, b) for a, b in zip(closed, now, strict=True))
    assert bank.magnitudes.ne(start).all()


def test_restored_tasks_give_the_same_update_to_the_bit() -> None:
    _, bank = made("shared", leave_open=False)
    other = DecoupledLoRA(Net().double(), ["query", "value"])
    for task in range(bank.directions):
        other.append(bank.direction(task))
    other.set_magnitudes(bank.magnitudes)
    assert all(torch.equal(bank.update(p), other.update(p)) for p in range(2))


def test_outside_of_applied_the_model_is_unchanged() -> None:
    torch.manual_seed(0)
    plain = Net().double()
    x = torch.randn(4, WIDTH, dtype=torch.float64)
    before = plain(x)
    bank = DecoupledLoRA(plain, ["query", "value"])
    bank.open(2, torch.Generator().manual_seed(0))
    move(bank)
    assert torch.equal(plain(x), before)
    with bank.applied():
        assert not torch.allclose(plain(x), before)
    assert torch.equal(plain(x), before)


def test_the_fold_is_formed_again_when_anything_changes() -> None:
    net, bank = made("shared")
    x = torch.randn(4, WIDTH, dtype=torch.float64)

    def merged() -> Tensor:
        with torch.no_grad(), bank.applied():
            return net(x)  # type: ignore[no-any-return]

    first, kept = merged(), bank._folded
    assert torch.equal(merged(), first)
    assert bank._folded is kept
    changes: list[Callable[[], None]] = [
        partial(move, bank),
        bank.close,
        partial(bank.open, 2, torch.Generator()),
        bank.clear,
    ]
    for change in changes:
        change()
        with bank.applied():
            wanted = net(x)
        torch.testing.assert_close(merged(), wanted)


def test_where_weights_are_shards_outside_of_a_pass_nothing_is_folded_and_a_snapshot_is_of_its_moment() -> None:
    net, bank = made("shared")
    x = torch.randn(4, WIDTH, dtype=torch.float64)

    @torch.no_grad()
    def output(within: AbstractContextManager[None]) -> Tensor:
        with within:
            found: Tensor = net(x)
            return found

    folded, bank._folded = output(bank.applied()), None
    for layer in bank._layers:
        layer.frozen.weight.placements = ()  # type: ignore[attr-defined]  # as a tensor of torch's that is spread over processes
    kept = bank.snapshot()
    torch.testing.assert_close(output(bank.applied()), folded)
    move(bank)
    assert not torch.allclose(output(bank.applied()), folded)
    torch.testing.assert_close(output(kept()), folded)
    assert bank._folded is None


@pytest.mark.parametrize("rows", [3, 12, 20, 28, 33])
def test_a_column_that_is_changed_behind_torchs_back_forms_the_fold_again(rows: int) -> None:
    """The entries that are compared reach every column, for any number of rows."""
    whole, part = torch.zeros(2), torch.zeros(rows, 8)
    for column in range(8):
        fold = _Folded.of([whole, part], list)
        part.data[:, column] += 1
        assert not fold.is_valid([whole, part])


def test_merging_learning_on_and_merging_again_is_never_merging() -> None:
    found = []
    for asked in (True, False):
        net, bank = made("shared", ranks=(2,), leave_open=False)
        x = torch.randn(4, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        for task in range(2):
            if asked:
                with torch.no_grad(), bank.applied():
                    net(x)
            bank.open(2, torch.Generator().manual_seed(task))
            torch.manual_seed(task)
            move(bank)
            bank.close()
        with torch.no_grad(), bank.applied():
            found.append(net(x))
    assert torch.equal(*found)


def test_a_snapshot_computes_what_was_before_whatever_is_learned() -> None:
    net, bank = made("shared", leave_open=False)
    x = torch.randn(4, WIDTH, dtype=torch.float64)
    with torch.no_grad(), bank.applied():
        before = net(x)
    snapshot = bank.snapshot()
    bank.open(2, torch.Generator())
    move(bank)
    bank.close()
    with torch.no_grad():
        with snapshot():
            assert torch.equal(net(x), before)
        with bank.applied():
            assert not torch.allclose(net(x), before)


def test_an_error_within_applied_leaves_the_model_unchanged() -> None:
    net, bank = made("shared")
    with pytest.raises(ZeroDivisionError), bank.applied():
        raise ZeroDivisionError
    assert all(layer.override is None for layer in net.modules() if isinstance(layer, AdaptedLinear))


def test_two_banks_share_one_model() -> None:
    net, first = made("shared")
    x = torch.randn(4, WIDTH, dtype=torch.float64)
    with first.applied():
        alone = net(x)
    second = DecoupledLoRA(net, ["query", "value"])
    second.open(2, torch.Generator().manual_seed(5))
    move(second)
    with second.applied():
        other = net(x)
    with first.applied():
        assert torch.equal(net(x), alone)
    assert not torch.allclose(other, alone)


def test_no_parameter_of_the_model_belongs_to_the_bank() -> None:
    net, bank = made("shared")
    owned = {id(p) for p in net.parameters()}
    assert not owned & {id(p) for p in bank.parameters()}


def test_only_linear_layers_are_adapted() -> None:
    with pytest.raises(TypeError, match="dropout is a Dropout, not a linear layer"):
        DecoupledLoRA(nn.ModuleDict({"dropout": nn.Dropout()}), ["dropout"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bank_follows_the_type_of_the_frozen_weights(dtype: torch.dtype) -> None:
    bank = DecoupledLoRA(Net().to(dtype), ["query"])
    bank.open(2, torch.Generator().manual_seed(0))
    move(bank)
    bank.close()
    assert {t.dtype for t in (bank.magnitudes, bank.update(0), *bank.direction(0)[0])} == {dtype}
