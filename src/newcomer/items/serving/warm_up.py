"""One warm-up of items in the service: from events to committed states."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.errors import LearnerError, StoreError
from newcomer.items.adaptation.item_summary import ItemSummary
from newcomer.items.adaptation.single_event import logit_of_one
from newcomer.items.encoding.encoder import Clicks, concat_clicks
from newcomer.items.encoding.unseen_values import Unseen, unseen_of_clicks
from newcomer.items.inference import predict_logits, sigmoid
from newcomer.items.networks.item_network import State
from newcomer.items.serving.cached_items import CachedItems
from newcomer.items.serving.corrections import Corrections, is_another
from newcomer.items.serving.event_batch import EventBatch, user_names
from newcomer.items.serving.event_serialization import to_clicks, to_values
from newcomer.items.serving.finite_checks import all_finite
from newcomer.items.serving.item_cache import ItemCache
from newcomer.items.serving.past_events import PastEvents
from newcomer.items.serving.repair import initial_states
from newcomer.items.serving.results import SkippedRows, Warmed
from newcomer.items.serving.scoring import item_errors, numbers_of
from newcomer.items.serving.serialization import to_row
from newcomer.metrics.calibration import calibration_by_age
from newcomer.shapes import Tensor
from newcomer.store.states import KEPT, Change, DamagedItemError, Event

_Outcomes = NDArray[np.float64]
"""Rows: number of events before, label, expected clicks; a column an event."""

ATTEMPTS = 100
"""Retries of an item after conflicts with other processes, each of which made progress."""

READ_TOGETHER = 3_000
"""Past events that are in memory together: items that may have more are warmed up in parts."""

COUNTS_AGE = 60.0
"""Seconds for which numbers of past events that this process has read are good enough to tell the parts."""

COMMITTED_TOGETHER = 500
"""Items of a transaction: their states are in memory, and locked while it is written."""


class WarmUp:
    """Counts events in rounds, until each was counted now or before, or was skipped."""

    def __init__(self, served: CachedItems, where: str, skipped: SkippedRows) -> None:
        self.served, self.where, self.skipped = served, where, skipped
        self.learner, self.states, self.model = served.learner, served.states, served.model
        self.new = self.known = self.corrected = 0
        self.unit_interval: bool | None = None
        """Whether all labels are in [0, 1], if those of training were not."""
        self.items: set[str] = set()
        self.unseen = Unseen()
        self.scored = list[_Outcomes]()
        self.later_clicks = list[int]()
        """Of each click on an event that had counted as none: how many other events its item had."""

    def count(self, arrived: EventBatch) -> Warmed:
        """Count these events.

        Raises StoreError for an item that others keep changing; DataError, and changes nothing, for labels of another scale than in
        training, detected over consecutive calls.
        """
        self.unit_interval = self.learner.encoder.only_unit(arrived.log)
        for part in self._parts(arrived):
            self._count(part)
        calibration = _with_clicks(_by_age(self.scored), self.later_clicks)
        return Warmed(
            self.new, self.known, sorted(self.items), self.corrected, self.skipped.lines, self.unseen, calibration
        )

    def _parts(self, arrived: EventBatch) -> Iterator[EventBatch]:
        """The events of a part of the items after the other, each with about `READ_TOGETHER` past events at most.

        All at once where an error has to come before anything is done.
        """
        items = arrived.items
        if self.skipped.strict or len(items) * KEPT <= READ_TOGETHER:
            yield arrived
            return
        known = self.served.refreshed(items, {}, max_age=COUNTS_AGE)
        past = [min(known.headers[known.numbers[name]].events, KEPT) if name in known.numbers else 0 for name in items]
        part = np.cumsum(past) // READ_TOGETHER
        for number in np.unique(part):
            yield arrived.take(arrived.of_items({items[n] for n in np.flatnonzero(part == number)}))

    def _count(self, arrived: EventBatch) -> None:
        for _ in range(ATTEMPTS):
            with self.served.warming:
                arrived = self._round(arrived)
            if not len(arrived):
                return
        raise StoreError(
            f"item '{arrived.items[0]}' was changed by others {ATTEMPTS} times meanwhile; send the same events again"
        )

    def _round(self, arrived: EventBatch) -> EventBatch:
        """One round; returns the events of items that another process changed meanwhile."""
        arrived, is_new, known = self._due(arrived)
        if self.unit_interval and not self.new:
            self.learner.encoder.require_no_run(int(is_new.sum()), self.states.unit_labels(self.model), self.where)
        past, damaged_items = self._past(_warm(arrived.items, known), known)
        is_sound = ~arrived.of_items(damaged_items)
        arrived, is_new = arrived.take(is_sound), is_new[is_sound]
        if not len(arrived):
            return arrived
        new, clicked = arrived.take(is_new), arrived.take(~is_new)
        labels: Mapping[str, Mapping[str, int]] = {}
        if len(clicked):
            rows = self._clicks(clicked, known).by_row()
            corrections = Corrections.of(clicked, rows, past, self.learner, known, self.skipped)
            past, labels = corrections.past, corrections.labels
        late = self._tune(new, labels, known, past)
        return arrived.take(arrived.of_items(late) & (is_new | arrived.counted(labels)))

    def due(self, arrived: EventBatch) -> EventBatch:
        """The events that would count now, or correct one; the others are known, or skipped. Nothing is written."""
        return self._due(arrived)[0]

    def _wanted(self, arrived: EventBatch, known: ItemCache, damaged: dict[str, StoreError]) -> EventBatch:
        """Without events of unknown, damaged or non-finite items; the last stay if warm-ups start from the initial state."""
        begins = known.non_finite if self.learner.from_initial_state else frozenset()
        wrong = item_errors(arrived.log, known, damaged, self.where, but=begins)
        if not wrong:
            return arrived
        by_item: dict[int, list[int]] = {}
        for row in wrong:
            by_item.setdefault(int(arrived.log.item[row]), []).append(row)
        for rows in by_item.values():
            self.skipped.add(wrong[rows[0]], events=len(rows))
        return arrived.take(np.setdiff1d(np.arange(len(arrived)), list(wrong)))

    def _of_others(self, arrived: EventBatch) -> EventBatch:
        """Without events of forgotten users."""
        gone = arrived.of_users(self.served.forgotten_users(user_names(arrived.log)))
        for row in np.flatnonzero(gone).tolist():
            self.skipped.add(arrived.of_forgotten_user(row))
        return arrived.take(~gone) if gone.any() else arrived

    def _clicks(self, batch: EventBatch, known: ItemCache) -> Clicks:
        return self.learner.encoder.clicks(batch.log, numbers_of(batch.log, known)).to(self.learner.device)

    def _due(self, arrived: EventBatch) -> tuple[EventBatch, NDArray[np.bool_], ItemCache]:
        """Events to be counted and clicks on events that counted as no click, with a mask of the former, and their items.

        Events of items whose counted events are damaged are skipped, and so are those under the id of another one.
        """
        damaged: dict[str, StoreError] | None = None if self.skipped.strict else {}
        known = self.served.refreshed(arrived.items, damaged)
        # counted events are read after the versions: a later event changes the version
        arrived = self._of_others(self._wanted(arrived, known, damaged or {}))
        warm = _warm(arrived.items, known)
        while True:
            try:
                labels = self.states.labels(self.model, arrived.asked(warm))
                break
            except DamagedItemError as error:
                mine = arrived.of_items([error.item])
                self.skipped.add(error, events=int(mine.sum()))
                arrived = arrived.take(~mine)
        is_new, clicked = ~arrived.counted(labels), arrived.differing(labels, 1)
        taken_back = (
            arrived.differing(labels, 0) if arrived.log.schema.has_grades else np.zeros(len(arrived), dtype=bool)
        )
        for row in np.flatnonzero(taken_back).tolist():
            self.skipped.add(arrived.not_taken_back(row))
        self.known += self._repeated(arrived.take(~is_new & ~clicked & ~taken_back), known)
        due = is_new | clicked
        return arrived.take(due), is_new[due], known

    def _repeated(self, again: EventBatch, known: ItemCache) -> int:
        """How many of these events, whose ids have counted, are those that counted; others are skipped."""
        others = self._under_ids_of_others(again, known)
        for row in others:
            self.skipped.add(again.other_values(row))
        return len(again) - len(others)

    def _under_ids_of_others(self, batch: EventBatch, known: ItemCache) -> list[int]:
        """Rows under the id of an event that has counted with another user or context, as far as its values are kept."""
        past, _ = self._past(_warm(batch.items, known), known)
        windows = {name: {event.id: event for event in window} for name, window in past.windows.items()}
        rows = np.flatnonzero(batch.counted(windows))
        if not len(rows):
            return []
        kept = batch.take(rows)
        values = to_values(self._clicks(kept, known).by_row())
        names = [kept.log.items.ids[item] for item in kept.log.item]
        counted = [windows[name][id] for name, id in zip(names, kept.ids, strict=True)]
        return [int(rows[n]) for n, event in enumerate(counted) if is_another(kept, values[n], n, event)]

    def _past(self, warm: Collection[str], known: ItemCache) -> tuple[PastEvents, set[str]]:
        """Past events of these items, without those whose past is damaged, which are returned too."""
        damaged = set[str]()
        while True:
            try:
                wanted = set(warm) - damaged
                return PastEvents.read(self.states, self.model, self.learner, known, wanted), damaged
            except DamagedItemError as error:
                self.skipped.add(error)
                damaged.add(error.item)

    def _tune(
        self, new: EventBatch, labels: Mapping[str, Mapping[str, int]], known: ItemCache, past: PastEvents
    ) -> set[str]:
        """Adapt and commit; returns the items that another process changed meanwhile. `labels`: of past events, corrected."""
        by_item, late = new.by_item(), set[str]()
        names = {known.numbers[name]: name for name in {**by_item, **labels}}
        if not names:
            return late
        before, summaries = past.by_number(known.numbers)
        clicks = self._clicks(new, known) if len(new) else None
        rows = None if clicks is None else clicks.by_row()
        parts = [to_clicks(before, self.learner.encoder, self.learner.device)] if before else []
        every = concat_clicks(parts if rows is None else [*parts, rows])
        start = self._start(known, list(names.values())) if self.learner.from_initial_state else known.state
        keeps = to_values(rows) if rows is not None and self.learner.warmup_events == "all" else None
        every, summaries = self.learner.lifecycle.absorb(start, known.item_features, every, summaries)
        changes = list[Change]()
        for items, state in self.learner.adapt(start, known.item_features, every, summaries):
            mine = [names[number] for number in items.tolist()]
            finite = all_finite(state)
            sound = (items[finite], {key: value[finite] for key, value in state.items()})
            factors = self.learner.lifecycle.posterior(*sound, known.item_features, every, summaries)
            for n, (name, whole) in enumerate(zip(mine, finite.tolist(), strict=True)):
                number = known.numbers[name]
                summary, factor = summaries.get(number), factors.get(number)
                if whole and (summary is None or summary.is_finite):
                    of_item = {key: value[n] for key, value in state.items()}
                    noted = new.events(by_item.get(name, []), keeps)
                    change = _next(known, name, of_item, noted, summary, factor)
                    changes.append(replace(change, unit_interval=self.unit_interval, labels=labels.get(name, {})))
                else:
                    self.skipped.add(
                        LearnerError(
                            f"item '{name}': by these events its state would become no number; it stays as it was"
                        )
                    )
            if len(changes) >= COMMITTED_TOGETHER:
                late, changes = late | self._written(changes), []
        late |= self._written(changes)
        if clicks is not None:
            done = ~new.of_items(late) & new.of_items(self.items)
            self.unseen = self.unseen + unseen_of_clicks(self.learner.encoder, clicks, done)
            self.scored.append(self._scored(known, clicks)[:, done])
        return late

    def _scored(self, known: ItemCache, clicks: Clicks) -> _Outcomes:
        """Numbers of events, labels and click probabilities of these events before they count, the last two times their weights.

        A negative of a log of which others were left out stands for these too.
        """
        before = np.array([known.headers[number].events for number in clicks.item.tolist()])
        given = (self.learner.network, known.state, known.item_features, clicks)
        one = logit_of_one(*given) if len(clicks) == 1 else None
        logits = predict_logits(*given) if one is None else np.array([one])
        label = clicks.label.cpu().numpy()
        weight = clicks.weights(torch.arange(len(clicks), device=clicks.item.device)).cpu().numpy()
        expected = weight * sigmoid(self.learner.calibration(logits, before))
        stands_for = np.where(label, 1.0, 1 / self.learner.probabilities.negative_rate)
        return np.stack([before, weight * label, stands_for * expected])

    def _start(self, known: ItemCache, names: Sequence[str]) -> State:
        """Cached states, with the initial states of these items."""
        numbers = torch.tensor([known.numbers[name] for name in names], device=self.learner.device)
        state = initial_states(self.learner, names, [values[numbers] for values in known.item_features], known.readded)
        return {key: value.index_copy(0, numbers, state[key]) for key, value in known.state.items()}

    def _written(self, changes: list[Change]) -> set[str]:
        """Commit states with their events; returns items with another version in the database."""
        while changes:
            try:
                late = self.states.commit(self.model, changes)
            except DamagedItemError as error:
                self.skipped.add(error)
                changes = [change for change in changes if change.state.item != error.item]
                continue
            done = [change for change in changes if change.state.item not in late]
            self.new += sum(len(change.events) for change in done)
            self.corrected += sum(len(change.labels) for change in done)
            self.later_clicks += [
                change.state.events - len(change.events) - 1 for change in done for _ in change.labels
            ]
            self.items |= {change.state.item for change in done}
            return late
        return set()


def _warm(items: Sequence[str], known: ItemCache) -> set[str]:
    """Those of these items that have events."""
    return {name for name in items if known.headers[known.numbers[name]].events}


def _by_age(scored: Sequence[_Outcomes]) -> dict[str, dict[str, float]]:
    if not scored:
        return {}
    before, label, expected = np.concatenate(scored, axis=1)
    sound = np.isfinite(expected)  # not of items whose state was repaired by these events
    return calibration_by_age(before[sound], label[sound], expected[sound])


def _with_clicks(calibration: dict[str, dict[str, float]], before: Sequence[int]) -> dict[str, dict[str, float]]:
    """With a click on an event that has been scored, for each number of events that its item had beside it."""
    for name, sums in calibration_by_age(before, np.ones(len(before)), np.zeros(len(before))).items():
        of_age = calibration.setdefault(name, {"rows": 0.0, "expected": 0.0, "clicks": 0.0})
        of_age["clicks"] += sums["clicks"]
    return calibration


def _next(
    known: ItemCache,
    name: str,
    state: State,
    events: Sequence[Event],
    summary: ItemSummary | None,
    posterior: Tensor | None,
) -> Change:
    """An item's next version from its `state`."""
    number = known.numbers[name]
    head, item_features = known.headers[number], [values[number][None] for values in known.item_features]
    mine = {key: value[None] for key, value in state.items()}
    count, again = head.events + len(events), name in known.readded
    erased = known.erased.get(name, 0)
    row = to_row(name, head.version + 1, count, item_features, mine, 0, again, summary, posterior, erased)
    return Change(row, events)
