"""The curve of an item's clicks: as they came, beside what a new item with its features was expected to have."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from films import QUICK, SCHEMA, events, features, log, requests, trained
from newcomer.errors import DataError
from newcomer.items.methods.emerg import EmerG
from newcomer.items.serving.click_curve import click_curve
from newcomer.items.serving.service import ItemService
from newcomer.store.states import KEPT


@pytest.mark.parametrize("count", [1, 30, KEPT + 40])
def test_a_curve_sums_up_the_clicks_and_the_scores_of_an_item_like_it_without_events(
    tmp_path: Path, count: int
) -> None:
    with ItemService.open(trained(tmp_path / "films"), "sqlite://") as service:
        service.add(features("new", "twin"))
        assert click_curve(service, "new") is None
        service.warm(events("new", count))
        found = click_curve(service, "new")
        assert found is not None
        latest = events("new", count).tail(KEPT)
        np.testing.assert_allclose(found.clicks, np.cumsum(latest["liked"].to_numpy()))
        cold = service.score(requests("twin"))["score"][0]  # all events had this viewer and page
        np.testing.assert_allclose(found.expected, cold * np.arange(1, len(latest) + 1), rtol=1e-4)
        with pytest.raises(DataError, match="item 'other' is not known"):
            click_curve(service, "other")


def test_events_have_their_weights(tmp_path: Path) -> None:
    schema = replace(SCHEMA, weight="times")
    EmerG(schema, **QUICK).learn(log().with_columns(times=1.0)).save(tmp_path / "films")
    with ItemService.open(tmp_path / "films", "sqlite://") as service:
        service.add(features("new"))
        service.warm(events("new", 3).with_columns(times=pl.Series([10.0, 0.5, 2.0])))
        found = click_curve(service, "new")
        assert found is not None
        assert found.clicks == [0.0, 0.5, 0.5]
        assert found.expected[0] == pytest.approx(10 * found.expected[-1] / 12.5)


def test_there_is_none_where_no_values_of_events_are_kept(tmp_path: Path) -> None:
    with ItemService.open(trained(tmp_path / "films", warmup_events="new"), "sqlite://") as service:
        service.add(features("new"))
        service.warm(events("new", 5))
        assert click_curve(service, "new") is None
