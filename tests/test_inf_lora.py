"""InfLoRA: a new update does nothing to remembered inputs, and the memory equals that of a plain loop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from newcomer.backbones.backbone import Backbone
from newcomer.classes.methods.inf_lora import InfLoRA
from newcomer.classes.methods.sequential_lora import SequentialLoRA
from newcomer.data.datasets.digits import digits
from newcomer.data.examples import Examples
from newcomer.errors import LearnerError
from newcomer.nn.lora.gradient_memory import GradientMemory
from newcomer.nn.lora.input_moments import InputMoments
from newcomer.shapes import Tensor
from newcomer.streams.class_incremental import ClassIncremental

Folder = Callable[[str], Path]


def moment(width: int, rank: int, seed: int) -> Tensor:
    """The second moment of inputs that fill `rank` directions, each less than the one before."""
    directions = torch.randn(rank, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    directions *= 0.6 ** torch.arange(rank, dtype=torch.float64)[:, None]
    return directions.T @ directions


def projector(memory: GradientMemory) -> Tensor:
    """Onto what is not remembered."""
    return memory.outside(torch.eye(len(memory.directions), dtype=torch.float64))


def extended_slowly(basis: list[Tensor], moment: Tensor, share: float) -> list[Tensor]:
    """One direction after the other, each the largest of what is left, until enough of the moment is held; nothing dual."""
    width = len(moment)

    def left(x: Tensor) -> Tensor:
        held = torch.stack(basis, dim=1) if basis else torch.zeros(width, 0, dtype=torch.float64)
        return x - held @ (held.T @ x)

    while left(moment).square().sum() > (1 - share) * moment.square().sum() * (1 + 1e-9) and len(basis) < width:
        basis = [*basis, torch.linalg.svd(left(moment))[0][:, 0]]
    return basis


@pytest.mark.parametrize("ranks", [(2, 2, 2), (5, 4, 6), (8, 3, 8), (3, 8, 8)])
def test_the_memory_is_that_of_a_slow_loop(ranks: tuple[int, ...]) -> None:
    memory, basis, width = GradientMemory.empty(8), list[Tensor](), 8
    for task, rank in enumerate(ranks):
        share = 0.9 + 0.03 * task
        memory = memory.extended(moment(width, rank, task), share)
        basis = extended_slowly(basis, moment(width, rank, task), share)
        assert memory.remembered == len(basis)
        assert memory.directions.shape[1] <= width / 2
        assert memory.dual == (len(basis) > width / 2)
        wanted = torch.eye(width, dtype=torch.float64) - sum(v[:, None] * v for v in basis)
        torch.testing.assert_close(projector(memory), wanted, atol=1e-5, rtol=0)


def test_a_dual_memory_is_extended_to_the_complement_of_all_inputs() -> None:
    memory, width, inputs = GradientMemory.empty(8), 8, list[Tensor]()
    for task, (rank, kept) in enumerate([(2, 2), (3, 3), (2, 1), (1, 0)]):
        new = moment(width, rank, task)
        memory, inputs = memory.extended(new, 1.0), [*inputs, new]
        assert (memory.dual, memory.directions.shape[1]) == (task > 0, kept)
        basis = torch.linalg.svd(torch.cat(inputs, dim=1))[0][:, : memory.remembered]
        torch.testing.assert_close(projector(memory), torch.eye(width).double() - basis @ basis.T, atol=1e-5, rtol=0)


def test_without_inputs_no_direction_is_free() -> None:
    assert not GradientMemory.empty(4).free(torch.zeros(4, 4, dtype=torch.float64), 2).any()


def test_the_remembered_energy_is_at_least_the_threshold() -> None:
    memory = GradientMemory.empty(12)
    for task, share in enumerate((0.5, 0.9, 0.99)):
        new = moment(12, 9, task)
        before, memory = memory, memory.extended(new, share)
        assert memory.outside(new).square().sum() <= (1 - share + 1e-6) * new.square().sum()
        assert memory.remembered >= before.remembered
    assert memory.extended(torch.zeros(12, 12, dtype=torch.float64), 1.0) is memory


def test_free_directions_are_the_main_ones_outside_of_the_memory() -> None:
    memory, new = GradientMemory.empty(6).extended(moment(6, 2, 0), 1.0), moment(6, 6, 1)
    free = memory.free(new, 3)
    torch.testing.assert_close(free @ free.T, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(free @ moment(6, 2, 0), torch.zeros(3, 6, dtype=torch.float64), atol=1e-5, rtol=0)
    outside = projector(memory)
    largest = torch.linalg.eigvalsh(outside @ new @ outside).flip(0)[:3]
    torch.testing.assert_close((free @ new @ free.T).diagonal(), largest, atol=1e-5, rtol=1e-5)


def test_a_full_memory_leaves_no_free_directions() -> None:
    memory = GradientMemory.empty(4).extended(moment(4, 4, 0), 1.0)
    assert memory.remembered == 4
    assert not memory.free(moment(4, 4, 1), 2).any()
    assert not GradientMemory.empty(4).free(moment(4, 1, 1), 2)[1].any()  # inputs that fill one direction


def test_moments_are_those_of_all_inputs_that_are_no_padding() -> None:
    layer, inputs = torch.nn.Linear(3, 2), torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    moments = InputMoments(torch.nn.Sequential(layer), ["0"])
    with torch.inference_mode():
        for part in (slice(0, 1), slice(1, 2)):
            with moments.watched(mask[part]):
                layer(inputs[part])
        layer(inputs)  # not watched
    wanted = sum(torch.outer(h, h) for row, kept in zip(inputs, mask, strict=True) for h in row[kept.bool()])
    torch.testing.assert_close(moments.found[0], wanted)


def test_moments_of_inputs_in_bf16_are_products_in_float32() -> None:
    layer, draw = torch.nn.Linear(3, 2), torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 40, 3, generator=draw).bfloat16()
    moments = InputMoments(torch.nn.Sequential(layer), ["0"])
    with moments.watched(), torch.autocast("cpu", torch.bfloat16):
        layer(inputs)
    rows = inputs.float().flatten(0, 1)
    torch.testing.assert_close(moments.found[0], rows.T @ rows)


@pytest.mark.parametrize("kind", ["vit", "bert", "timm_wrapper"])
def test_a_later_update_does_nothing_to_remembered_inputs(
    kind: str, tiny: Folder, tasks: list[Examples], questions: list[Examples]
) -> None:
    used_tasks = tasks if kind != "bert" else questions
    learner = InfLoRA(str(tiny(kind)), rank=2, epochs=4, batch_size=8, learning_rate=1e-2, total_tasks=2).learn(
        used_tasks[0]
    )
    remembered = [torch.eye(16, dtype=torch.float64) - projector(old) for old in learner.old_inputs.memories]
    assert all(0 < old.remembered < 16 for old in learner.old_inputs.memories)
    learner.learn(used_tasks[1])
    for (up, down), inside in zip(learner.lora.direction(1), remembered, strict=True):
        update = (up @ down).double()
        assert update.norm() > 0.01
        assert (update @ inside).norm() <= 1e-6 * update.norm()
    info = learner.info()["remembered"]
    assert len(info) == len(learner.backbone.projections)
    assert all(before.trace() / 16 <= now + 1e-6 for before, now in zip(remembered, info, strict=True))


def test_the_designed_rows_and_old_magnitudes_stay_fixed(tiny: Folder, tasks: list[Examples]) -> None:
    learner = InfLoRA(str(tiny("vit")), rank=2, epochs=3, batch_size=8, learning_rate=1e-2).learn(tasks[0])
    magnitude = learner.lora.magnitudes.clone()
    learner.learn(tasks[1])
    assert torch.equal(learner.lora.magnitudes[:1], magnitude)
    for _, down in learner.lora.direction(1):  # a scale apart, the rows that were chosen
        torch.testing.assert_close(down @ down.T, torch.eye(2) / 3, atol=1e-5, rtol=0)
    assert learner.info()["cost"]["parameters"] == 2 * 16 * 4 + 2 * 17


def test_non_finite_inputs_are_an_error(tiny: Folder, tasks: list[Examples]) -> None:
    learner = InfLoRA(str(tiny("vit")), rank=2, epochs=2, batch_size=100, learning_rate=1e30, schedule="constant")
    with pytest.raises(LearnerError, match="the inputs of a layer are not finite; lower the learning rate"):
        learner.learn(tasks[0])
    assert not learner.classes


def test_old_features_move_less_than_by_training_one_update_on() -> None:
    """How far the first task's features move while the second is learned."""
    train, test = digits()
    first, second = ClassIncremental(train, test, tasks=2, classes=4, train_per_class=40, eval_per_class=20)
    settings: dict[str, Any] = {
        "rank": 4,
        "epochs": 4,
        "batch_size": 16,
        "learning_rate": 4e-3,
        "head_learning_rate": 1e-3,
    }
    moved = []
    for kind in (InfLoRA, SequentialLoRA):
        learner = kind(Backbone("micro-vit"), **settings).learn(first.train)
        before = learner.features(first.train.inputs)
        learner.learn(second.train)
        moved.append(float((learner.features(first.train.inputs) - before).norm() / before.norm()))
    assert moved[0] < moved[1]
