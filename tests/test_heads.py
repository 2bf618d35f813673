"""Heads from class statistics, against scikit-learn and plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.kernel_ridge import KernelRidge as KernelRegression
from torch import Tensor

from newcomer.nn.features.class_statistics import ClassStatistics
from newcomer.nn.heads.gaussian import RealignedGaussian
from newcomer.nn.heads.head import Head, Linear, WeightBias
from newcomer.nn.heads.kernel import KernelRidge, arc_cosine
from newcomer.nn.heads.lda import LDA
from newcomer.nn.heads.linear import TrainedLinearHead
from newcomer.nn.heads.prototypes import Prototypes
from newcomer.nn.heads.ridge import Ridge

HEADS: dict[str, Head] = {
    "prototypes": Prototypes(),
    "ridge": Ridge(0.1),
    "lda": LDA(0.3),
    "gaussian": RealignedGaussian(0.3),
    "kernel": KernelRidge(),
}


def sample(seed: int, classes: int, width: int, each: int = 9) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    target = torch.arange(classes).repeat_interleave(each)
    x = torch.randn(classes, width, generator=draw, dtype=torch.float64)[target] * 2
    x = x + torch.randn(len(target), width, generator=draw, dtype=torch.float64) @ torch.randn(
        width, width, generator=draw, dtype=torch.float64
    )
    order = torch.randperm(len(target), generator=draw)
    return x[order], target[order]


def nothing(statistics: ClassStatistics) -> Linear:
    """No rows were trained."""
    return torch.zeros_like(statistics.mean), torch.zeros_like(statistics.count)


def folded(head: Head, statistics: ClassStatistics) -> WeightBias:
    return head.fold(statistics, nothing(statistics))


def logits(head: Head, statistics: ClassStatistics, x: Tensor) -> Tensor:
    weight, bias = folded(head, statistics)
    return head.terms(statistics, x) @ weight.T + bias


def test_statistics_are_those_of_a_plain_loop() -> None:
    x, target = sample(0, classes=3, width=4)
    found = ClassStatistics.of(x, target, 3, rank=4)
    scatter = torch.zeros(4, 4, dtype=torch.float64)
    for name in range(3):
        mine = x[target == name]
        assert found.count[name] == len(mine)
        torch.testing.assert_close(found.mean[name], mine.mean(0))
        for row in mine:
            scatter += torch.outer(row - mine.mean(0), row - mine.mean(0))
    torch.testing.assert_close(found.scatter, scatter)
    torch.testing.assert_close(
        (found.directions.mT @ found.directions).sum(0), scatter
    )  # all directions of all classes
    torch.testing.assert_close(found.total, (x - x.mean(0)).T @ (x - x.mean(0)) / len(x))
    torch.testing.assert_close(found.centre, x.mean(0))


@given(seed=st.integers(0, 1000), share=st.floats(0, 1), width=st.integers(1, 6), rank=st.sampled_from([0, 6]))
@settings(max_examples=25, deadline=None)
def test_joined_statistics_are_those_computed_together(seed: int, share: float, width: int, rank: int) -> None:
    """However the examples of four classes are dealt to two tasks."""
    x, target = sample(seed, 4, width)
    first = torch.rand(len(x), generator=torch.Generator().manual_seed(seed)) < share
    joined = ClassStatistics.of(x[first], target[first], 4, rank).joined(
        ClassStatistics.of(x[~first], target[~first], 4, rank)
    )
    together = ClassStatistics.of(x, target, 4, rank)
    for key in ("count", "mean", "scatter", "degrees_of_freedom", "residual"):
        torch.testing.assert_close(getattr(joined, key), getattr(together, key), atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(joined.directions.mT @ joined.directions, together.directions.mT @ together.directions)


@given(seed=st.integers(0, 1000), rank=st.sampled_from([0, 3]))
@settings(max_examples=25, deadline=None)
def test_examples_are_added_as_statistics_are_joined(seed: int, rank: int) -> None:
    """To new and to known classes; what other classes hold is not touched."""
    x, target = sample(seed, 5, 6)
    first = (target < 3) & (torch.rand(len(x), generator=torch.Generator().manual_seed(seed)) < 0.5)
    second = ~first & (target != 1)
    old = ClassStatistics.of(x[first], target[first], 5, rank)
    found = old.with_examples(x[second], target[second], rank)
    wanted = old.joined(ClassStatistics.of(x[second], target[second], 5, rank))
    for key in ("count", "mean", "scatter", "degrees_of_freedom", "residual"):
        torch.testing.assert_close(getattr(found, key), getattr(wanted, key), atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(found.directions.mT @ found.directions, wanted.directions.mT @ wanted.directions)
    assert torch.equal(found.directions[1], old.directions[1])
    assert found.float().with_examples(x[second], target[second], rank).mean.dtype == torch.float32


def test_statistics_without_directions_keep_the_trace_and_what_most_heads_need() -> None:
    x, target = sample(5, classes=4, width=6)
    whole = ClassStatistics.of(x, target, 4, rank=3)
    plain = whole.without_directions()
    torch.testing.assert_close(plain.residual, ClassStatistics.of(x, target, 4).residual)
    for name in ("prototypes", "ridge", "lda"):
        assert not HEADS[name].uses_directions
        assert torch.equal(logits(HEADS[name], plain, x), logits(HEADS[name], whole, x))


def test_few_directions_keep_the_trace_of_each_class() -> None:
    x, target = sample(3, classes=3, width=5)
    whole, few = ClassStatistics.of(x, target, 3, rank=5), ClassStatistics.of(x, target, 3, rank=2)
    torch.testing.assert_close(
        few.directions.square().sum((1, 2)) + few.residual, whole.directions.square().sum((1, 2)) + whole.residual
    )
    assert (few.residual > 0).all()


def test_moved_statistics_are_those_of_the_moved_features() -> None:
    x, target = sample(4, classes=3, width=4)
    draw = torch.Generator().manual_seed(0)
    matrix, centre, shift = (torch.randn(*size, generator=draw, dtype=torch.float64) for size in ((4, 4), (4,), (4,)))
    moved = ClassStatistics.of(x, target, 3, rank=4).mapped(matrix, centre, shift)
    wanted = ClassStatistics.of(centre + shift + (x - centre) @ matrix, target, 3, rank=4)
    for key in ("count", "mean", "scatter"):
        torch.testing.assert_close(getattr(moved, key), getattr(wanted, key))
    torch.testing.assert_close(moved.directions.mT @ moved.directions, wanted.directions.mT @ wanted.directions)


def test_statistics_are_computed_in_float64_whatever_the_features_are() -> None:
    x, target = sample(0, classes=2, width=3)
    assert {t.dtype for t in vars(ClassStatistics.of(x.float(), target, 2)).values()} == {torch.float64}


@pytest.mark.parametrize("name", ["prototypes", "lda"])
def test_forgetting_a_large_class_changes_nothing_between_the_others(name: str) -> None:
    x, target = sample(10, classes=3, width=4, each=400)
    rows = (target == 0) | (torch.arange(len(x)) % 20 == 0)  # the first has twenty times as many as the others
    whole = ClassStatistics.of(x[rows], target[rows], 3, rank=2)
    left = whole.at([1, 2])
    assert left.degrees_of_freedom == whole.degrees_of_freedom
    torch.testing.assert_close(left.within, whole.within)
    (before, offset), (after, bias) = folded(HEADS[name], whole), folded(HEADS[name], left)
    asked = x[target > 0]
    was, now = asked @ before[1:].T + offset[1:], asked @ after.T + bias
    torch.testing.assert_close(now[:, 0] - now[:, 1], was[:, 0] - was[:, 1])


def test_with_one_example_a_class_the_covariance_is_that_of_the_means() -> None:
    for size in (0.1, 1000):
        x = size * torch.eye(3, dtype=torch.float64)
        weight, bias = folded(LDA(0.3), ClassStatistics.of(x, torch.arange(3), 3))
        said = (x @ weight.T + bias).softmax(1).max(1).values
        assert (said < 0.99).all()  # not certain of anything, in whatever units


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_lda_equals_scikit_learns(shrinkage: float, seed: int) -> None:
    x, target = sample(seed, classes=4, width=3)
    centred = x - torch.stack([x[target == k].mean(0) for k in target.tolist()])
    covariance = (centred.T @ centred / (len(x) - 4)).numpy()
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / 3 * np.eye(3)
    weight, bias = folded(LDA(shrinkage), ClassStatistics.of(x, target, 4))

    class Estimator:
        """The same for every class: scikit-learn's own shrinkage is of standardised features."""

        covariance_ = shrunk

        def fit(self, _: object) -> None: ...

    theirs = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Estimator(), priors=[0.25] * 4)
    theirs.fit(x.numpy(), target.numpy())
    asked = torch.randn(20, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ours = asked @ weight.T + bias
    expected = theirs.decision_function(asked.numpy())
    level = expected - expected.mean(1, keepdims=True)  # a constant on all logits is no difference
    np.testing.assert_allclose((ours - ours.mean(1, keepdim=True)).numpy(), level, atol=1e-8)


def test_without_shrinkage_it_orders_classes_as_scikit_learns_plain_one() -> None:
    x, target = sample(1, classes=4, width=3)
    weight, bias = folded(LDA(0.0), ClassStatistics.of(x, target, 4))
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(x.numpy(), target.numpy())
    ours = (x @ weight.T + bias).argmax(1).numpy()
    assert (ours == theirs.predict(x.numpy())).all()


@pytest.mark.parametrize("name", HEADS)
def test_one_example_of_each_class_is_enough(name: str) -> None:
    x = torch.eye(3, dtype=torch.float64)
    said = logits(HEADS[name], ClassStatistics.of(x, torch.arange(3), 3, rank=2), x)
    assert said.isfinite().all()
    assert said.argmax(1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", HEADS)
def test_one_class_is_no_error(name: str) -> None:
    x, target = sample(5, classes=1, width=3)
    assert logits(HEADS[name], ClassStatistics.of(x, target, 1, rank=2), x).isfinite().all()


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_tasks_does_not_matter(name: str, seed: int) -> None:
    x, target = sample(seed, classes=4, width=3)
    first = target < 2
    parts = [ClassStatistics.of(x[rows], target[rows], 4, rank=3) for rows in (~first, first)]
    found = [logits(HEADS[name], s, x) for s in (ClassStatistics.of(x, target, 4, rank=3), parts[0].joined(parts[1]))]
    if name != "gaussian":  # which draws along directions whose sign is chance
        torch.testing.assert_close(*found)
    assert (found[0].argmax(1) == found[1].argmax(1)).double().mean() >= 0.9


@pytest.mark.parametrize("name", HEADS)
def test_distant_classes_are_separated(name: str) -> None:
    x, target = sample(6, classes=3, width=4)
    x = x + 100 * torch.eye(4, dtype=torch.float64)[target]
    assert (logits(HEADS[name], ClassStatistics.of(x, target, 3, rank=2), x).argmax(1) == target).all()


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_ridge_is_the_least_squares_solution_for_one_hot_targets(shrinkage: float) -> None:
    x, target = sample(7, classes=3, width=4)
    weight, bias = folded(Ridge(shrinkage), ClassStatistics.of(x, target, 3))
    centred, target = x - x.mean(0), torch.eye(3, dtype=torch.float64)[target]
    total = centred.T @ centred / len(x)
    matrix = (1 - shrinkage) * total + shrinkage * total.trace() / 4 * torch.eye(4, dtype=torch.float64)
    slow = torch.linalg.solve(matrix, centred.T @ (target - target.mean(0)) / len(x)).T
    torch.testing.assert_close(weight, slow)
    torch.testing.assert_close(bias, target.mean(0) - slow @ x.mean(0))
    if not shrinkage:
        plain = torch.linalg.lstsq(torch.cat([x, x.new_ones(len(x), 1)], 1), target).solution
        torch.testing.assert_close(torch.cat([weight, bias[:, None]], 1), plain.T)


def test_realigned_gaussians_know_a_wide_class_from_a_narrow_one() -> None:
    """Two classes of one mean's distance whose variances differ: the best line is not where one covariance puts it."""
    draw = torch.Generator().manual_seed(0)
    narrow, wide = (
        torch.randn(2000, 2, generator=draw, dtype=torch.float64) * torch.tensor(s) for s in ([0.2, 1.0], [2.0, 1.0])
    )
    x, target = torch.cat([narrow, wide + torch.tensor([2.0, 0.0])]), torch.arange(2).repeat_interleave(2000)
    statistics = ClassStatistics.of(x, target, 2, rank=2)

    def right(head: Head) -> float:
        weight, bias = folded(head, statistics)
        return ((x @ weight.T + bias).argmax(1) == target).double().mean().item()

    assert right(RealignedGaussian(0.0, pairs=500)) > right(LDA(0.0)) + 0.005


@pytest.mark.parametrize("each", [1, 2, 5, 200])
def test_samples_of_realigned_gaussians_have_the_class_statistics(each: int) -> None:
    x, target = sample(8, classes=4, width=3, each=200)
    rows = torch.cat([(target == k).nonzero()[: each if k < 2 else 200, 0] for k in range(4)])
    x, target = x[rows], target[rows]
    statistics = ClassStatistics.of(x, target, 4, rank=3)
    features, names = RealignedGaussian(pairs=20000).sample(statistics)
    shared = statistics.scatter / (len(x) - 4)
    for k in range(2):
        own = torch.cov(x[target == k].T) if each > 1 else torch.zeros_like(shared)
        wanted = own * (1 - 1 / each) + shared / each
        found = torch.cov(features[names == k].double().T)
        assert (found - wanted).norm() < 0.05 * wanted.norm()
        torch.testing.assert_close(features[names == k].double().mean(0), x[target == k].mean(0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_realigned_gaussians_with_large_decay_equal_lda(seed: int) -> None:
    x, target = sample(seed, classes=4, width=3, each=30)
    statistics = ClassStatistics.of(x, target, 4, rank=3)
    (held, _), (start, _) = (
        folded(RealignedGaussian(0.3, decay=1e6), statistics),
        folded(LDA(0.3), statistics),
    )
    torch.testing.assert_close(held / held.norm(), start / start.norm(), atol=1e-3, rtol=0)


def test_the_arc_cosine_kernel_is_the_mean_product_of_random_features() -> None:
    """Also of what has no direction."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(6, 5, generator=draw, dtype=torch.float64)
    x[0], x[1] = 0, 2 * x[2]
    h = (x @ torch.randn(5, 400_000, generator=draw, dtype=torch.float64)).relu()
    torch.testing.assert_close(arc_cosine(x, x), h @ h.T / h.shape[1], atol=0.05, rtol=0.02)
    torch.testing.assert_close(arc_cosine(x, x).diagonal(), x.square().sum(1) / 2, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_the_kernel_head_is_a_ridge_on_random_features_of_its_points_as_their_number_grows(seed: int) -> None:
    x, target = sample(seed, classes=3, width=4)
    head, statistics = KernelRidge(noise=0.3), ClassStatistics.of(x, target, 3, rank=4)
    points, wide = head.support_points(statistics), 60_000
    spread = torch.randn(4, wide, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    h, asked = ((t @ spread).relu() / wide**0.5 for t in (points, x))
    target = torch.eye(3, dtype=torch.float64).repeat_interleave(8, 0) - 1 / 3
    theirs = KernelRegression(alpha=0.3 * h.square().sum(1).mean().item()).fit(h.numpy(), target.numpy())
    np.testing.assert_allclose(logits(head, statistics, x).numpy(), theirs.predict(asked.numpy()), atol=0.03)


@pytest.mark.parametrize("rank", [1, 3])
def test_the_points_of_a_class_have_its_mean_and_its_covariance(rank: int) -> None:
    """Along the directions that are kept of it."""
    x, target = sample(8, classes=4, width=3, each=20)
    statistics = ClassStatistics.of(x, target, 4, rank=rank)
    for k, points in enumerate(torch.split(KernelRidge().support_points(statistics), 2 * rank)):
        torch.testing.assert_close(points.mean(0), x[target == k].mean(0))
        values, directions = torch.linalg.eigh(torch.cov(x[target == k].T))
        kept = directions[:, -rank:] * values[-rank:] @ directions[:, -rank:].T
        torch.testing.assert_close(torch.cov(points.T, correction=0), kept)


def test_where_classes_are_many_each_gets_fewer_points() -> None:
    x, target = sample(8, classes=4, width=3, each=20)
    statistics = ClassStatistics.of(x, target, 4, rank=3)
    assert [len(KernelRidge(limit=limit).support_points(statistics)) for limit in (1, 8, 17, 24, 4096)] == [
        8,
        8,
        16,
        24,
        24,
    ]


def test_the_kernel_head_separates_a_class_from_one_around_it() -> None:
    """Which no line can: they have the same mean."""
    draw = torch.Generator().manual_seed(0)
    inner, outer = (scale * torch.randn(500, 2, generator=draw, dtype=torch.float64) for scale in (0.2, 3.0))
    x, target = torch.cat([inner, outer]) + 2, torch.arange(2).repeat_interleave(500)
    statistics = ClassStatistics.of(x, target, 2, rank=2)
    right = {
        name: (logits(HEADS[name], statistics, x).argmax(1) == target).double().mean() for name in ("lda", "kernel")
    }
    assert right["kernel"] > 0.8
    assert right["lda"] < 0.7


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_kernel_head_is_invariant_to_the_scale_of_features(scale: float) -> None:
    x, target = sample(3, classes=4, width=3)
    one, other = (
        logits(KernelRidge(), ClassStatistics.of(x * unit, target, 4, rank=3), x * unit) for unit in (1.0, scale)
    )
    torch.testing.assert_close(one, other)


def test_the_linear_head_folds_to_its_trained_rows() -> None:
    x, target = sample(9, classes=2, width=3)
    rows = torch.randn(2, 3), torch.randn(2)
    weight, bias = TrainedLinearHead().fold(ClassStatistics.of(x, target, 2), rows)
    assert torch.equal(weight.float(), rows[0])
    assert torch.equal(bias.float(), rows[1])


def test_nearest_mean_is_the_class_whose_mean_has_the_smallest_angle() -> None:
    x, target = sample(2, classes=3, width=5)
    weight, bias = folded(Prototypes(), ClassStatistics.of(x, target, 3))
    angles = [[torch.cosine_similarity(row, x[target == name].mean(0), dim=0) for name in range(3)] for row in x]
    assert not bias.any()
    assert (x @ weight.T).argmax(1).tolist() == torch.tensor(angles).argmax(1).tolist()
