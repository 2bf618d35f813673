"""Single training settings, each against a computation of its own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from newcomer import Schema, SDLoRA
from newcomer.classes.class_memory import ClassMemory
from newcomer.classes.cross_validation import FOLDS, cross_validate
from newcomer.classes.heads import make_head
from newcomer.data.examples import Examples
from newcomer.data.io.log_reader import log_from_frame
from newcomer.nn.features.temperature import temperature
from newcomer.nn.heads.linear_layer import LinearHead
from newcomer.streams.cold_start import ColdStart
from newcomer.streams.stage import Stage

QUICK: dict[str, Any] = {"rank": 2, "epochs": 2, "batch_size": 8, "device": "cpu", "head": "linear", "drift_map": False}


def logits(learner: SDLoRA, tasks: list[Examples]) -> torch.Tensor:
    return learner.logits([x for task in tasks for x in task.inputs])


def linear_head(learner: SDLoRA) -> LinearHead:
    assert learner.loop is not None
    return learner.loop.linear_head


def test_later_tasks_train_at_the_factored_learning_rates(tiny: Callable[[str], Path], tasks: list[Examples]) -> None:
    folder, first, second = str(tiny("vit")), tasks[0], tasks[1]
    factored = SDLoRA(folder, **QUICK, learning_rate=0.02, head_learning_rate=0.04, later_lr_factor=0.25)
    by_hand = SDLoRA(folder, **QUICK, learning_rate=0.02, head_learning_rate=0.04, later_lr_factor=1.0)
    unfactored = SDLoRA(folder, **QUICK, learning_rate=0.02, head_learning_rate=0.04, later_lr_factor=1.0)
    factored.learn(first).learn(second)
    by_hand.learn(first)
    assert by_hand.loop is not None
    by_hand.loop.training = replace(by_hand.loop.training, learning_rate=0.005, head_learning_rate=0.01)
    by_hand.learn(second)
    assert torch.equal(logits(factored, tasks[:2]), logits(by_hand, tasks[:2]))
    assert not torch.allclose(logits(factored, tasks[:2]), logits(unfactored.learn(first).learn(second), tasks[:2]))


@pytest.mark.parametrize(("head_init", "moving"), [("zero", "head"), ("lda", "factors")])
def test_a_later_task_begins_with_a_step_as_long_as_its_factored_rate(
    head_init: str, moving: str, tiny: Callable[[str], Path], tasks: list[Examples]
) -> None:
    """Adam's first step moves every parameter that has a gradient by its rate; under a head of zeros the factors have none."""
    one_step = QUICK | {"epochs": 1, "batch_size": 100, "head_init": head_init, "weight_averaging": 0.0}
    learner = SDLoRA(str(tiny("vit")), **one_step, learning_rate=0.02, head_learning_rate=0.04, later_lr_factor=0.25)
    for task, factor in zip(tasks[:2], (1.0, 0.25), strict=True):
        for step in learner.fit_stage(Stage("task", task, {})):
            if step.part == "task":
                up = torch.cat([up.detach().flatten() for up in learner.lora.open_up])
        moved, rate = (linear_head(learner).weight.detach()[-2:], 0.04) if moving == "head" else (up[up != 0], 0.02)
        assert len(moved)
        torch.testing.assert_close(moved.abs(), torch.full_like(moved, rate * factor), rtol=1e-2, atol=0.0)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_parameters_end_as_their_mean_over_the_last_steps(
    share: float, tiny: Callable[[str], Path], tasks: list[Examples]
) -> None:
    learner = SDLoRA(str(tiny("vit")), **QUICK, learning_rate=0.02, weight_averaging=share, head_init="zero")
    recorded = [
        linear_head(learner).weight.detach().clone()
        for step in learner.fit_stage(Stage("task 0", tasks[0], {}))
        if step.part == "task 0"
    ]
    last = recorded[len(recorded) - round(share * len(recorded)) :]
    assert len(recorded) > len(last) or share == 1
    torch.testing.assert_close(linear_head(learner).weight.detach(), torch.stack(last).mean(0))
    assert not torch.allclose(linear_head(learner).weight.detach(), recorded[-1])


def test_the_head_starts_at_calibrated_discriminant_analysis(
    tiny: Callable[[str], Path], tasks: list[Examples]
) -> None:
    learner = SDLoRA(str(tiny("vit")), **QUICK, learning_rate=1e-12, head_init="lda", weight_averaging=0.0)
    examples = tasks[0]
    features = learner.features(examples.inputs)
    names = list(dict.fromkeys(examples.labels))
    target = torch.tensor([names.index(label) for label in examples.labels])
    untrained = torch.zeros(len(names), features.shape[1]), torch.zeros(len(names))
    memory, _ = ClassMemory.empty(features.shape[1]).with_task(features, target, "lda", 0.3, untrained)
    weight, bias = memory.fold(make_head("lda", 0.3), untrained)
    divisor = memory.temperature("lda")
    assert abs(divisor - 1) > 0.05
    learner.learn(examples)
    torch.testing.assert_close(linear_head(learner).weight.detach(), weight / divisor, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(linear_head(learner).bias.detach(), bias / divisor, atol=1e-4, rtol=1e-3)


def test_a_tempered_head_starts_at_the_loss_of_held_out_examples(
    tiny: Callable[[str], Path], tasks: list[Examples]
) -> None:
    learner = SDLoRA(str(tiny("vit")), **QUICK | {"batch_size": 100}, learning_rate=1e-12, head_init="tempered")
    features, names = learner.features(tasks[0].inputs), tasks[0].classes
    target = torch.tensor([names.index(label) for label in tasks[0].labels])
    memory, untrained = ClassMemory.empty(features.shape[1]), (torch.zeros(2, features.shape[1]), torch.zeros(2))
    found = cross_validate(memory.statistics, features, target, untrained, 0.3, {"lda": FOLDS})
    assert found is not None
    logits, columns = found.logits["lda"]
    held_out = torch.nn.functional.cross_entropy(logits / temperature(logits, columns), columns)
    losses = [step.values["loss"] for step in learner.fit_stage(Stage("task 0", tasks[0], {})) if step.part == "task 0"]
    assert losses[0] == pytest.approx(held_out.item(), rel=1e-4)
    weight, _ = (
        ClassMemory.empty(features.shape[1])
        .with_task(features, target, "lda", 0.3, untrained)[0]
        .fold(make_head("lda", 0.3), untrained)
    )
    ratio = linear_head(learner).weight.detach() / weight
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=1e-4)


def test_logit_distillation_adds_its_formula_to_the_loss(tiny: Callable[[str], Path], tasks: list[Examples]) -> None:
    """Once by hand, in the last step before the weights are averaged or closed."""
    learner = SDLoRA(str(tiny("vit")), **QUICK | {"batch_size": 100}, learning_rate=0.05, weight_averaging=0.0)
    learner.learn(tasks[0])
    assert learner.loop is not None
    examples, weight = tasks[1], 3.0
    learner.loop.training = replace(learner.loop.training, logit_distillation=weight, epochs=3, head_init="zero")
    teacher, encoded = learner.adapter.teacher(), learner.backbone.encode(examples.inputs)
    rows = [t.clone() for t in learner.loop.linear_head.rows()]
    target = torch.tensor([examples.classes.index(label) for label in examples.labels])
    expected, losses = [], []
    for step in learner.fit_stage(Stage("task 1", examples, {})):
        if step.part == "task 1":
            losses.append(step.values["loss"])
            with torch.no_grad():  # the loss of the next step
                logits = learner.loop.linear_head(learner.adapter.encode(encoded))
                old = (torch.nn.functional.linear(teacher(encoded), *rows) / 2).softmax(1)
                new = (logits[:, :2] / 2).softmax(1)
                divergence = (old * (old / new).log()).sum(1).mean()
                entropy = torch.nn.functional.cross_entropy(logits[:, 2:], target)
                expected.append(float(entropy + weight * 4 * divergence))
    assert losses[0] == pytest.approx(torch.tensor(2.0).log().item())  # teacher and student agree at first
    assert losses[1:] == pytest.approx(expected[:-1], rel=1e-4)


def test_logit_distillation_keeps_old_logits(tiny: Callable[[str], Path], tasks: list[Examples]) -> None:
    moved = []
    for weight in (0.0, 10.0):
        settings = QUICK | {"epochs": 10, "learning_rate": 0.01, "head_init": "zero", "logit_distillation": weight}
        learner = SDLoRA(str(tiny("vit")), **settings)
        probabilities = []
        for task in tasks[:2]:
            features = learner.learn(task).features(tasks[1].inputs)
            probabilities.append(linear_head(learner)(features)[:, :2].softmax(1))
        moved.append(float((probabilities[1] - probabilities[0]).detach().abs().max()))
    assert moved[1] < 0.5 * moved[0]


def test_validation_items_have_the_click_rates_of_new_items() -> None:
    """Old items with click rates 0, 1/8, …, 1; all new items at 3/4 and 7/8: the validation items are the nearest ones.

    The new items' query events, whose labels nobody may see before the end, have 1/4 and 1/8.
    """
    clicks = {f"old {n}": [i < n for i in range(8)] * 10 for n in range(9)}
    clicks |= {f"new {n}": [i < n for i in range(8)] * 3 + [i >= n for i in range(8)] for n in (6, 7)}
    frame = pl.DataFrame(
        [
            {"item": item, "user": n % 7, "click": int(clicked), "time": n}
            for item, of_item in clicks.items()
            for n, clicked in enumerate(of_item)
        ]
    )
    log = log_from_frame(frame, Schema("item", "user", "click", "time"))
    held_out = ColdStart(log, min_old_events=40, phase_events=8, validation=0.25, eval_split="validation").new.items
    assert {str(item) for item in held_out.ids} == {"old 6", "old 7"}
