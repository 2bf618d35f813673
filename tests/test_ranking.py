"""Ranking metrics: each fast one beside a slow plain one, and the truths that hold for all scores."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss

from newcomer.errors import DataError
from newcomer.metrics.ranking import auc, bayes_auc, calibration, click_scores, f1, item_auc, logloss

ROWS = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 8)), min_size=1, max_size=40)


def counted(label: list[int], score: list[float]) -> float:
    """AUC by looking at every pair."""
    clicks, misses = ([s for y, s in zip(label, score, strict=True) if y == wanted] for wanted in (1, 0))
    pairs = [(c > m) + (c == m) / 2 for c in clicks for m in misses]
    return sum(pairs) / len(pairs) if pairs else math.nan


@given(ROWS)
def test_auc_is_what_counting_pairs_gives(rows: list[tuple[int, bool, int]]) -> None:
    label, score = [int(y) for _, y, _ in rows], [s / 8 for _, _, s in rows]
    assert auc(label, score) == pytest.approx(counted(label, score), nan_ok=True)


@given(ROWS)
def test_item_auc_is_the_mean_of_the_items_own(rows: list[tuple[int, bool, int]]) -> None:
    item, label, score = [i for i, _, _ in rows], [int(y) for _, y, _ in rows], [s / 8 for _, _, s in rows]
    own = [
        counted([label[r] for r in of], [score[r] for r in of])
        for i in set(item)
        for of in [[r for r, other in enumerate(item) if other == i]]
    ]
    usable = [value for value in own if not math.isnan(value)]
    expected = sum(usable) / len(usable) if usable else math.nan
    assert item_auc(item, label, score) == pytest.approx(expected, nan_ok=True)


@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.5000001, 0.9, 1.0]), min_size=1, max_size=30))
def test_bayes_auc_is_what_counting_pairs_gives(p: list[float]) -> None:
    above = sum(a * (1 - b) * ((a > b) + (a == b) / 2) for a in p for b in p)
    pairs = sum(p) * sum(1 - b for b in p)
    assert bayes_auc(p) == pytest.approx(above / pairs if pairs else math.nan, nan_ok=True)


def test_bayes_auc_is_met_by_labels_drawn_from_the_probabilities() -> None:
    chance = np.random.default_rng(0)
    p = chance.beta(1, 2, 200_000)
    assert auc(chance.random(len(p)) < p, p) == pytest.approx(bayes_auc(p), abs=3e-3)


@given(ROWS)
def test_a_rising_change_of_scores_changes_no_auc(rows: list[tuple[int, bool, int]]) -> None:
    item, label, score = ([row[n] for row in rows] for n in range(3))
    raised = [s**3 / 100 - 5 for s in score]
    assert auc(label, raised) == pytest.approx(auc(label, score), nan_ok=True)
    assert item_auc(item, label, raised) == pytest.approx(item_auc(item, label, score), nan_ok=True)
    assert auc(label, [-s for s in score]) == pytest.approx(1 - auc(label, score), nan_ok=True)


def test_logloss_and_f1_are_those_of_scikit_learn() -> None:
    chance = np.random.default_rng(1)
    label, p = chance.integers(0, 2, 50), chance.random(50)
    assert logloss(label, p) == pytest.approx(log_loss(label, p))
    assert f1(label, p) == pytest.approx(f1_score(label, p > p.mean()))


def test_calibration_is_expected_clicks_over_clicks() -> None:
    assert calibration([1, 0, 1, 0], [0.5, 0.5, 0.5, 0.5]) == 1
    assert calibration([0, 0], [0.5, 0.5]) == math.inf


def test_one_kind_of_label_has_no_auc() -> None:
    assert math.isnan(auc([1, 1], [0.1, 0.2]))
    assert math.isnan(item_auc([0, 1], [0, 1], [0.1, 0.2]))


def test_all_scores_come_by_name() -> None:
    found = click_scores([0, 0, 1, 1], [0, 1, 0, 1], [0.2, 0.8, 0.3, 0.7])
    assert set(found) == {"auc", "item_auc", "logloss", "calibration", "f1"}
    assert found["auc"] == found["item_auc"] == found["f1"] == 1


def test_too_few_scores_are_an_error() -> None:
    with pytest.raises(DataError, match="2 labels and 1 scores"):
        auc([0, 1], [0.5])
