"""Simulated clicks: drawn from the stated probabilities, with the planted interactions."""

import numpy as np
import pytest

from newcomer.data.datasets.simulated_clicks import (
    CONTEXT_FIELDS,
    PLANTED,
    PROBABILITY,
    USER_FIELDS,
    simulate_click_log,
)
from newcomer.errors import SettingError
from newcomer.metrics.ranking import auc, bayes_auc
from newcomer.streams.cold_start import ColdStart


def test_the_same_seed_gives_the_same_world_and_another_another() -> None:
    first, again, other = (simulate_click_log(old_items=5, new_items=2, seed=seed) for seed in (0, 0, 1))
    assert (first.label == again.label).all()
    assert (first.context[PROBABILITY].values == again.context[PROBABILITY].values).all()
    assert (first.label != other.label).any()


def test_clicks_are_drawn_from_the_stated_probabilities() -> None:
    log = simulate_click_log()
    p = log.context[PROBABILITY].values
    assert log.label.mean() == pytest.approx(p.mean(), abs=0.01)
    assert auc(log.label, p) == pytest.approx(bayes_auc(p), abs=0.01)


def test_a_kind_of_items_has_one_pair_of_fields_and_no_two_kinds_the_same() -> None:
    items = simulate_click_log().items
    kinds = set(zip(items.columns["kind"].texts(), items.columns[PLANTED].texts(), strict=True))
    assert len(kinds) == len({kind for kind, _ in kinds}) == len({pair for _, pair in kinds}) == 20
    for pair in items.columns[PLANTED].texts():
        assert set(pair.split(" × ")) <= {*USER_FIELDS, *CONTEXT_FIELDS}


def test_without_clarity_fields_do_not_show_the_kind() -> None:
    clear, dim = (simulate_click_log(clarity=clarity).items.columns["kind"].texts() for clarity in (1.0, 0.5))
    same = np.mean([a == b for a, b in zip(clear, dim, strict=True)])
    assert 0.4 < same < 0.65


def test_simulated_logs_differ_in_the_planted_interaction_only() -> None:
    with_it, without = (simulate_click_log(planted=planted) for planted in (True, False))
    assert (with_it.item == without.item).all()
    logit = [np.log(p / (1 - p)) for p in (world.context[PROBABILITY].values for world in (with_it, without))]
    assert np.allclose(np.abs(logit[0] - logit[1]), 2.0)


def test_no_schema_contains_the_true_probabilities() -> None:
    log = simulate_click_log(old_items=2, new_items=1)
    assert not {PROBABILITY, PLANTED} & {node.name for node in log.schema.nodes}


def test_the_stream_reports_the_bayes_limit_of_its_query() -> None:
    stream = ColdStart(simulate_click_log(old_items=10, new_items=5), min_old_events=125, phase_events=10)
    assert stream.info()["limit"] == bayes_auc(stream.new.query.context[PROBABILITY].values)


def test_a_world_that_cannot_be_is_an_error() -> None:
    with pytest.raises(SettingError, match="kinds = 29: there are only 28 pairs"):
        simulate_click_log(kinds=29)
    with pytest.raises(SettingError, match="raise them"):
        simulate_click_log(users=0)
