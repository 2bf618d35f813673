"""The cold-start stream: which events train which stage, and none of the query."""

import itertools
from typing import Any

import numpy as np
import pytest

from newcomer.data.click_log import ClickLog
from newcomer.data.datasets.simulated_clicks import simulate_click_log
from newcomer.data.io.log_reader import log_from_rows
from newcomer.data.schema import Schema
from newcomer.errors import StreamError
from newcomer.streams.cold_start import CURVE, ColdStart, NewEvents, NewItems, OldItems, events_before

PRESETS: list[dict[str, Any]] = [
    {"preset": "paper", "min_old_events": 40},
    {"preset": "honest", "min_old_events": 40, "before": 0.6, "validation": 0.3},
    {"preset": "paper", "min_old_events": 40, "old_items": 5, "new_items": 4, "seed": 3},
]


@pytest.fixture(scope="module")
def log() -> ClickLog:
    return simulate_click_log(old_items=20, old_events=90, new_items=30, new_events=40, users=30)


@pytest.fixture(params=PRESETS, ids=["paper", "honest", "subset"])
def stream(request: pytest.FixtureRequest, log: ClickLog) -> ColdStart:
    settings = request.param | {"phase_events": 3}
    if settings["preset"] == "honest":
        settings["min_old_events"] = 48
    return ColdStart(log, **settings)


def training_data(stream: ColdStart) -> tuple[OldItems, NewItems, list[NewEvents]]:
    old, new, *warm = (stage.train for stage in stream)
    assert isinstance(old, OldItems)
    assert isinstance(old.log, ClickLog)
    assert isinstance(new, NewItems)
    return old, new, [train for train in warm if isinstance(train, NewEvents)]


def test_the_stages_are_the_phases_of_an_item(stream: ColdStart) -> None:
    assert [stage.name for stage in stream] == ["old", "cold", "warm-a", "warm-b", "warm-c"]
    assert len(stream) == 5
    assert [list(stage.eval_sets) for stage in stream] == [[], *[["query"]] * 4]


def test_iterating_again_gives_the_same_rows(stream: ColdStart) -> None:
    rows = [[train.log.row.tolist() for train in training_data(stream)[2]] for _ in range(2)]
    assert rows[0] == rows[1]


def test_training_data_and_query_share_no_row_and_old_and_new_no_item(stream: ColdStart) -> None:
    _old, new, warm = training_data(stream)
    query = next(stage.eval_sets["query"] for stage in stream if stage.eval_sets)
    rows = [part.row for part in (stream.old_log, *(train.log for train in warm), query)]
    assert len(np.unique(np.concatenate(rows))) == sum(map(len, rows))
    names = {stream.old_log.items.ids[item] for item in stream.old_log.item}
    assert not names & set(new.items.ids)
    assert {query.items.ids[item] for item in query.item} <= set(new.items.ids)


def test_phases_go_by_time_and_hold_so_many_events_of_every_item(stream: ColdStart) -> None:
    _, new, warm = training_data(stream)
    query = next(stage.eval_sets["query"] for stage in stream if stage.eval_sets)
    for name in new.items.ids:
        parts = [part.take(part.item == part.items.ids.index(name)) for part in (*(train.log for train in warm), query)]
        assert [len(part) for part in parts[:3]] == [3, 3, 3]
        times = np.concatenate([part.time for part in parts])
        assert (np.sort(times)[:9] == np.sort(times[:9])).all()
        for earlier, later in itertools.pairwise(parts):
            assert not len(later) or earlier.time.max() <= later.time.min()


def test_the_honest_preset_has_one_date_for_all(log: ClickLog) -> None:
    stream = ColdStart(log, preset="honest", min_old_events=48, before=0.6, validation=0.3, phase_events=3)
    old, _, warm = training_data(stream)
    assert old.validation is not None
    held = old.validation
    early = [stream.old_log, held.query, *held.phases]
    late = [*(train.log for train in warm), stream.new.query]
    assert max(int(part.time.max()) for part in early) < min(int(part.time.min()) for part in late)
    assert not set(held.items.ids) & {stream.old_log.items.ids[item] for item in stream.old_log.item}


def test_validation_items_have_as_many_events_as_new_ones(log: ClickLog) -> None:
    stream = ColdStart(log, preset="honest", min_old_events=48, before=0.6, validation=0.3, phase_events=3)
    held = stream.old.validation
    assert held is not None
    allowed = {sum(int((part.item == n).sum()) for part in (*stream.new.phases, stream.new.query)) for n in range(50)}
    for name in held.items.ids:
        item = held.query.items.ids.index(name)
        assert sum(int((part.item == item).sum()) for part in (*held.phases, held.query)) in allowed


def test_events_at_one_time_keep_the_order_in_which_they_were_read() -> None:
    log = log_from_rows(Schema("i", "u"), i=["a"] * 4, u=[1] * 4, label=[0] * 4, time=[5, 5, 4, 5])
    assert events_before(log).tolist() == [1, 2, 0, 3]
    assert events_before(log, backwards=True).tolist() == [2, 1, 3, 0]


def test_a_subset_is_drawn_by_the_seed(log: ClickLog) -> None:
    def sample(seed: int) -> tuple[str, ...]:
        return ColdStart(log, min_old_events=40, phase_events=3, new_items=4, seed=seed).new.items.ids

    assert sample(0) == sample(0) != sample(1)
    assert len(sample(0)) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"min_old_events": 90},
            "no item has more than 90 events to be an old one; lower min_old_events .the most has 90.",
        ),
        ({"min_old_events": 40, "phase_events": 14}, "no item has 42 to 40 events to be a new one"),
        ({"phase_events": 0}, "stream.phase_events = 0; give a number from 1 on"),
        ({"preset": "honest", "before": 1.5}, "stream.before = 1.5; give a share between 0 and 1"),
    ],
)
def test_a_stream_without_old_or_new_items_is_an_error(log: ClickLog, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(StreamError, match=message):
        ColdStart(log, **settings)


CURVES: list[dict[str, Any]] = [
    {"preset": "paper", "min_old_events": 40, "curve_items": 4},
    {"preset": "paper", "min_old_events": 40, "curve_items": 3, "old_items": 5, "new_items": 4, "seed": 3},
    {"preset": "honest", "min_old_events": 30, "before": 0.5, "validation": 0.3, "curve_items": 4},
]


@pytest.fixture(params=CURVES, ids=["paper", "subset", "honest"])
def curved(request: pytest.FixtureRequest, log: ClickLog) -> ColdStart:
    return ColdStart(log, **request.param | {"phase_events": 3})


def on_the_curve(stream: ColdStart) -> tuple[NewItems, list[ClickLog], ClickLog]:
    """The items added, the events after it, and the query."""
    added, *shown = list(stream)[5:]
    assert isinstance(added.train, NewItems)
    logs = [stage.train.log for stage in shown if isinstance(stage.train, NewEvents)]
    assert len(logs) == len(shown)
    return added.train, logs, added.eval_sets["curve"]


def ids(log: ClickLog) -> set[str]:
    return {log.items.ids[item] for item in log.item}


def test_the_stages_of_the_curve_follow_the_phases_and_name_the_number_of_events(curved: ColdStart) -> None:
    names = [stage.name for stage in curved]
    assert names[:5] == ["old", "cold", "warm-a", "warm-b", "warm-c"]
    assert names[5:8] == ["0 events", "1 events", "2 events"]
    assert names[-1] == "sufficient"
    assert names[6:-1] == [f"{point} events" for point in CURVE[: len(names) - 7]]
    assert len(names) == len(curved)
    assert [list(stage.eval_sets) for stage in curved] == [[], *[["query"]] * 4, *[["curve"]] * (len(names) - 5)]
    assert len({id(stage.eval_sets["curve"]) for stage in list(curved)[5:]}) == 1


def test_after_a_stage_of_the_curve_every_item_has_as_many_events_as_it_says(log: ClickLog, curved: ColdStart) -> None:
    added, shown, eval_set = on_the_curve(curved)
    names = [stage.name for stage in curved][6:]
    for item in map(added.items.ids.index, added.items.ids):
        name, seen = added.items.ids[item], 0
        total = sum(int((part.item == part.items.ids.index(name)).sum()) for part in (*shown, eval_set))
        for stage, part in zip(names, shown, strict=True):
            seen += int((part.item == part.items.ids.index(name)).sum())
            assert seen == (3 * total // 4 if stage == "sufficient" else int(stage.removesuffix(" events")))
        assert total - seen == int((eval_set.item == eval_set.items.ids.index(name)).sum()) > 0
        if curved.validation is None:
            assert total == int((log.item == log.items.ids.index(name)).sum()) > 40


def test_items_of_the_curve_are_in_no_other_stage_and_those_of_others_not_on_it(
    log: ClickLog, curved: ColdStart
) -> None:
    added, shown, eval_set = on_the_curve(curved)
    mine = set(added.items.ids)
    assert len(mine) in (3, 4)
    assert all(ids(part) == mine for part in (*shown, eval_set))
    held = curved.validation
    others = [curved.old_log, curved.new.query, *curved.new.phases, *([held.query, *held.phases] if held else [])]
    assert not mine & (set(curved.new.items.ids) | set(held.items.ids if held else ())).union(*map(ids, others))
    rows = [part.row for part in (*others, *shown, eval_set)]
    assert len(np.unique(np.concatenate(rows))) == sum(map(len, rows))
    assert curved.info()["curve_items"] == len(mine)
    assert curved.info()["curve_events"] == len(eval_set)


def test_the_curve_goes_by_time_item_by_item(curved: ColdStart) -> None:
    added, shown, eval_set = on_the_curve(curved)
    for name in added.items.ids:
        times = [part.time[part.item == part.items.ids.index(name)] for part in (*shown, eval_set)]
        for earlier, later in itertools.pairwise(times):
            assert earlier.max() < later.min()  # in this world no two events are at one time


def test_in_the_honest_preset_the_curve_lies_after_the_date(log: ClickLog) -> None:
    stream = ColdStart(log, **CURVES[2] | {"phase_events": 3})
    _, shown, eval_set = on_the_curve(stream)
    assert stream.validation is not None
    early = [stream.old_log, stream.validation.query, *stream.validation.phases]
    assert max(int(part.time.max()) for part in early) < min(int(part.time.min()) for part in (*shown, eval_set))


def test_without_a_curve_all_is_as_it_was_and_with_one_only_old_items_are_fewer(log: ClickLog) -> None:
    def rows(stream: ColdStart) -> list[list[int]]:
        return [part.row.tolist() for part in (*stream.new.phases, stream.new.query)]

    plain = ColdStart(log, min_old_events=40, phase_events=3)
    none = ColdStart(log, min_old_events=40, phase_events=3, curve_items=0)
    some = ColdStart(log, min_old_events=40, phase_events=3, curve_items=4)
    assert rows(plain) == rows(none) == rows(some)
    assert plain.old_log.row.tolist() == none.old_log.row.tolist()
    assert plain.info() == none.info()
    assert not {"curve_items", "curve_events"} & none.info().keys()
    assert (len(plain), len(none)) == (5, 5)
    assert ids(some.old_log) == ids(plain.old_log) - set(on_the_curve(some)[0].items.ids)


def test_which_items_are_on_the_curve_is_drawn_by_the_seed(log: ClickLog) -> None:
    def sample(seed: int) -> tuple[str, ...]:
        return on_the_curve(ColdStart(log, min_old_events=40, phase_events=3, curve_items=4, seed=seed))[0].items.ids

    assert sample(0) == sample(0) != sample(1)


def test_a_curve_ends_where_its_poorest_item_has_no_more(log: ClickLog) -> None:
    """Of 90 events three quarters are 67: the next point after 50, 100, is not reached."""
    names = [stage.name for stage in ColdStart(log, min_old_events=40, phase_events=3, curve_items=2)]
    assert names[-2:] == ["50 events", "sufficient"]


def test_curve_items_that_cannot_be_are_an_error(log: ClickLog) -> None:
    with pytest.raises(StreamError, match=r"stream\.curve_items = -1; give 0 for none, or how many"):
        ColdStart(log, min_old_events=40, phase_events=3, curve_items=-1)
    with pytest.raises(StreamError, match=r"no item has more than 40 events to be an old one") as caught:
        ColdStart(log, min_old_events=40, phase_events=3, curve_items=20)
    assert "\n" not in str(caught.value)


VALIDATIONS: list[dict[str, Any]] = [
    {"preset": "paper", "min_old_events": 40, "validation": 0.3},
    {"preset": "honest", "min_old_events": 48, "before": 0.6, "validation": 0.3},
    {"preset": "paper", "min_old_events": 40, "old_items": 12, "new_items": 4, "validation": 0.6, "seed": 3},
    {"preset": "paper", "min_old_events": 40, "curve_items": 4, "validation": 0.3},
]


@pytest.fixture(params=VALIDATIONS, ids=["paper", "honest", "subset", "curve"])
def pair(request: pytest.FixtureRequest, log: ClickLog) -> tuple[ColdStart, ColdStart]:
    """The stream that is reported, and the one to choose by."""
    settings = request.param | {"phase_events": 3}
    return ColdStart(log, **settings), ColdStart(log, **settings, eval_split="validation")


def all_rows(stream: ColdStart) -> list[ClickLog]:
    """Everything that a learner trains on or is evaluated on."""
    parts: list[ClickLog] = []
    for stage in stream:
        if isinstance(stage.train, OldItems):
            assert isinstance(stage.train.log, ClickLog)
            held = stage.train.validation
            parts += [stage.train.log, *([*held.phases, held.query] if held else [])]
        elif isinstance(stage.train, NewEvents):
            parts.append(stage.train.log)
        parts += stage.eval_sets.values()
    return parts


def test_validation_uses_events_of_old_items_that_are_not_trained_on(pair: tuple[ColdStart, ColdStart]) -> None:
    test, validation = pair
    _, new, warm = training_data(validation)
    old = ids(test.old_log) | (set(test.validation.items.ids) if test.validation else set())
    (query,) = {
        id(stage.eval_sets["query"]): stage.eval_sets["query"] for stage in validation if stage.eval_sets
    }.values()
    assert len(query)
    assert ids(query) <= set(new.items.ids) <= old
    assert not set(new.items.ids) & ids(validation.old_log)
    assert ids(validation.old_log) | set(new.items.ids) == old
    rows = [part.row for part in (validation.old_log, *(train.log for train in warm), query)]
    assert len(np.unique(np.concatenate(rows))) == sum(map(len, rows))


def test_no_row_of_a_new_item_or_of_the_curve_is_anywhere_in_validation(pair: tuple[ColdStart, ColdStart]) -> None:
    test, validation = pair
    kept_out = set(test.new.items.ids) | (set(test.curve.items.ids) if test.curve else set())
    assert not kept_out & set[str]().union(*map(ids, all_rows(validation)))
    tested = [part.row for part in (*test.new.phases, test.new.query, *([test.curve.query] if test.curve else []))]
    assert not np.isin(np.concatenate([part.row for part in all_rows(validation)]), np.concatenate(tested)).any()


def test_validation_streams_have_the_same_stages_and_no_validation(pair: tuple[ColdStart, ColdStart]) -> None:
    test, validation = pair
    assert [stage.name for stage in validation] == ["old", "cold", "warm-a", "warm-b", "warm-c"]
    assert len(validation) == 5
    assert [list(stage.eval_sets) for stage in validation] == [[], *[["query"]] * 4]
    assert validation.old.validation is None
    assert validation.info()["validation_items"] == 0
    for name in validation.new.items.ids:
        number = validation.old_log.items.ids.index(name)
        assert [int((part.item == number).sum()) for part in validation.new.phases] == [3, 3, 3]
    assert 0 < len(validation.new.items) <= len(test.new.items)


def test_there_are_as_many_as_the_share_allows_and_as_there_are_new_ones(log: ClickLog) -> None:
    def played(**settings: Any) -> int:
        stream = ColdStart(log, min_old_events=40, phase_events=3, eval_split="validation", **settings)
        return len(stream.new.items)

    assert played(validation=0.3) == 6  # of 20 old ones
    assert played(validation=0.9, new_items=5) == 5


def test_the_reported_stream_does_not_know_of_validation(log: ClickLog) -> None:
    def rows(**settings: Any) -> list[list[int]]:
        return [part.row.tolist() for part in all_rows(ColdStart(log, phase_events=3, **settings))]

    for settings in VALIDATIONS:
        assert rows(**settings) == rows(**settings, eval_split="test")
    plain = {"preset": "paper", "min_old_events": 40}
    assert rows(**plain) == rows(**plain, validation=0.7)


def test_one_old_item_alone_cannot_be_both(log: ClickLog) -> None:
    with pytest.raises(
        StreamError, match="a single old item cannot also serve as validation item; lower min_old_events"
    ):
        ColdStart(log, min_old_events=40, phase_events=3, old_items=1, eval_split="validation")
