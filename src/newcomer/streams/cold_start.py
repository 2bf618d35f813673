"""Cold-start stream: old items, then new items without events (cold), then their events phase by phase (warm-a, -b, -c)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from newcomer.data.click_log import ClickLog, EntityTable
from newcomer.data.datasets.simulated_clicks import PROBABILITY
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.errors import StreamError
from newcomer.metrics.ranking import bayes_auc
from newcomer.seeds import shuffled
from newcomer.settings import Json
from newcomer.streams.stage import Stage

PHASES = ("warm-a", "warm-b", "warm-c")

CURVE = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Numbers of events per item at which the learning curve has a point."""


@dataclass(frozen=True)
class NewItems:
    """Training data of the cold phase: new items, by their fields alone."""

    items: EntityTable


@dataclass(frozen=True)
class NewEvents:
    """Training data of a warm phase: events of items added before."""

    log: ClickLog


@dataclass(frozen=True)
class CalibrationSet:
    """Events of items that a learner was not trained on, with the items' fields: its calibration is fitted on them."""

    log: ClickLog


@dataclass(frozen=True)
class ValidationLife:
    """Held-out items with their phases and query events, for model selection."""

    items: EntityTable
    phases: Sequence[ClickLog]
    query: ClickLog


@dataclass(frozen=True)
class OldItems:
    """Training data of the first stage: items with many events. `validation`: items held out of them."""

    log: ClickLog | ChunkedLog
    validation: ValidationLife | None = None


StageData = OldItems | NewItems | NewEvents | CalibrationSet


class ColdStart:
    """Cold-start protocol: the stages old, cold, warm-a, warm-b, warm-c of a click log.

    All stages but the first are evaluated on the same query events. Old items have more than `min_old_events` events, new items
    `3 * phase_events` to `min_old_events`. A new item's events are split by time: `phase_events` per warm phase, the rest is the
    query.

    `preset`: 'paper' is the protocol of CVAR, EmerG and CSDM, which ignores dates. 'honest' differs in two points. A single date,
    at the quantile `before` of all events, separates old items' events (before it) from new items' (after it); the rest is unused.
    And a share `validation` of the old items is held out for model selection, with as many events as new items, and click rates as
    close as possible to those of the new items' warm phases.

    - `old_items`, `new_items`: sample so many of each with `seed`; all by default.
    - `curve_items`: items with more than `min_old_events` events that are held out of the old ones for a learning curve: after
      warm-c they are added without events ('0 events'), then get 1, 2, 5, 10, … of their events by time, finally ('sufficient')
      three quarters. After each they are evaluated on the rest, under the name 'curve'.
    - `eval_split`: 'validation' is for choosing settings: old items replace the new ones, a share `validation` of them, but no more
      than there are new ones, matched to these as above. They are removed from the old items, and no event of a new or curve item
      occurs in any stage. Nothing else is held out, so a learner has no validation items of its own.

    Raises StreamError if no item qualifies.
    """

    def __init__(
        self,
        log: ClickLog,
        *,
        preset: Literal["paper", "honest"] = "paper",
        min_old_events: int = 200,
        phase_events: int = 20,
        old_items: int | None = None,
        new_items: int | None = None,
        curve_items: int = 0,
        before: float = 0.5,
        validation: float = 0.1,
        eval_split: Literal["test", "validation"] = "test",
        seed: int = 0,
    ) -> None:
        counts = {
            "min_old_events": min_old_events,
            "phase_events": phase_events,
            "old_items": old_items,
            "new_items": new_items,
        }
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
        old, new = _counts(early) > min_old_events, (_counts(late) >= least) & (_counts(late) <= min_old_events)
        curve = np.flatnonzero(_counts(late) > min_old_events)
        chosen_curve = _sample(curve, curve_items, seed, "curve items") if curve_items else curve[:0]
        old[chosen_curve] = False
        chosen_old = _sample(np.flatnonzero(old), old_items, seed, "old items")
        chosen_new = _sample(np.flatnonzero(new & ~old), new_items, seed, "new items")
        if not len(chosen_old):
            raise StreamError(
                f"no item has more than {min_old_events} events to be an old one; lower min_old_events ({_max_events(early)})"
            )
        if not len(chosen_new):
            raise StreamError(
                f"no item has {least} to {min_old_events} events to be a new one; change phase_events or min_old_events"
            )
        self.new = self._life(late.of_items(chosen_new))
        self.curve = _curve(late.of_items(chosen_curve)) if len(chosen_curve) else None
        self.old_log, self.validation = early.of_items(chosen_old), None
        if preset == "honest" or eval_split == "validation":
            share = max(1, round(validation * len(chosen_old)))
            count = min(share, len(chosen_new)) if eval_split == "validation" else share
            validation_items, validation_log = _validation_items(self.old_log, self.new, count, seed)
            self.old_log, self.validation = (
                early.of_items(np.setdiff1d(chosen_old, validation_items)),
                self._life(validation_log),
            )
        if eval_split == "validation" and self.validation:
            if not len(self.validation.items):
                raise StreamError("a single old item cannot also serve as validation item; lower min_old_events")
            self.new, self.validation, self.curve = self.validation, None, None
        self.old = OldItems(self.old_log, self.validation)

    def __len__(self) -> int:
        return 2 + len(PHASES) + (1 + len(self.curve.phases) if self.curve else 0)

    def __iter__(self) -> Iterator[Stage[StageData, ClickLog]]:
        eval_sets = {"query": self.new.query}
        yield Stage("old", self.old, {})
        yield Stage("cold", NewItems(self.new.items), eval_sets)
        for name, events in zip(PHASES, self.new.phases, strict=True):
            yield Stage(name, NewEvents(events), eval_sets)
        if self.curve:
            eval_sets = {"curve": self.curve.query}
            yield Stage("0 events", NewItems(self.curve.items), eval_sets)
            *points, last = self.curve.phases
            for number, events in zip(CURVE, points, strict=False):
                yield Stage(f"{number} events", NewEvents(events), eval_sets)
            yield Stage("sufficient", NewEvents(last), eval_sets)

    def info(self) -> dict[str, Json]:
        """Numbers of items and events; `limit`: the AUC of the true click probabilities, if known."""
        old = int((_counts(self.old_log) > 0).sum())
        query = self.new.query
        validation_items = len(self.validation.items) if self.validation else 0
        return {
            "old_items": old,
            "old_events": len(self.old_log),
            "validation_items": validation_items,
            "new_items": len(self.new.items),
            "phase_events": len(self.new.phases[0]),
            "query_events": len(query),
            **({"curve_items": len(self.curve.items), "curve_events": len(self.curve.query)} if self.curve else {}),
            **({"limit": bayes_auc(query.context[PROBABILITY].values)} if PROBABILITY in query.context else {}),
        }

    def _life(self, log: ClickLog) -> ValidationLife:
        age = events_before(log)
        phase = age // self.phase_events
        phases = [log.take(phase == number) for number in range(len(PHASES))]
        return ValidationLife(log.items.take(np.unique(log.item)), phases, log.take(phase >= len(PHASES)))


def _curve(log: ClickLog) -> ValidationLife:
    """Stages up to 1, 2, 5, … events of each item, as far as every item has them, then up to three quarters of all."""
    age, enough = events_before(log), (3 * _counts(log) // 4)[log.item]
    points = [point for point in CURVE if point < int(enough.min())]
    ends = [0, *points]
    phases = [log.take((age >= begin) & (age < end)) for begin, end in pairwise(ends)]
    return ValidationLife(
        log.items.take(np.unique(log.item)),
        [*phases, log.take((age >= ends[-1]) & (age < enough))],
        log.take(age >= enough),
    )


def events_before(log: ClickLog, backwards: bool = False) -> NDArray[np.int64]:
    """Number of earlier events of the same item, for every event; ties are ordered by row.

    `backwards`: number of later events.

    >>> from newcomer.data.io.log_reader import log_from_rows
    >>> from newcomer.data.schema import Schema
    >>> log = log_from_rows(Schema("i", "u"), i=["a", "b", "a", "a"], u=[1, 1, 2, 3], label=[0, 0, 1, 1], time=[5, 1, 5, 2])
    >>> events_before(log).tolist()
    [1, 0, 2, 0]
    """
    order = np.lexsort((log.row, log.fraction_or_zero, log.time, log.item))
    starts = np.cumsum(_counts(log)) - _counts(log)
    before = np.empty(len(log), dtype=np.int64)
    before[order] = np.arange(len(log)) - starts[log.item[order]]
    return _counts(log)[log.item] - 1 - before if backwards else before


def _counts(log: ClickLog) -> NDArray[np.int64]:
    return np.bincount(log.item, minlength=len(log.items)).astype(np.int64)


def _max_events(log: ClickLog) -> str:
    return f"the most has {_counts(log).max(initial=0)}"


def _sample(items: NDArray[Any], count: int | None, seed: int, what: str) -> NDArray[Any]:
    if count is None or count >= len(items):
        return items
    return np.sort(items[shuffled(len(items), seed, "cold start", what)[:count]])


def _split_by_date(log: ClickLog, share: float) -> tuple[ClickLog, ClickLog]:
    """The events up to the date at this quantile, and those after it."""
    date = np.quantile(log.time, share, method="lower")
    return log.take(log.time <= date), log.take(log.time > date)


def _validation_items(old: ClickLog, new: ValidationLife, count: int, seed: int) -> tuple[NDArray[Any], ClickLog]:
    """Sample old items for validation, matched to new ones, with as many of their first events.

    Each is matched to a randomly drawn new item: the number of events, and, among the free old items, the one whose click rate is
    closest to that item's click rate in its warm phases. Query labels are not used.
    """
    rate_old, rate_new = _click_rates([old]), _click_rates(new.phases)
    events = np.sum([_counts(part) for part in (*new.phases, new.query)], axis=0)
    new_items = np.flatnonzero(events)
    order = shuffled(len(new_items), seed, "cold start", "validation")
    free, event_counts = np.flatnonzero(_counts(old)), {}
    for new_item in (new_items[order[n % len(order)]] for n in range(min(count, len(free) - 1))):
        item = free[np.abs(rate_old[free] - rate_new[new_item]).argmin()]
        event_counts[int(item)] = events[new_item]
        free = free[free != item]
    limit = np.zeros(len(old.items), dtype=np.int64)
    limit[list(event_counts)] = list(event_counts.values())
    return np.array(sorted(event_counts), dtype=np.int64), old.take(events_before(old) < limit[old.item])


def _click_rates(logs: Sequence[ClickLog]) -> NDArray[np.float64]:
    clicks = sum(np.bincount(log.item, log.label, len(log.items)) for log in logs)
    events = sum(_counts(log) for log in logs)
    rates: NDArray[np.float64] = clicks / np.maximum(events, 1)
    return rates
