"""RanPAC: its sums equal those of all examples together in any order; exports are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from newcomer.backbones.backbone import Backbone
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.classes.methods.ranpac import RanPAC
from newcomer.data.datasets.digits import digits
from newcomer.data.examples import Examples
from newcomer.errors import LearnerError
from newcomer.export import FORMS
from newcomer.nn.heads.random_features import RIDGES, RidgeStatistics, random_features, select_ridge
from newcomer.shapes import Tensor
from newcomer.streams.class_incremental import ClassIncremental

Folder = Callable[[str], Path]


def sample(count: int, width: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    target = torch.arange(count) % classes
    centres = torch.randn(classes, width, generator=chance)
    return centres[target] + torch.randn(count, width, generator=chance), target


def test_tasks_in_any_order_solve_what_all_examples_together_do() -> None:
    x, target = sample(60, 4, 3)
    h = random_features(x, torch.randn(4, 20, generator=torch.Generator().manual_seed(1)))
    by_class = [target == k for k in range(3)]
    one_by_one = RidgeStatistics.empty(20)
    for rows in by_class:
        one_by_one = one_by_one.joined(h[rows], target[rows])
    stacked, one_hot = h.double(), F.one_hot(target).double()
    # ridge regression as least squares on the examples and √λ I below them
    ridge = 5.0
    rows = torch.cat([stacked, ridge**0.5 * torch.eye(20, dtype=torch.float64)])
    wanted = torch.linalg.lstsq(rows, F.pad(one_hot, (0, 0, 0, 20))).solution.T
    torch.testing.assert_close(one_by_one.solved(ridge).double(), wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(one_by_one.solved(ridge), RidgeStatistics.empty(20).joined(h, target).solved(ridge))


@pytest.mark.parametrize("wide", [6, 200])
def test_the_ridge_is_that_of_solving_for_every_one(wide: int) -> None:
    x, target = sample(45, 5, 3)
    h = random_features(x, torch.randn(5, wide, generator=torch.Generator().manual_seed(2)))
    found = select_ridge(h, target)
    assert found is not None
    ridge, said, wanted = found
    held = torch.tensor([i // 3 % 5 == 1 for i in range(45)])  # the classes take turns
    assert torch.equal(wanted, target[held])
    losses, answers = [], []
    for strength in RIDGES:
        gram = (h[~held].T @ h[~held]).double() + strength * torch.eye(wide, dtype=torch.float64)
        weight = torch.linalg.solve(gram, h[~held].T.double() @ F.one_hot(target)[~held].double())
        answers.append(h[held].double() @ weight)
        losses.append(float((answers[-1] - F.one_hot(target)[held]).square().sum()))
    best = min(range(len(RIDGES)), key=lambda i: losses[i])
    assert ridge == RIDGES[best]
    torch.testing.assert_close(said, answers[best], atol=1e-4, rtol=1e-4)


def test_without_a_second_example_no_ridge_is_chosen_and_the_sums_are_solved_all_the_same() -> None:
    x, target = sample(3, 4, 3)
    assert select_ridge(x, target) is None
    weight = RidgeStatistics.empty(4).joined(x, target).solved(0.0)
    assert weight.isfinite().all()
    assert torch.equal((x @ weight.T).argmax(1), target)


def test_a_forgotten_class_s_examples_stay_examples_of_none() -> None:
    x, target = sample(30, 4, 3)
    whole = RidgeStatistics.empty(4).joined(x, target)
    torch.testing.assert_close(whole.at([2, 0]).solved(1.0), whole.solved(1.0)[[2, 0]])


def test_the_logits_are_linear_in_the_projected_features(tiny: Folder, tasks: list[Examples]) -> None:
    learner = RanPAC(str(tiny("vit")), projection_dim=50).learn(tasks[0]).learn(tasks[1])
    classifier: Any = learner.classifier
    h = random_features(learner.features(tasks[0].inputs), classifier.projection)
    wanted = h @ classifier.sums.solved(classifier.ridge).T / classifier.temperature
    torch.testing.assert_close(learner.logits(tasks[0].inputs), wanted, atol=1e-5, rtol=1e-5)
    assert [entry.info["ridge"] in RIDGES for entry in learner.entries] == [True, True]
    assert ["ranpac.projection" in entry.tensors for entry in learner.entries] == [True, False]


def test_the_first_task_adapts_and_no_later_one(tiny: Folder, tasks: list[Examples]) -> None:
    settings: dict[str, Any] = {"projection_dim": 50, "rank": 2, "epochs": 2, "batch_size": 8, "learning_rate": 1e-2}
    learner = RanPAC(str(tiny("vit")), adapt_first_task="lora", **settings).learn(tasks[0])
    frozen = FrozenBackbone(str(tiny("vit"))).features(tasks[0].inputs)
    adapted = learner.features(tasks[0].inputs)
    assert not torch.allclose(adapted, frozen, atol=1e-3)
    assert learner.info()["cost"]["parameters"] == 2 * 32 * 4 + 2 * 17
    learner.learn(tasks[1])
    assert torch.equal(learner.features(tasks[0].inputs), adapted)
    assert learner.info()["cost"]["parameters"] == 0
    alone = RanPAC(str(tiny("vit")), adapt_first_task="none", **settings).learn(tasks[0])
    torch.testing.assert_close(alone.features(tasks[0].inputs), frozen)


def test_it_cannot_be_exported_and_says_so(tiny: Folder, tasks: list[Examples], tmp_path: Path) -> None:
    learner = RanPAC(str(tiny("vit")), projection_dim=50)
    for export in FORMS.values():
        with pytest.raises(LearnerError, match="has learned no class"):
            export(learner, tmp_path / "new")
    learner.learn(tasks[0])
    for export in FORMS.values():
        with pytest.raises(LearnerError, match="not linear in the backbone's features, so it cannot be exported"):
            export(learner, tmp_path / "new")
    with pytest.raises(LearnerError, match="cannot be exported"):
        learner.encoder_weights()
    assert not (tmp_path / "new").exists()


def test_digits_are_classified_better_than_by_the_nearest_mean() -> None:
    train, test = digits()
    stream = ClassIncremental(train, test, tasks=5, train_per_class=40, eval_per_class=40)
    scores = []
    for learner in (RanPAC(Backbone("micro-vit"), projection_dim=500), FrozenBackbone("micro-vit", head="prototypes")):
        for stage in stream:
            learner.learn(stage.train)
        eval_sets = [learner.evaluate(eval_set)["accuracy"] for eval_set in stage.eval_sets.values()]
        scores.append(sum(eval_sets) / len(eval_sets))
    assert scores[0] > max(0.9, scores[1])
