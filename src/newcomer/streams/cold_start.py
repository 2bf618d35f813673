"""The life of new items as a stream: old items first, then new ones without an event, then a few events of each at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from newcomer.data.click_log import Log, Table
from newcomer.data.datasets.simulated_clicks import PROBABILITY
from newcomer.data.io.chunked_log import LogFiles
from newcomer.errors import StreamError
from newcomer.metrics.ranking import bayes_auc
from newcomer.seeds import shuffled
from newcomer.settings import Json
from newcomer.streams.stage import Stage

PHASES = ("warm-a", "warm-b", "warm-c")

CURVE = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""After so many events of each item its curve has a point."""


@dataclass(frozen=True)
class NewItems:
    """A lesson: what is known of items before anybody clicked."""

    items: Table


@dataclass(frozen=True)
class Events:
    """A lesson: a few events of items that were added before."""

    log: Log


@dataclass(frozen=True)
class Trial:
    """A whole life of new items, to choose by: what a learner may try out as often as it likes."""

    items: Table
    phases: Sequence[Log]
    query: Log


@dataclass(frozen=True)
class OldItems:
    """A lesson: items with many events. `validation` was carved out of them, items and all."""

    log: Log | LogFiles
    validation: Trial | None = None


Lesson = OldItems | NewItems | Events


class ColdStart:
    """The stages old, cold, warm-a, warm-b, warm-c of a log; all but the first have one exam, the same query rows each time.

    Old are items with more than `old_above` events, new those with `3 * phase_events` to `old_above`; a new item's events go
    by time, `phase_events` to each warm phase and the rest to the query.

    preset `paper` is the protocol of CVAR, EmerG and CSDM: all of it regardless of the date. `honest` differs in two points.
    One date divides all events, by which `before` of them have happened: what counts for an old item lies before it, what
    counts for a new one after it, and the rest is not used. And a share `validation` of the old items lives like new ones, for
    the choices that would otherwise be made on the query rows: with as many events, and a share of clicks as near as can be
    to the new items' in their warm phases.

    `old_items`, `new_items`: so many of each, drawn by `seed`, instead of all.

    `curve_items` of those with more than `old_above` events are kept from the old ones and live on to where events abound: after
    warm-c they are added without any ('0 events'), are shown 1, 2, 5, 10, … of their events by time, and at last ('sufficient')
    three quarters of them. After each they have one exam, the rest, under the name 'curve'.

    exam `validation` is for choosing settings: old items play the new ones, a share `validation` of them but no more than there
    are new ones, alike to these as above. They are old no more, and no row of a new item or of the curve's is in any stage.
    Nothing else is held back, so a learner that chooses by held-back items does without.

    Raises StreamError when no item qualifies.
    """

    def __init__(
        self,
        log: Log,
        *,
        preset: Literal["paper", "honest"] = "paper",
        old_above: int = 200,
        phase_events: int = 20,
        old_items: int | None = None,
        new_items: int | None = None,
        curve_items: int = 0,
        before: float = 0.5,
        validation: float = 0.1,
        exam: Literal["test", "validation"] = "test",
        seed: int = 0,
    ) -> None:
        counts = {"old_above": old_above, "phase_events": phase_events, "old_items": old_items, "new_items": new_items}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise StreamError(f"stream.{name} = {count}; give a number from 1 on")
        if curve_items < 0:
            raise StreamError(f"stream.curve_items = {curve_items}; give 0 for none, or how many")
        for name, share in (("before", before), ("validation", validation)):
            if not 0 < share < 1:
                raise StreamError(f"stream.{name} = {share}; give a share between 0 and 1")
        self.schema, self.phase_events = log.schema, phase_events
        early, late = _split_by_date(log, before) if preset == "honest" else (log, log)
        least = len(PHASES) * phase_events
        old, new = _counts(early) > old_above, (_counts(late) >= least) & (_counts(late) <= old_above)
        rich = np.flatnonzero(_counts(late) > old_above)
        chosen_rich = _drawn(rich, curve_items, seed, "curve items") if curve_items else rich[:0]
        old[chosen_rich] = False
        chosen_old = _drawn(np.flatnonzero(old), old_items, seed, "old items")
        chosen_new = _drawn(np.flatnonzero(new & ~old), new_items, seed, "new items")
        if not len(chosen_old):
            raise StreamError(
                f"no item has more than {old_above} events to be an old one; lower old_above ({_most(early)})"
            )
        if not len(chosen_new):
            raise StreamError(
                f"no item has {least} to {old_above} events to be a new one; change phase_events or old_above"
            )
        self.new = self._life(late.of_items(chosen_new))
        self.rich = _curve(late.of_items(chosen_rich)) if len(chosen_rich) else None
        self.old_log, self.validation = early.of_items(chosen_old), None
        if preset == "honest" or exam == "validation":
            share = max(1, round(validation * len(chosen_old)))
            count = min(share, len(chosen_new)) if exam == "validation" else share
            held, log_held = _mimic(self.old_log, self.new, count, seed)
            self.old_log, self.validation = early.of_items(np.setdiff1d(chosen_old, held)), self._life(log_held)
        if exam == "validation" and self.validation:
            if not len(self.validation.items):
                raise StreamError("one old item alone cannot play a new one and be old; lower old_above")
            self.new, self.validation, self.rich = self.validation, None, None
        self.old = OldItems(self.old_log, self.validation)

    def __len__(self) -> int:
        return 2 + len(PHASES) + (1 + len(self.rich.phases) if self.rich else 0)

    def __iter__(self) -> Iterator[Stage[Lesson, Log]]:
        exams = {"query": self.new.query}
        yield Stage("old", self.old, {})
        yield Stage("cold", NewItems(self.new.items), exams)
        for name, events in zip(PHASES, self.new.phases, strict=True):
            yield Stage(name, Events(events), exams)
        if self.rich:
            exams = {"curve": self.rich.query}
            yield Stage("0 events", NewItems(self.rich.items), exams)
            *points, last = self.rich.phases
            for number, events in zip(CURVE, points, strict=False):
                yield Stage(f"{number} events", Events(events), exams)
            yield Stage("sufficient", Events(last), exams)

    def facts(self) -> dict[str, Json]:
        """How many items and events there are on either side; `limit`, the AUC of the true probabilities, where they are known."""
        old = int((_counts(self.old_log) > 0).sum())
        query = self.new.query
        held = len(self.validation.items) if self.validation else 0
        return {
            "old_items": old,
            "old_events": len(self.old_log),
            "validation_items": held,
            "new_items": len(self.new.items),
            "phase_events": len(self.new.phases[0]),
            "query_events": len(query),
            **({"curve_items": len(self.rich.items), "curve_events": len(self.rich.query)} if self.rich else {}),
            **({"limit": bayes_auc(query.context[PROBABILITY].values)} if PROBABILITY in query.context else {}),
        }

    def _life(self, log: Log) -> Trial:
        age = events_before(log)
        phase = age // self.phase_events
        phases = [log.take(phase == number) for number in range(len(PHASES))]
        return Trial(log.items.take(np.unique(log.item)), phases, log.take(phase >= len(PHASES)))


def _curve(log: Log) -> Trial:
    """Lessons that lead to 1, 2, 5, … events of each item, as far as every item has them, and to three quarters of all."""
    age, enough = events_before(log), (3 * _counts(log) // 4)[log.item]
    points = [point for point in CURVE if point < int(enough.min())]
    ends = [0, *points]
    phases = [log.take((age >= begin) & (age < end)) for begin, end in pairwise(ends)]
    return Trial(
        log.items.take(np.unique(log.item)),
        [*phases, log.take((age >= ends[-1]) & (age < enough))],
        log.take(age >= enough),
    )


def events_before(log: Log, backwards: bool = False) -> NDArray[np.int64]:
    """For every row, how many earlier events its item has; of events at the same time the one that was read first is earlier.

    `backwards`: how many later ones.

    >>> from newcomer.data.io.log_reader import log_from_rows
    >>> from newcomer.data.schema import Schema
    >>> log = log_from_rows(Schema("i", "u"), i=["a", "b", "a", "a"], u=[1, 1, 2, 3], label=[0, 0, 1, 1], time=[5, 1, 5, 2])
    >>> events_before(log).tolist()
    [1, 0, 2, 0]
    """
    order = np.lexsort((log.row, log.ticks, log.time, log.item))
    starts = np.cumsum(_counts(log)) - _counts(log)
    before = np.empty(len(log), dtype=np.int64)
    before[order] = np.arange(len(log)) - starts[log.item[order]]
    return _counts(log)[log.item] - 1 - before if backwards else before


def _counts(log: Log) -> NDArray[np.int64]:
    return np.bincount(log.item, minlength=len(log.items)).astype(np.int64)


def _most(log: Log) -> str:
    return f"the most has {_counts(log).max(initial=0)}"


def _drawn(items: NDArray[Any], count: int | None, seed: int, what: str) -> NDArray[Any]:
    if count is None or count >= len(items):
        return items
    return np.sort(items[shuffled(len(items), seed, "cold start", what)[:count]])


def _split_by_date(log: Log, share: float) -> tuple[Log, Log]:
    """The rows up to the date by which this share of events has happened, and those after it."""
    date = np.quantile(log.time, share, method="lower")
    return log.take(log.time <= date), log.take(log.time > date)


def _mimic(old: Log, new: Trial, count: int, seed: int) -> tuple[NDArray[Any], Log]:
    """Old items to play new ones, and as many of their first events as the new items that they mimic have.

    Each takes its part from a new item drawn by chance: the number of events, and, of all old items still free, the one whose share
    of clicks is nearest to what that new item shows in its warm phases. The query's labels are not looked at.
    """
    rate_old, rate_new = _click_rates([old]), _click_rates(new.phases)
    events = np.sum([_counts(part) for part in (*new.phases, new.query)], axis=0)
    models = np.flatnonzero(events)
    order = shuffled(len(models), seed, "cold start", "validation")
    free, lives = np.flatnonzero(_counts(old)), {}
    for model in (models[order[n % len(order)]] for n in range(min(count, len(free) - 1))):
        item = free[np.abs(rate_old[free] - rate_new[model]).argmin()]
        lives[int(item)] = events[model]
        free = free[free != item]
    limit = np.zeros(len(old.items), dtype=np.int64)
    limit[list(lives)] = list(lives.values())
    return np.array(sorted(lives), dtype=np.int64), old.take(events_before(old) < limit[old.item])


def _click_rates(logs: Sequence[Log]) -> NDArray[np.float64]:
    clicks = sum(np.bincount(log.item, log.label, len(log.items)) for log in logs)
    events = sum(_counts(log) for log in logs)
    rates: NDArray[np.float64] = clicks / np.maximum(events, 1)
    return rates
