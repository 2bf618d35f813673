"""Streams of many tasks of one class each, with very few examples."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.examples import Examples
from newcomer.estimator import NewcomerClassifier

TASKS, WIDTH = 200, 16
SECONDS = 120.0
"""Of the processor, for 200 tasks: it takes a tenth of that."""


def features(seed: int) -> tuple[NDArray[Any], Callable[[int, int], NDArray[Any]]]:
    """Means of classes, and a function that draws examples of one: some directions vary ten times as much as others."""
    rng = np.random.default_rng(seed)
    stds = np.geomspace(0.3, 3.0, WIDTH)
    means = rng.normal(size=(TASKS, WIDTH)) * 2
    return means, lambda k, n: means[k] + rng.normal(size=(n, WIDTH)) * stds


def accuracy(head: Any, each: int) -> tuple[float, float]:
    """Of 200 tasks of one class, learned one after the other from features; and that of the nearest mean by distance."""
    _, draw = features(0)
    learned = []
    model, start = NewcomerClassifier(head=head), time.process_time()
    for k in range(TASKS):
        learned.append(draw(k, each).astype(np.float32))
        model.partial_fit(learned[-1], [k] * each)
    asked = np.concatenate([draw(k, 4) for k in range(TASKS)])
    said = model.predict_proba(asked)
    assert time.process_time() - start < SECONDS
    assert np.isfinite(said).all()
    wanted, means = np.repeat(np.arange(TASKS), 4), np.stack([x.mean(0) for x in learned])
    nearest = np.linalg.norm(asked[:, None] - means, axis=2).argmin(1)
    return float((model.classes_[said.argmax(1)] == wanted).mean()), float((nearest == wanted).mean())


@pytest.mark.parametrize("each", [1, 3])
def test_two_hundred_tasks_of_one_class_are_learned_from_features(each: int) -> None:
    default, nearest = accuracy("lda", each)
    if each == 1:  # the covariance is a multiple of the identity
        assert default == pytest.approx(nearest, abs=2 / TASKS)
    else:
        assert default > max(nearest, accuracy("prototypes", each)[0])
    assert default > 20 / TASKS


def picture(k: int, seed: int) -> NDArray[np.uint8]:
    """A pattern of its own for each class, with noise."""
    pattern = np.random.default_rng(k).integers(0, 256, (8, 8, 3))
    return np.clip(pattern + np.random.default_rng(seed).normal(size=(8, 8, 3)) * 20, 0, 255).astype(np.uint8)


def test_two_hundred_tasks_of_one_class_are_learned_by_a_backbone(tiny: Callable[[str], Path]) -> None:
    model, start = FrozenBackbone(str(tiny("vit"))), time.process_time()
    for k in range(TASKS):
        model.learn(Examples([picture(k, 0), picture(k, 1)], [str(k)] * 2))
    assert time.process_time() - start < SECONDS
    asked = [picture(k, 2) for k in range(TASKS)]
    said = model.predict_proba(asked)
    assert np.isfinite(said).all()
    right = (said.argmax(1) == np.arange(TASKS)).mean()
    model.classifier.settings = type(model.classifier.settings)("prototypes", drift_map=False)
    model.classifier.memory = type(model.memory)(**vars(model.memory))  # computed anew, with the other head
    assert right >= (model.logits(asked).argmax(1).numpy() == np.arange(TASKS)).mean() - 2 / TASKS
    assert right > 0.5


def test_the_default_learner_takes_tasks_of_one_class_and_then_trains_on_two(tiny: Callable[[str], Path]) -> None:
    model = SDLoRA(str(tiny("vit")), epochs=1, rank=2)
    for k in range(3):
        model.learn(Examples([picture(k, seed) for seed in range(2)], [str(k)] * 2))
    assert not model.info()["magnitudes"]
    model.learn(Examples([picture(k, seed) for k in (3, 4) for seed in range(2)], ["3", "3", "4", "4"]))
    assert len(model.info()["magnitudes"]) == 1
    assert np.isfinite(model.predict_proba([picture(k, 9) for k in range(5)])).all()
