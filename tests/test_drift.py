"""The drift map: moves old statistics along with the features, and is not used where it explains nothing."""

import pytest
import torch
from torch import Tensor

from newcomer.nn.features.class_statistics import ClassStatistics
from newcomer.nn.features.drift_map import fitted, guarded


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
