"""Heads in closed form, against scikit-learn and against what plain loops give."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from newcomer.nn.class_statistics import ClassStatistics, linear_discriminant, nearest_mean


def drawn(seed: int, classes: int, width: int, each: int = 9) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    klass = torch.arange(classes).repeat_interleave(each)
    x = torch.randn(classes, width, generator=draw, dtype=torch.float64)[klass] * 2
    x = x + torch.randn(len(klass), width, generator=draw, dtype=torch.float64) @ torch.randn(
        width, width, generator=draw, dtype=torch.float64
    )
    order = torch.randperm(len(klass), generator=draw)
    return x[order], klass[order]


def test_statistics_are_those_of_a_plain_loop() -> None:
    x, klass = drawn(0, classes=3, width=4)
    found = ClassStatistics.of(x, klass, 3)
    scatter = torch.zeros(4, 4, dtype=torch.float64)
    for name in range(3):
        mine = x[klass == name]
        assert found.count[name] == len(mine)
        torch.testing.assert_close(found.mean[name], mine.mean(0))
        for row in mine:
            scatter += torch.outer(row - mine.mean(0), row - mine.mean(0))
    torch.testing.assert_close(found.scatter, scatter)


@given(seed=st.integers(0, 1000), first=st.integers(1, 4), second=st.integers(1, 4), width=st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_joined_statistics_are_those_computed_together(seed: int, first: int, second: int, width: int) -> None:
    x, klass = drawn(seed, first + second, width)
    old = klass < first
    joined = ClassStatistics.of(x[old], klass[old], first).joined(
        ClassStatistics.of(x[~old], klass[~old] - first, second)
    )
    together = ClassStatistics.of(x, klass, first + second)
    for key, value in vars(together).items():
        torch.testing.assert_close(getattr(joined, key), value)


def test_statistics_are_computed_in_float64_whatever_the_features_are() -> None:
    x, klass = drawn(0, classes=2, width=3)
    assert {t.dtype for t in vars(ClassStatistics.of(x.float(), klass, 2)).values()} == {torch.float64}


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_linear_discriminant_answers_as_scikit_learns_does(shrinkage: float, seed: int) -> None:
    x, klass = drawn(seed, classes=4, width=3)
    centred = x - torch.stack([x[klass == k].mean(0) for k in klass.tolist()])
    covariance = (centred.T @ centred / (len(x) - 4)).numpy()
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / 3 * np.eye(3)
    weight, bias = linear_discriminant(ClassStatistics.of(x, klass, 4), shrinkage)

    class Estimator:
        """The same for every class: scikit-learn's own shrinkage is of standardised features."""

        covariance_ = shrunk

        def fit(self, _: object) -> None: ...

    theirs = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Estimator(), priors=[0.25] * 4)
    theirs.fit(x.numpy(), klass.numpy())
    asked = torch.randn(20, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ours = asked @ weight.T + bias
    expected = theirs.decision_function(asked.numpy())
    level = expected - expected.mean(1, keepdims=True)  # a constant on all logits is no difference
    np.testing.assert_allclose((ours - ours.mean(1, keepdim=True)).numpy(), level, atol=1e-8)


def test_without_shrinkage_it_orders_classes_as_scikit_learns_plain_one() -> None:
    x, klass = drawn(1, classes=4, width=3)
    weight, bias = linear_discriminant(ClassStatistics.of(x, klass, 4), 0.0)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(x.numpy(), klass.numpy())
    ours = (x @ weight.T + bias).argmax(1).numpy()
    assert (ours == theirs.predict(x.numpy())).all()


def test_one_example_of_each_class_is_enough() -> None:
    x = torch.eye(3, dtype=torch.float64)
    for weight, bias in (
        linear_discriminant(ClassStatistics.of(x, torch.arange(3), 3), 0.3),
        nearest_mean(ClassStatistics.of(x, torch.arange(3), 3)),
    ):
        assert weight.isfinite().all()
        assert bias.isfinite().all()
        assert (x @ weight.T + bias).argmax(1).tolist() == [0, 1, 2]


def test_nearest_mean_is_the_class_whose_mean_has_the_smallest_angle() -> None:
    x, klass = drawn(2, classes=3, width=5)
    weight, bias = nearest_mean(ClassStatistics.of(x, klass, 3))
    angles = [[torch.cosine_similarity(row, x[klass == name].mean(0), dim=0) for name in range(3)] for row in x]
    assert not bias.any()
    assert (x @ weight.T).argmax(1).tolist() == torch.tensor(angles).argmax(1).tolist()
