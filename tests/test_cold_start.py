"""The cold-start stream: who learns from what, and nobody from the query."""

import itertools
from typing import Any

import numpy as np
import pytest

from newcomer.data.log import Log
from newcomer.data.read import log_from_rows
from newcomer.data.schema import Schema
from newcomer.data.world import click_world
from newcomer.errors import StreamError
from newcomer.streams.cold_start import ColdStart, Events, NewItems, OldItems, events_before

PRESETS: list[dict[str, Any]] = [
    {"preset": "paper", "old_above": 40},
    {"preset": "honest", "old_above": 40, "before": 0.6, "validation": 0.3},
    {"preset": "paper", "old_above": 40, "old_items": 5, "new_items": 4, "seed": 3},
]


@pytest.fixture(scope="module")
def log() -> Log:
    return click_world(old_items=20, old_events=90, new_items=30, new_events=40, users=30)


@pytest.fixture(params=PRESETS, ids=["paper", "honest", "subset"])
def stream(request: pytest.FixtureRequest, log: Log) -> ColdStart:
    settings = request.param | {"phase_events": 3}
    if settings["preset"] == "honest":
        settings["old_above"] = 48
    return ColdStart(log, **settings)


def lessons(stream: ColdStart) -> tuple[OldItems, NewItems, list[Events]]:
    old, new, *warm = (stage.lesson for stage in stream)
    assert isinstance(old, OldItems)
    assert isinstance(old.log, Log)
    assert isinstance(new, NewItems)
    return old, new, [lesson for lesson in warm if isinstance(lesson, Events)]


def test_the_stages_are_the_phases_of_an_items_life(stream: ColdStart) -> None:
    assert [stage.name for stage in stream] == ["old", "cold", "warm-a", "warm-b", "warm-c"]
    assert len(stream) == 5
    assert [list(stage.exams) for stage in stream] == [[], *[["query"]] * 4]


def test_iterating_again_gives_the_same_rows(stream: ColdStart) -> None:
    rows = [[lesson.log.row.tolist() for lesson in lessons(stream)[2]] for _ in range(2)]
    assert rows[0] == rows[1]


def test_lessons_and_query_share_no_row_and_old_and_new_no_item(stream: ColdStart) -> None:
    _old, new, warm = lessons(stream)
    query = next(stage.exams["query"] for stage in stream if stage.exams)
    rows = [part.row for part in (stream.old_log, *(lesson.log for lesson in warm), query)]
    assert len(np.unique(np.concatenate(rows))) == sum(map(len, rows))
    names = {stream.old_log.items.ids[item] for item in stream.old_log.item}
    assert not names & set(new.items.ids)
    assert {query.items.ids[item] for item in query.item} <= set(new.items.ids)


def test_phases_go_by_time_and_hold_so_many_events_of_every_item(stream: ColdStart) -> None:
    _, new, warm = lessons(stream)
    query = next(stage.exams["query"] for stage in stream if stage.exams)
    for name in new.items.ids:
        parts = [
            part.take(part.item == part.items.ids.index(name)) for part in (*(lesson.log for lesson in warm), query)
        ]
        assert [len(part) for part in parts[:3]] == [3, 3, 3]
        times = np.concatenate([part.time for part in parts])
        assert (np.sort(times)[:9] == np.sort(times[:9])).all()
        for earlier, later in itertools.pairwise(parts):
            assert not len(later) or earlier.time.max() <= later.time.min()


def test_the_honest_preset_has_one_date_for_all(log: Log) -> None:
    stream = ColdStart(log, preset="honest", old_above=48, before=0.6, validation=0.3, phase_events=3)
    old, _, warm = lessons(stream)
    assert old.validation is not None
    held = old.validation
    early = [stream.old_log, held.query, *held.phases]
    late = [*(lesson.log for lesson in warm), stream.new.query]
    assert max(int(part.time.max()) for part in early) < min(int(part.time.min()) for part in late)
    assert not set(held.items.ids) & {stream.old_log.items.ids[item] for item in stream.old_log.item}


def test_validation_items_have_as_many_events_as_new_ones(log: Log) -> None:
    stream = ColdStart(log, preset="honest", old_above=48, before=0.6, validation=0.3, phase_events=3)
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


def test_a_subset_is_drawn_by_the_seed(log: Log) -> None:
    def drawn(seed: int) -> tuple[str, ...]:
        return ColdStart(log, old_above=40, phase_events=3, new_items=4, seed=seed).new.items.ids

    assert drawn(0) == drawn(0) != drawn(1)
    assert len(drawn(0)) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"old_above": 90}, "no item has more than 90 events to be an old one; lower old_above .the most has 90."),
        ({"old_above": 40, "phase_events": 14}, "no item has 42 to 40 events to be a new one"),
        ({"phase_events": 0}, "stream.phase_events = 0; give a number from 1 on"),
        ({"preset": "honest", "before": 1.5}, "stream.before = 1.5; give a share between 0 and 1"),
    ],
)
def test_a_stream_without_old_or_new_items_is_an_error(log: Log, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(StreamError, match=message):
        ColdStart(log, **settings)
