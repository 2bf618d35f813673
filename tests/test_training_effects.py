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
from newcomer.classes.heads import make_head
from newcomer.data.examples import Examples
from newcomer.data.io.log_reader import log_from_frame
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
    temperature = memory.temperature("lda")
    assert abs(temperature - 1) > 0.05
    learner.learn(examples)
    torch.testing.assert_close(linear_head(learner).weight.detach(), weight / temperature, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(linear_head(learner).bias.detach(), bias / temperature, atol=1e-4, rtol=1e-3)


def test_validation_items_have_the_click_rates_of_new_items() -> None:
    """Old items with click rates 0, 1/8, …, 1; all new items at 3/4 and 7/8: the validation items are the nearest ones."""
    clicks = {f"old {n}": [i < n for i in range(8)] * 10 for n in range(9)}
    clicks |= {f"new {n}": [i < n for i in range(8)] * 4 for n in (6, 7)}
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
