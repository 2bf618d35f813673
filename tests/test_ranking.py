"""Ranking metrics: each against a slow plain form, and identities that hold for all scores."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss

from newcomer.errors import DataError
from newcomer.metrics.calibration import (
    AGES,
    calibration,
    calibration_by,
    calibration_by_age,
    calibration_error,
    item_logloss,
    logloss,
    normalised_entropy,
)
from newcomer.metrics.ranking import auc, bayes_auc, click_scores, f1, group_auc, item_auc, rela_impr, user_auc

ROWS = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 8)), min_size=1, max_size=40)


def counted(label: list[int], score: list[float]) -> float:
    """AUC by looking at every pair."""
    clicks, misses = ([s for y, s in zip(label, score, strict=True) if y == wanted] for wanted in (1, 0))
    pairs = [(c > m) + (c == m) / 2 for c in clicks for m in misses]
    return sum(pairs) / len(pairs) if pairs else math.nan


def places(values: list[int]) -> dict[int, list[int]]:
    """Of every value the rows that have it."""
    return {value: [row for row, other in enumerate(values) if other == value] for value in values}


@settings(deadline=None)
@given(ROWS)
def test_auc_is_what_counting_pairs_gives(rows: list[tuple[int, bool, int]]) -> None:
    label, score = [int(y) for _, y, _ in rows], [s / 8 for _, _, s in rows]
    assert auc(label, score) == pytest.approx(counted(label, score), nan_ok=True)


@settings(deadline=None)
@given(ROWS)
def test_item_auc_is_the_mean_of_the_items_own(rows: list[tuple[int, bool, int]]) -> None:
    item, label, score = [i for i, _, _ in rows], [int(y) for _, y, _ in rows], [s / 8 for _, _, s in rows]
    own = [counted([label[r] for r in of], [score[r] for r in of]) for of in places(item).values()]
    usable = [value for value in own if not math.isnan(value)]
    expected = sum(usable) / len(usable) if usable else math.nan
    assert item_auc(item, label, score) == pytest.approx(expected, nan_ok=True)
    assert user_auc(item, label, score) == pytest.approx(expected, nan_ok=True)


@settings(deadline=None)
@given(ROWS)
def test_a_weighted_group_counts_as_often_as_it_has_rows(rows: list[tuple[int, bool, int]]) -> None:
    group, label, score = [i for i, _, _ in rows], [int(y) for _, y, _ in rows], [s / 8 for _, _, s in rows]
    rows_of = places(group)
    own = [counted([label[r] for r in rows_of[i]], [score[r] for r in rows_of[i]]) for i in group]  # once a row
    usable = [value for value in own if not math.isnan(value)]
    expected = sum(usable) / len(usable) if usable else math.nan
    assert group_auc(group, label, score, weighted=True) == pytest.approx(expected, nan_ok=True)


@settings(deadline=None)
@given(ROWS)
def test_item_logloss_is_the_mean_of_the_items_own(rows: list[tuple[int, bool, int]]) -> None:
    item, label, p = [i for i, _, _ in rows], [int(y) for _, y, _ in rows], [s / 8 for _, _, s in rows]
    own = [logloss([label[r] for r in of], [p[r] for r in of]) for of in places(item).values()]
    assert item_logloss(item, label, p) == pytest.approx(sum(own) / len(own))


@settings(deadline=None)
@given(ROWS)
def test_calibration_by_groups_is_counting_in_every_group(rows: list[tuple[int, bool, int]]) -> None:
    item, label, p = [i for i, _, _ in rows], [int(y) for _, y, _ in rows], [s / 8 for _, _, s in rows]
    found = calibration_by(item, label, p)
    assert list(found) == [str(i) for i in sorted(set(item))]
    for i, of in places(item).items():
        sums = {"rows": len(of), "expected": sum(p[r] for r in of), "clicks": sum(label[r] for r in of)}
        assert found[str(i)] == pytest.approx(sums)


@settings(deadline=None)
@given(st.lists(st.integers(0, 250), min_size=1, max_size=40))
def test_an_age_lies_in_the_bucket_whose_name_holds_it(before: list[int]) -> None:
    found = calibration_by_age(before, [1] * len(before), [0.5] * len(before))
    ends = [*AGES[1:], 10**9]
    for name, sums in found.items():
        begin = int(name.rstrip("+").partition("-")[0])
        end = ends[AGES.index(begin)]
        assert name in (f"{begin}+", str(begin), f"{begin}-{end - 1}")
        assert sums["rows"] == sum(begin <= age < end for age in before)
    assert sum(sums["rows"] for sums in found.values()) == len(before)


@settings(deadline=None)
@given(ROWS, st.integers(1, 20))
def test_calibration_error_is_what_counting_in_bins_gives(rows: list[tuple[int, bool, int]], bins: int) -> None:
    label, p = [int(y) for _, y, _ in rows], [s / 8 for _, _, s in rows]
    places_in_bins = places([min(int(share * bins), bins - 1) for share in p])  # eighths: exact in binary
    off = sum(abs(sum(p[r] - label[r] for r in of)) for of in places_in_bins.values()) / len(p)
    assert calibration_error(label, p, bins) == pytest.approx(off, abs=1e-12)


@settings(deadline=None)
@given(ROWS)
def test_predicting_the_click_rate_has_normalised_entropy_1(rows: list[tuple[int, bool, int]]) -> None:
    label = [int(y) for _, y, _ in rows]
    rate = sum(label) / len(label)
    expected = 1.0 if 0 < rate < 1 else math.nan
    assert normalised_entropy(label, [rate] * len(label)) == pytest.approx(expected, nan_ok=True)


def test_rela_impr_is_0_at_the_base_and_minus_100_at_chance() -> None:
    assert rela_impr(0.7, 0.7) == 0
    assert rela_impr(0.5, 0.7) == -100
    assert rela_impr(0.9, 0.7) == pytest.approx(100)
    assert math.isnan(rela_impr(0.7, 0.5))


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.5000001, 0.9, 1.0]), min_size=1, max_size=30))
def test_bayes_auc_is_what_counting_pairs_gives(p: list[float]) -> None:
    above = sum(a * (1 - b) * ((a > b) + (a == b) / 2) for a in p for b in p)
    pairs = sum(p) * sum(1 - b for b in p)
    assert bayes_auc(p) == pytest.approx(above / pairs if pairs else math.nan, nan_ok=True)


def test_bayes_auc_is_met_by_labels_drawn_from_the_probabilities() -> None:
    chance = np.random.default_rng(0)
    p = chance.beta(1, 2, 200_000)
    assert auc(chance.random(len(p)) < p, p) == pytest.approx(bayes_auc(p), abs=3e-3)


@settings(deadline=None)
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
    item, label, p = [0, 0, 1, 1], [0, 1, 0, 1], [0.2, 0.8, 0.3, 0.7]
    found = click_scores(item, label, p)
    of_labels = (logloss, normalised_entropy, calibration, calibration_error, f1, auc)
    assert found == {score.__name__: score(label, p) for score in of_labels} | {
        score.__name__: score(item, label, p) for score in (item_auc, item_logloss)
    }
    assert found["auc"] == found["item_auc"] == found["f1"] == 1
    assert click_scores(item, label, p, user=["b", "a", "a", "b"]) == found | {"user_auc": 1.0}


@pytest.mark.parametrize("label", [[], [0], [1, 1]])
def test_what_is_undefined_is_nan_and_no_warning(label: list[int]) -> None:
    rows = range(len(label))
    found = click_scores(rows, label, [0.5] * len(label), user=rows)
    undefined = {"auc", "item_auc", "user_auc", "normalised_entropy"} | (set() if label else set(found))
    assert {name for name, value in found.items() if math.isnan(value)} == undefined
    assert calibration_by([], [], []) == calibration_by_age([], [], []) == {}


def test_too_few_scores_are_an_error() -> None:
    with pytest.raises(DataError, match="2 labels and 1 scores"):
        auc([0, 1], [0.5])
