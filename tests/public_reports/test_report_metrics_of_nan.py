"""Non-finite scores: no metric is computed from them, and no model that gives them is chosen."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from films import QUICK, SCHEMA, log
from newcomer.data.io.log_reader import log_from_frame
from newcomer.errors import DataError, LearnerError
from newcomer.items.lifecycle import Lifecycle
from newcomer.items.methods.emerg import EmerG
from newcomer.metrics.calibration import calibration, calibration_by, calibration_error, item_logloss, logloss
from newcomer.metrics.ranking import auc, bayes_auc, click_scores, f1, group_auc, item_auc, user_auc
from newcomer.streams.cold_start import OldItems, ValidationLife
from newcomer.streams.stage import Stage

LABELS = [0, 1, 0, 1]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "metric",
    [auc, f1, logloss, calibration, calibration_error]
    + [
        lambda y, p, of=of: of([1, 1, 2, 2], y, p)
        for of in (group_auc, item_auc, user_auc, item_logloss, calibration_by, click_scores)
    ],
)
def test_a_score_that_is_no_number_is_an_error(metric: Callable[..., Any], wrong: float) -> None:
    """A diverged model whose scores were all NaN: its AUC was 1.0 or 0.0 by the order of the rows, and it won a search."""
    for scores in ([wrong] * 4, [0.1, 0.2, wrong, 0.9]):
        with pytest.raises(
            DataError, match=r"of 4 scores are no finite numbers, the first is .* in row [13]; .* has diverged"
        ):
            metric(LABELS, scores)
    with pytest.raises(DataError, match="labels are no finite numbers"):
        metric([0, wrong, 1, 1], [0.1, 0.2, 0.3, 0.4])


def test_true_probabilities_that_are_no_numbers_are_an_error() -> None:
    """The same of the AUC that true probabilities allow."""
    with pytest.raises(DataError, match="no finite numbers"):
        bayes_auc([0.5, float("nan")])


def test_a_model_with_non_finite_weights_gives_no_scores_and_fails_its_evaluation() -> None:
    """A diverged row of a comparison was judged like any other; now its run ends, which a search counts as a failed try."""
    model = EmerG(SCHEMA, **QUICK).learn(log())
    with torch.no_grad():
        model.network.start.fill_(torch.nan)
        model.network.row_fields.tables[0].fill_(torch.nan)
    with pytest.raises(
        LearnerError, match=r"400 of 400 scores are no numbers, the first that of item 'film \d' \(row 1\)"
    ):
        model.score(log())


def test_a_training_with_a_non_finite_validation_score_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A diverged trial, found by the held-out items, ended the whole search: it was an error of the data."""
    old = log_from_frame(log(), SCHEMA)
    validation = ValidationLife(old.items, (old,), old)
    monkeypatch.setattr(Lifecycle, "predict", lambda *_: np.full(len(old), np.nan))
    with pytest.raises(LearnerError, match="the scores of held-out items are not finite; lower the learning rate"):
        list(EmerG(SCHEMA, **QUICK).fit_stage(Stage("old", OldItems(old, validation), {})))
