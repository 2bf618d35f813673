"""SD-LoRA's variants: rank schedules (RR), and distillation of directions that older ones explain (KD)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from newcomer.classes.methods.cl_lora import CLLoRA
from newcomer.classes.methods.ease import EASE
from newcomer.classes.methods.inf_lora import InfLoRA
from newcomer.classes.methods.ranpac import RanPAC
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.classes.methods.sequential_lora import SequentialLoRA
from newcomer.data.examples import Examples
from newcomer.errors import DataWarning, SettingError
from newcomer.nn.lora.decoupled_lora import DecoupledLoRA, Sharing

SHARING: list[Sharing] = ["shared", "projection"]
Folder = Callable[[str], Path]


class Net(nn.Module):
    """Two frozen projections side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(6, 6, bias=False), nn.Linear(6, 5, bias=False)
        self.double().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.query(x), self.value(x)], 1)


def spans(seed: int, rank: int = 2) -> list[Tensor]:
    """A low-rank change of each projection, whose rows and columns are another part of space for another seed 0 … 2."""
    found = []
    for out in (6, 5):
        draw = torch.Generator().manual_seed(out)
        left, right = (torch.linalg.qr(torch.randn(n, n, generator=draw, dtype=torch.float64)).Q for n in (out, 6))
        part = slice(rank * seed, rank * seed + rank)
        found.append(left[:, part] @ right[:, part].T)
    return found


def learned(bank: DecoupledLoRA, net: Net, change: list[Tensor], steps: int = 600) -> None:
    """Train a new direction until the network is its frozen self plus `change`."""
    x = torch.eye(6, dtype=torch.float64)
    wanted = torch.cat([x @ (layer.frozen.weight + d).T for layer, d in zip(bank._layers, change, strict=True)], 1)
    bank.open(2, torch.Generator().manual_seed(bank.directions))
    optimizer = torch.optim.Adam([p for group in bank.trainable().values() for p in group], lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        with bank.applied():
            (net(x) - wanted).square().sum().backward()
        optimizer.step()
    bank.close()


def sized(bank: DecoupledLoRA, change: list[Tensor]) -> None:
    """A new direction that is exactly this change."""
    bank.open(2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for up, down, delta in zip(bank.open_up, bank.open_down, change, strict=True):
            u, s, v = torch.linalg.svd(delta)
            up.copy_(u[:, :2] * s[:2])
            down.copy_(v[:2])
    bank.close()


@pytest.mark.parametrize("sharing", ["shared", pytest.param("projection", marks=pytest.mark.slow)])
def test_a_task_that_asks_for_more_of_the_same_adds_no_direction(sharing: Sharing) -> None:
    """Both tasks pull along one direction: all that the second one learns is a magnitude."""
    net = Net()
    bank = DecoupledLoRA(net, ["query", "value"], sharing)
    learned(bank, net, spans(0))
    learned(bank, net, [2 * d for d in spans(0)])
    residual, _ = bank.residual()
    before = [bank.update(p) for p in range(2)]
    assert residual < 1e-3
    assert bank.distill(1e-3)
    assert bank.directions == 1
    for p, update in enumerate(before):
        torch.testing.assert_close(bank.update(p), update, atol=0.05, rtol=0)
        torch.testing.assert_close(bank.update(p), 2 * spans(0)[p], atol=0.05, rtol=0)


@pytest.mark.parametrize("sharing", SHARING)
def test_a_task_that_asks_for_something_else_keeps_its_direction(sharing: Sharing) -> None:
    net = Net()
    bank = DecoupledLoRA(net, ["query", "value"], sharing)
    sized(bank, spans(0))
    sized(bank, spans(1))
    residual, _ = bank.residual()
    assert residual == pytest.approx(1)
    assert not bank.distill(0.99)
    assert bank.directions == 2


@pytest.mark.parametrize("sharing", SHARING)
def test_the_fold_takes_what_the_older_directions_explain_and_no_more(sharing: Sharing) -> None:
    """The third change is 2 of the first, 3 of the second, and a little that is new: folded, the little is all that is lost."""
    net = Net()
    bank = DecoupledLoRA(net, ["query", "value"], sharing)
    first, second, new = spans(0, rank=1), spans(1, rank=1), spans(2, rank=1)
    sized(bank, first)
    sized(bank, second)
    mixed = [2 * a + 3 * b for a, b in zip(first, second, strict=True)]
    with torch.no_grad():
        bank.open(3, torch.Generator().manual_seed(0))
        for up, down, parts in zip(bank.open_up, bank.open_down, zip(mixed, new, strict=True), strict=True):
            u, s, v = torch.linalg.svd(parts[0] + 0.1 * parts[1])
            up.copy_(u[:, :3] * s[:3])
            down.copy_(v[:3])
        bank.close()
    residual, _ = bank.residual()
    assert residual == pytest.approx(0.01 / 13.01, rel=1e-6)
    before = [bank.update(p) for p in range(2)]
    assert not bank.distill(residual * 0.99)
    assert bank.distill(residual * 1.01)
    for p, update in enumerate(before):
        torch.testing.assert_close(update - bank.update(p), 0.1 * new[p])


def test_the_first_direction_is_always_kept() -> None:
    bank = DecoupledLoRA(Net(), ["query", "value"])
    sized(bank, spans(0))
    assert not bank.distill(1.0)
    assert bank.directions == 1


@pytest.mark.parametrize("sharing", SHARING)
def test_residuals_are_those_of_least_squares_on_whole_matrices(sharing: Sharing) -> None:
    bank = DecoupledLoRA(Net(), ["query", "value"], sharing)
    draw = torch.Generator().manual_seed(1)
    for _ in range(4):
        bank.open(2, draw)
        with torch.no_grad():
            for up in bank.open_up:
                up.copy_(torch.randn(up.shape, generator=draw, dtype=torch.float64))
        bank.close()
    whole = [[(up @ down).flatten() for up, down in bank.direction(k)] for k in range(4)]
    left, size = 0.0, 0.0
    for ps in [[0, 1]] if sharing == "shared" else [[0], [1]]:
        columns = torch.stack([torch.cat([whole[k][p] for p in ps]) for k in range(4)], 1)
        fit = torch.linalg.lstsq(columns[:, :3], columns[:, 3:]).solution
        weight = bank.magnitudes[-1, 0 if sharing == "shared" else ps[0]].item() ** 2
        left += weight * (columns[:, :3] @ fit - columns[:, 3:]).square().sum().item()
        size += weight * columns[:, 3].square().sum().item()
    assert bank.residual()[0] == pytest.approx(left / size)


def test_ranks_follow_the_schedule(tiny: Folder, tasks: list[Examples]) -> None:
    learner = SDLoRA(str(tiny("vit")), rank=[[1, 3], [3, 1]], epochs=1, batch_size=8)
    for task in tasks:
        learner.learn(task)
    assert learner.info()["ranks"] == [3, 3, 1]
    with pytest.warns(DataWarning, match="count twice"):
        learner.learn(tasks[0])  # known classes: no direction, and no step in the schedule
    assert learner.info()["ranks"] == [3, 3, 1]


@pytest.mark.parametrize("rank", [[], [[2, 4]], [[1, 4], [1, 2]], [[3, 4], [1, 2]], [[1, 0]], [[1]]])
def test_a_schedule_that_cannot_be_is_refused(rank: Any, tiny: Folder) -> None:
    with pytest.raises(SettingError, match=r"rank = .* cannot be"):
        SDLoRA(str(tiny("vit")), rank=rank)


@pytest.mark.parametrize(("threshold", "ranks"), [(1.0, [2]), (0.0, [2, 2, 2]), (None, [2, 2, 2])])
def test_the_record_says_how_often_a_direction_was_distilled(
    threshold: float | None, ranks: list[int], tiny: Folder, tasks: list[Examples], tmp_path: Path
) -> None:
    learner = SDLoRA(str(tiny("vit")), rank=2, kd_threshold=threshold, epochs=2, batch_size=8, learning_rate=1e-2)
    for task in tasks:
        learner.learn(task)
    info = learner.info()
    assert info["ranks"] == ranks
    assert info["distilled"] == 3 - len(ranks)
    assert 0 <= info["residual"] <= 1
    learner.save(tmp_path)
    assert SDLoRA.load(tmp_path).info() == info


def test_traces_of_a_training_are_in_its_own_entry(tiny: Folder, tasks: list[Examples]) -> None:
    learner = SDLoRA(str(tiny("vit")), rank=2, epochs=2, batch_size=8).learn(tasks[0]).learn(tasks[1])
    learner.forget(learner.classes[0])
    with pytest.warns(DataWarning, match="count twice"):
        learner.learn(tasks[1])  # of known classes only
    watched = [{key for key in entry.tensors if key.startswith("trace.")} for entry in learner.entries]
    assert [bool(keys) for keys in watched] == [True, True, False, False]
    assert watched[0] == {"trace.step", "trace.residual", "trace.magnitudes", "trace.after"}


@pytest.mark.parametrize("kind", [SDLoRA, SequentialLoRA, InfLoRA, RanPAC, EASE, CLLoRA])
def test_a_rank_above_that_of_the_projections_is_refused(kind: Any, tiny: Folder) -> None:
    """`--set rank=100000` ended in an error of torch, when the first task began."""
    more = {"adapt_first_task": "lora"} if kind is RanPAC else {}
    with pytest.raises(SettingError, match=rf"{kind.__name__}: rank = 100000, but .* have rank \d+; give at most \d+"):
        kind(str(tiny("vit")), rank=100_000, device="cpu", **more)
