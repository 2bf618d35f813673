"""The drift map: moves old statistics along with the features, and is not used where it explains nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.classes.methods.ranpac import RanPAC
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.examples import Examples
from newcomer.errors import DataError, DataWarning, LearnerError
from newcomer.nn.features.class_statistics import ClassStatistics
from newcomer.nn.features.drift_map import fitted, guarded
from newcomer.store.folder import Store
from shell import Shell


def world(seed: int, classes: int = 8, width: int = 5, each: int = 20) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    target = torch.arange(classes).repeat_interleave(each)
    means = 3 * torch.randn(classes, width, generator=draw, dtype=torch.float64)
    return means[target] + torch.randn(len(target), width, generator=draw, dtype=torch.float64), target


def affine(seed: int, width: int = 5) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    matrix = torch.eye(width, dtype=torch.float64) + 0.5 * torch.randn(
        width, width, generator=draw, dtype=torch.float64
    )
    return matrix, torch.randn(width, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(3))
def test_in_a_world_that_moves_affinely_old_statistics_arrive_where_the_old_examples_do(seed: int) -> None:
    matrix, shift = affine(seed)
    old_task, old_klass = world(seed)
    new_task, new_klass = world(seed + 100)
    drift, explained = guarded(new_task, new_task @ matrix + shift, new_klass)
    assert drift is not None
    assert explained > 0.9
    statistics = ClassStatistics.of(old_task, old_klass, 8)
    wanted = ClassStatistics.of(old_task @ matrix + shift, old_klass, 8)
    found = drift.move(statistics)
    for key in ("mean", "scatter"):
        before, after = (torch.dist(getattr(s, key), getattr(wanted, key)) for s in (statistics, found))
        assert after < 0.15 * before


def test_without_a_ridge_an_affine_move_is_found_exactly() -> None:
    matrix, shift = affine(0)
    x, _ = world(0)
    drift = fitted(x, x @ matrix + shift, 0.0)
    torch.testing.assert_close(drift.matrix, matrix)
    torch.testing.assert_close(drift(x), x @ matrix + shift)


def test_a_strong_ridge_leaves_a_mere_shift() -> None:
    x, _ = world(0)
    y = x + torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    drift = fitted(x, y, 1e9)
    torch.testing.assert_close(drift.matrix, torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(drift(x), y)


@pytest.mark.parametrize("seed", range(3))
def test_after_a_run_that_diverged_nothing_is_moved(seed: int) -> None:
    """The new features have nothing to do with the old ones: no map foretells a class that was left out."""
    x, target = world(seed, classes=60)
    gone = 50 * torch.randn(60, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1000))[target]
    drift, explained = guarded(x, gone, target)
    assert drift is None
    assert explained <= 0


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_move_nothing(broken: float) -> None:
    x, target = world(0)
    y = x.clone()
    y[3, 2] = broken
    assert guarded(x, y, target) == (None, 0.0)


def test_without_drift_there_is_no_map() -> None:
    x, target = world(0)
    assert guarded(x, x, target) == (None, 0.0)


def test_one_example_tells_nothing_and_one_class_is_enough() -> None:
    x, target = world(0)
    assert guarded(x[:1], x[:1] + 1, target[:1]) == (None, 0.0)
    drift, explained = guarded(x[:20], x[:20] + 1, target[:20])
    assert drift is not None
    assert explained == pytest.approx(1)
    torch.testing.assert_close(drift(x), x + 1)


def test_unlabelled_inputs_show_a_drift_that_the_task_alone_does_not() -> None:
    """New classes lie in a plane; old ones do not, and unlabelled inputs of any kind do not either."""
    matrix, shift = affine(0)
    old_task, old_klass = world(0)
    new_task, new_klass = world(100)
    new_task[:, 2:] = 0.0
    more, _ = world(200)
    statistics = ClassStatistics.of(old_task, old_klass, 8)
    wanted = ClassStatistics.of(old_task @ matrix + shift, old_klass, 8).mean
    alone, _ = guarded(new_task, new_task @ matrix + shift, new_klass)
    drift, explained = guarded(new_task, new_task @ matrix + shift, new_klass, (more, more @ matrix + shift))
    assert alone is not None
    assert drift is not None
    assert explained > 0.9
    assert torch.dist(drift.move(statistics).mean, wanted) < 0.2 * torch.dist(alone.move(statistics).mean, wanted)


def test_unlabelled_inputs_do_not_judge_the_map() -> None:
    """However well they fit: what counts are classes left out."""
    x, target = world(0, classes=60)
    gone = 50 * torch.randn(60, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(7))[target]
    assert guarded(x, gone, target, (x, x))[0] is None
    broken = x.clone()
    broken[0] = float("nan")
    assert guarded(x, x + 1, target, (x, broken)) == (None, 0.0)


PICTURES = [Image.new("RGB", (8, 8), (k, 100, 255 - k)) for k in range(0, 200, 20)]


def test_unlabelled_pictures_are_counted_and_change_nothing_but_the_drift_map(
    tiny: Callable[[str], Path], tasks: list[Examples]
) -> None:
    given = [Examples(task.inputs, task.labels, PICTURES) for task in tasks[:2]]
    plain, helped = (SDLoRA(str(tiny("vit")), epochs=1, rank=2, learning_rate=1e-2) for _ in range(2))
    with pytest.warns(
        DataWarning, match="task 1: the unlabelled inputs are not used: there is no drift to map before a second"
    ):
        helped.learn(given[0])
    plain.learn(tasks[0])
    assert torch.equal(plain.logits(PICTURES), helped.logits(PICTURES))
    parts = []
    helped.learn(given[1], progress=lambda step: parts.append(step.part))
    plain.learn(tasks[1])
    assert {"task 1, unlabelled before", "task 1, unlabelled after"} < set(parts)
    assert [entry.info.get("unlabelled") for entry in helped.entries] == [None, len(PICTURES)]
    assert torch.equal(plain.features(PICTURES), helped.features(PICTURES))
    mean, other = plain.memory.statistics.mean, helped.memory.statistics.mean
    assert torch.equal(mean[2:], other[2:])
    assert not torch.equal(mean[:2], other[:2])


@pytest.mark.parametrize(("kind", "settings"), [(FrozenBackbone, {}), (SDLoRA, {"drift_map": False}), (RanPAC, {})])
def test_a_learner_without_a_drift_map_refuses_unlabelled_inputs(
    kind: Any, settings: dict[str, Any], tiny: Callable[[str], Path], tasks: list[Examples]
) -> None:
    model = kind(str(tiny("vit")), **settings)
    with pytest.raises(
        LearnerError, match=f"unlabelled inputs are for the drift map, and this {kind.__name__} has none"
    ):
        model.learn(Examples(tasks[0].inputs, tasks[0].labels, PICTURES))
    assert not model.entries


def test_unlabelled_inputs_are_given_by_a_folder(shell: Shell, tiny: Callable[[str], Path]) -> None:
    (shell.folder / "more").mkdir()
    PICTURES[0].save(shell.folder / "more" / "0.png")
    (shell.folder / "more" / "bad.png").write_bytes(b"no picture")
    words = ("learn", "m", "birds/train", "--backbone", str(tiny("vit")), "--set", "epochs=1", "--set", "rank=2")
    assert shell.call(*words, "--class", "finch", "--class", "tit")[0] == 0
    code, _, err = shell.call(
        "learn", "m", "birds/train", "--class", "wren", "--class", "robin", "--unlabelled", "more"
    )
    assert code == 3
    assert "more/bad.png" in err
    assert Store(shell.folder / "m").entries()[-1].info["unlabelled"] == 1
    assert "nowhere: no such file or folder" in shell.fails("learn", "m", "birds/train", "--unlabelled", "nowhere")


def test_examples_keep_what_is_unlabelled() -> None:
    examples = Examples(["a", "b"], ["x", "y"], ["c"])
    assert list(examples.select([1]).unlabelled) == ["c"]
    assert repr(examples) == "Examples(2 inputs, 2 classes: 'x', 'y', 1 unlabelled)"
    with pytest.raises(DataError, match=r"unlabelled\[0\]: an empty text"):
        Examples(["a"], ["x"], [""])
