"""The scikit-learn estimator: the library's own checks, new classes by `partial_fit`, images and texts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from newcomer import FrozenBackbone
from newcomer.data.examples import Examples
from newcomer.errors import DataError, NewcomerError
from newcomer.estimator import NewcomerClassifier

KNOWN: dict[str, str] = {}
"""Checks that the estimator cannot pass, with the reason."""


@parametrize_with_checks([NewcomerClassifier()], expected_failed_checks=lambda _: KNOWN)  # type: ignore[untyped-decorator]
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def test_partial_fit_takes_new_classes_and_equals_one_fit() -> None:
    x, y = load_digits(return_X_y=True)
    step_by_step = NewcomerClassifier(head="ridge")
    for task in ([7, 3], [0, 1, 2], [4, 5, 6, 8, 9]):
        rows = np.isin(y, task)
        step_by_step.partial_fit(x[rows], y[rows])
    at_once = NewcomerClassifier(head="ridge").fit(x, y)
    assert step_by_step.classes_.tolist() == at_once.classes_.tolist() == list(range(10))
    assert (step_by_step.predict(x) == at_once.predict(x)).mean() > 0.99
    assert step_by_step.score(x, y) > 0.9
    probability = step_by_step.predict_proba(x[:5])
    assert probability.shape == (5, 10)
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-6)


def test_it_is_searched_and_piped_as_any_other() -> None:
    x, y = load_digits(return_X_y=True)
    pipe = make_pipeline(StandardScaler(), NewcomerClassifier())
    search = GridSearchCV(pipe, {"newcomerclassifier__shrinkage": [0.01, 0.5]}, cv=2).fit(x[:600], y[:600])
    assert search.best_score_ > 0.8
    assert clone(NewcomerClassifier(head="ridge")).get_params()["head"] == "ridge"


def test_images_are_classified_as_by_the_learner(tiny: Callable[[str], Path], tasks: list[Examples]) -> None:
    folder = str(tiny("vit"))
    model = NewcomerClassifier(folder, head="lda")
    learner = FrozenBackbone(folder, head="lda")
    for task in tasks[:2]:
        model.partial_fit(list(task.inputs), task.labels)
        learner.learn(task)
    inputs = list(tasks[0].inputs) + list(tasks[1].inputs)
    assert model.predict(inputs).tolist() == learner.predict(inputs)
    order = [learner.classes.index(name) for name in model.classes_]
    np.testing.assert_allclose(model.predict_proba(inputs), learner.predict_proba(inputs)[:, order], atol=1e-5)


def test_a_second_fit_forgets_the_first(tiny: Callable[[str], Path]) -> None:
    model = NewcomerClassifier().fit([[0.0, 1], [0, 2], [1, 0], [2, 0]], ["a", "a", "b", "b"])
    assert model.fit([[0.0, 1, 0], [0, 2, 0], [1, 0, 0], [2, 0, 0]], [3, 3, 4, 4]).classes_.tolist() == [3, 4]
    assert model.n_features_in_ == 3


@pytest.mark.parametrize("head", ["prototypes", "lda", "ridge", "gaussian", "kernel", "auto"])
def test_every_head_learns_iris_like_data(head: Any) -> None:
    chance = np.random.default_rng(0)
    y = np.repeat(["x", "y", "z"], 30)
    x = chance.normal(size=(90, 4)) + 4 * np.eye(4)[np.repeat([0, 1, 2], 30)]
    assert NewcomerClassifier(head=head).fit(x[::2], y[::2]).score(x[1::2], y[1::2]) > 0.9


TEXTS = ["my card is lost", "lost my card", "rate of the euro", "exchange rate"]
ARRAYS = [[0.0, 1.0], [0.1, 0.9], [1.0, 0.0], [0.9, 0.1]]


@pytest.mark.parametrize(
    ("arguments", "inputs", "message"),
    [
        ({"backbone": None}, ARRAYS, "backbone = None cannot be: give 'features'"),
        ({"backbone": 3}, ARRAYS, "backbone = 3 cannot be: give 'features'"),
        (
            {"backbone": "featurs"},
            TEXTS,
            r"backbone 'featurs' cannot be loaded .*; for arrays .* leave it at 'features'",
        ),
        ({"backbone": "micro-vit"}, ARRAYS, "array of numbers, but backbone = 'micro-vit' reads images or texts"),
        (
            {"backbone": "micro-vit"},
            np.array(ARRAYS),
            "array of numbers, but backbone = 'micro-vit' reads images or texts",
        ),
        (
            {"backbone": "micro-vit"},
            TEXTS,
            "my card is lost: no such file; this model reads images, .* use a text encoder",
        ),
        ({}, TEXTS, "inputs of type str, but backbone = 'features' takes arrays of numbers"),
        ({}, np.array(TEXTS), "inputs of type str_, but backbone = 'features' takes arrays of numbers"),
        ({"head": "kernl"}, ARRAYS, "NewcomerClassifier.head = 'kernl' cannot be"),
        ({"shrinkage": -1}, ARRAYS, "NewcomerClassifier.shrinkage = -1 cannot be"),
        ({"learner": "sd-lora"}, ARRAYS, "nothing is trained; leave learner and settings out"),
        ({"settings": {"epochs": 3}}, ARRAYS, "nothing is trained; leave learner and settings out"),
        ({"backbone": "micro-vit", "learner": "emerg"}, TEXTS, "learner = 'emerg' is a click model"),
        ({"backbone": "micro-vit", "learner": "sdlora"}, TEXTS, "did you mean 'sd-lora'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments: dict[str, Any], inputs: Any, message: str) -> None:
    with pytest.raises(NewcomerError, match=message):
        NewcomerClassifier(**arguments).fit(inputs, ["a", "a", "b", "b"])


def test_predicting_refuses_inputs_of_the_other_kind() -> None:
    model = NewcomerClassifier().fit(ARRAYS, ["a", "a", "b", "b"])
    with pytest.raises(DataError, match="takes arrays of numbers"):
        model.predict(TEXTS)
    with pytest.raises(DataError, match="takes arrays of numbers"):
        model.predict("my card")
