"""Labels of another kind than a model was trained with are refused, and so is a log with a single label."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from films import QUICK, SCHEMA, events
from films import log as films
from newcomer.data.click_log import ClickLog
from newcomer.data.io.log_reader import log_from_rows
from newcomer.data.io.log_statistics import LogStatistics
from newcomer.data.labels import LabelStatistics
from newcomer.data.schema import Schema
from newcomer.errors import DataError, DataWarning
from newcomer.items.encoding.encoder import Encoder
from newcomer.items.methods.emerg import EmerG
from newcomer.items.serving.service import ItemService

STARS = Schema("i", "u", "stars", clicked_from=4.0)


def log(labels: list[Any], schema: Schema = STARS, **columns: list[Any]) -> ClickLog:
    count = len(labels)
    rows: dict[str, Any] = {
        "i": ["a"] * count,
        "u": [1] * count,
        schema.label: labels,
        "time": list(range(count)),
    } | columns
    return log_from_rows(schema, **rows)


def warnings_of(encoder: Encoder, later: ClickLog) -> list[str]:
    """What is warned of in labels that are not refused."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encoder.require_labels(later)
    return [str(one.message) for one in caught]


@pytest.mark.parametrize("label", [True, False, "true", "TRUE", " false"])
def test_true_is_no_number_of_stars(label: Any) -> None:
    """A model trained on stars was warmed with `true`: twenty clicks counted as twenty non-clicks, .834 fell to .073."""
    with pytest.raises(DataError, match=r"row 1, label 'stars' is .*, but clicks are labels from 4 on; write numbers"):
        log([label] * 3)


@pytest.mark.parametrize("labels", [[1] * 20, [1.0] * 20, ["1"] * 20, [0, 1] * 5, [0], [6], [-1, 5], [100, 80]])
def test_labels_of_another_scale_than_in_training_are_refused(labels: list[Any]) -> None:
    """The same with 1 in the place of 5 stars, and with another scale."""
    encoder = Encoder.fit(log([1, 2, 3, 4, 5] * 20))
    with pytest.raises(DataError, match=r"events: labels 'stars' .* in training.* clicks are labels from 4 on"):
        encoder.require_labels(log(labels), "events")


@pytest.mark.parametrize(
    ("trained", "threshold", "labels", "wrong"),
    [
        (list(range(101)), 60.0, [0.7, 0.85, 0.95, 0.99], "from 0 to 1"),  # fractions for percents
        (list(range(101)), 60.0, [70, 85, 99], None),
        (list(range(101)), 60.0, [0.7, 85], None),
        ([0.1, 0.4, 0.7, 1.0, 5.0], 0.6, [0.2, 0.9] * 9, None),  # fractions are usual here
        ([0.0, 0.25, 0.5, 1.0], 0.6, [0.5, 0.9] * 99, None),
    ],
)
def test_fractions_given_for_percents_are_refused(
    trained: list[float], threshold: float, labels: list[float], wrong: str | None
) -> None:
    """Shares of .70 to .99 given to a model of percents: every one counted as no click."""
    schema = Schema("i", "u", "score", clicked_from=threshold)
    encoder = Encoder.fit(log(trained, schema))
    if wrong is None:
        return encoder.require_labels(log(labels, schema))
    with pytest.raises(DataError, match=f"labels 'score' are all {wrong}, but only 2 of 101 labels in training were"):
        encoder.require_labels(log(labels, schema))
    return None


def test_a_store_that_counted_zeros_and_ones_is_read() -> None:
    """Its fractions were not counted; where no label of training was outside 0 to 1 all are."""
    old = {"lowest": 0.0, "highest": 5.0, "count": 100, "binary": 6}
    assert LabelStatistics.from_json(old) == LabelStatistics(0.0, 5.0, 100, 6)
    assert LabelStatistics.from_json(old | {"highest": 1.0}) == LabelStatistics(0.0, 1.0, 100, 100)


@pytest.mark.parametrize("labels", [[5] * 20, [1], [1, 5, 1], [4.5, 2], [3] * 50])
def test_labels_of_the_same_scale_are_accepted(labels: list[Any]) -> None:
    """One star is one star, as long as there are not very many of it alone."""
    assert warnings_of(Encoder.fit(log([1, 2, 3, 4, 5] * 20)), log(labels)) == []


def test_the_scale_of_training_is_kept_and_a_store_from_before_has_none() -> None:
    """What was seen in training comes back with the store; without it very many labels of 0 and 1 are refused all the same."""
    encoder = Encoder.fit(log([1, 2, 3, 4, 5] * 20))
    again = Encoder.from_json(STARS, encoder.to_json())
    assert again.labels == encoder.labels == LabelStatistics(1, 5, 100, 20)
    old = Encoder.from_json(STARS, [part for part in encoder.to_json() if "labels" not in part])
    assert old.labels is None
    old.require_labels(log([1]))
    with pytest.raises(DataError, match="are all from 0 to 1"):
        old.require_labels(log([1] * 20))


def test_a_threshold_of_one_takes_true_and_false() -> None:
    """Where a click is a label from 1 on, true is one."""
    schema = Schema("i", "u", "stars", clicked_from=1)
    assert log([True, False, True], schema).label.tolist() == [1, 0, 1]
    Encoder.fit(log([0, 1] * 20, schema)).require_labels(log([1] * 20, schema))


@pytest.mark.parametrize(
    ("labels", "schema", "message"),
    [
        (
            [1, 1, 1],
            Schema("i", "u"),
            "label 'label': all of 3 events are clicks; add the impressions that were not clicked",
        ),
        ([0, 0], Schema("i", "u"), "label 'label': none of 2 events is a click; add the events that were clicked"),
        ([1, 2, 3], STARS, "label 'stars': none of 3 events is a click; set clicked_from, which is 4"),
        ([4, 5], STARS, "label 'stars': all of 2 events are clicks; set clicked_from, which is 4"),
    ],
)
def test_a_log_of_one_label_is_refused(labels: list[Any], schema: Schema, message: str) -> None:
    """Users log clicks alone, or set a threshold that no label reaches: training went on without a word."""
    with pytest.raises(DataError, match=message):
        LogStatistics(schema).add(log(labels, schema)).require_both_classes()
    LogStatistics(schema).add(log([*labels, 0, 5] if schema is STARS else [0, 1], schema)).require_both_classes()


@pytest.mark.parametrize("clicked_from", [None, 1.0, 4.0])
def test_label_and_time_swapped_are_refused(clicked_from: float | None) -> None:
    """A schema that names the columns of label and time the wrong way round."""
    schema = Schema("i", "u", "stamp", "clicked", clicked_from=clicked_from)
    with pytest.raises(
        DataError, match=r"label 'stamp' (holds 1700000000 and the like, which are times|is 1700000000)"
    ):
        log_from_rows(schema, i=["a", "b"], u=[1, 2], stamp=[1_700_000_000, 1_700_000_100], clicked=[1, 0])


@pytest.fixture
def rated(tmp_path: Path) -> Iterator[ItemService]:
    """A model of one to five stars."""
    stars = (pl.col("liked") * 2 + pl.col("viewer") % 3 + 1).alias("liked")
    EmerG(replace(SCHEMA, clicked_from=4.0), **QUICK).learn(films().with_columns(stars)).save(tmp_path / "store")
    live = ItemService.open(tmp_path / "store")
    yield live
    live.close()


def one_a_call(live: ItemService, labels: list[float], start: int = 0) -> int:
    """How many of these labels counted."""
    return sum(
        live.warm(events(f"film {n % 8}", 1, start=start + n, liked=label)).new for n, label in enumerate(labels)
    )


def test_labels_of_another_scale_that_come_one_a_call_are_refused(rated: ItemService) -> None:
    """A service sent `click: 1` for every click: each was counted as one star of five."""
    with pytest.raises(
        DataError, match=r"'liked' have all been from 0 to 1 \d+ times in a row, but only \d+ of 400 labels in training"
    ):
        one_a_call(rated, [1] * 40)
    counted = rated.states.unit_labels(rated.model)
    assert 10 < counted < 40
    with pytest.raises(DataError, match="times in a row"):
        one_a_call(rated, [1], start=900)
    assert rated.states.unit_labels(rated.model) == counted
    for n in range(8):
        assert rated.warm(events(f"film {n}", 1, start=n, liked=1)).new == 0  # what comes again counts for no run
    assert one_a_call(rated, [5, 1, 1], start=1000) == 3  # a label of the scale of training begins anew


def test_labels_from_0_to_1_are_accepted_where_training_had_them(tmp_path: Path) -> None:
    """Where labels of training were from 0 to 1 themselves, nothing is refused."""
    EmerG(replace(SCHEMA, clicked_from=0.5), **QUICK).learn(films()).save(tmp_path / "store")
    live = ItemService.open(tmp_path / "store")
    assert one_a_call(live, [1] * 20) == 20
    assert live.states.unit_labels(live.model) == 0
    live.close()


TEN = Schema("i", "u", "stars", clicked_from=7.0)


def rows_of(labels: list[float], items: int, users: int) -> ClickLog:
    return log(labels, TEN, i=[n % items for n in range(len(labels))], u=[n % users for n in range(len(labels))])


def test_labels_of_half_the_scale_are_warned_of() -> None:
    """Stars of 1 to 5 given to a model of 1 to 10: each film was liked by nobody."""
    encoder = Encoder.fit(log([*range(1, 11)] * 10, TEN))
    again = Encoder.from_json(TEN, encoder.to_json())
    assert again.labels is not None
    assert encoder.labels is not None
    assert again.labels.quantiles == encoder.labels.quantiles
    with pytest.warns(
        DataWarning, match="'stars' reach 5 at most, where those of training went up to 10; clicks are labels from 7"
    ):
        again.require_labels(rows_of([1, 2, 3, 4, 5] * 8, 25, 25))


@pytest.mark.parametrize(
    ("labels", "items", "users"),
    [
        ([1, 2, 3, 4, 5] * 20, 1, 100),  # a bad film
        ([1, 2, 3] * 30, 90, 1),  # a user who likes nothing
        ([1, 5] * 5, 10, 10),
        ([8, 9, 10] * 30, 90, 90),  # only what was liked
        ([*range(1, 10)] * 10, 90, 90),
    ],
)
def test_a_plausible_part_of_the_scale_is_not_warned_of(labels: list[float], items: int, users: int) -> None:
    """Few items, few users, or few labels, whose part of the scale says nothing of the scale."""
    assert warnings_of(Encoder.fit(log([*range(1, 11)] * 10, TEN)), rows_of(labels, items, users)) == []


def test_pieces_of_a_log_are_summed_up_as_the_whole() -> None:
    """Nearly: by quantiles."""
    numbers = [float(n * 7 % 100) for n in range(1000)]
    parts = [LabelStatistics.of(pl.Series(numbers[begin : begin + 100])) for begin in range(0, 1000, 100)]
    joined, whole = parts[0], LabelStatistics.of(pl.Series(numbers))
    for part in parts[1:]:
        assert joined is not None
        assert part is not None
        joined = joined + part
    assert joined is not None
    assert whole is not None
    assert joined == whole
    assert joined.quantiles == pytest.approx(whole.quantiles, abs=6)
