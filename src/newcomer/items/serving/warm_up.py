"""One warm-up of items in the service: from events to committed states."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.errors import LearnerError, StoreError
from newcomer.items.adaptation.item_summary import ItemSummary
from newcomer.items.encoding.encoder import Clicks, concat_clicks
from newcomer.items.encoding.unseen_values import Unseen, unseen_of_clicks
from newcomer.items.inference import predict_logits, sigmoid
from newcomer.items.networks.item_network import State
from newcomer.items.serving.cached_items import CachedItems
from newcomer.items.serving.event_batch import EventBatch
from newcomer.items.serving.event_serialization import to_clicks
from newcomer.items.serving.finite_checks import all_finite
from newcomer.items.serving.item_cache import ItemCache
from newcomer.items.serving.past_events import PastEvents
from newcomer.items.serving.repair import initial_states
from newcomer.items.serving.results import SkippedRows, Warmed
from newcomer.items.serving.scoring import item_errors, numbers_of
from newcomer.items.serving.serialization import to_row
from newcomer.metrics.calibration import calibration_by_age
from newcomer.shapes import Tensor
from newcomer.store.states import Change, DamagedItemError, Event

_Outcomes = NDArray[np.float64]
"""Rows: number of events before, label, expected clicks; a column an event."""

ATTEMPTS = 100
"""Retries of an item after conflicts with other processes, each of which made progress."""


class WarmUp:
    """Counts events in rounds, until each was counted now or before, or was skipped."""

    def __init__(self, served: CachedItems, where: str, skipped: SkippedRows) -> None:
        self.served, self.where, self.skipped = served, where, skipped
        self.learner, self.states, self.model = served.learner, served.states, served.model
        self.new = self.known = self.conflicting = 0
        self.unit_interval: bool | None = None
        """Whether all labels are in [0, 1], if those of training were not."""
        self.items: set[str] = set()
        self.unseen = Unseen()
        self.scored = list[_Outcomes]()

    def count(self, arrived: EventBatch) -> Warmed:
        """Count these events.

        Raises StoreError for an item that others keep changing; DataError, and changes nothing, for labels of another scale than in
        training, detected over consecutive calls.
        """
        self.unit_interval = self.learner.encoder.only_unit(arrived.log)
        for _ in range(ATTEMPTS):
            arrived = self._round(arrived)
            if not len(arrived):
                return Warmed(
                    self.new,
                    self.known,
                    sorted(self.items),
                    self.conflicting,
                    self.skipped.lines,
                    self.unseen,
                    _by_age(self.scored),
                )
        raise StoreError(
            f"item '{arrived.items[0]}' was changed by others {ATTEMPTS} times meanwhile; send the same events again"
        )

    def differ(self, conflicts: Sequence[str]) -> None:
        """Record events that were counted with another label."""
        self.skipped.lines += conflicts
        self.conflicting += len(conflicts)

    def _round(self, arrived: EventBatch) -> EventBatch:
        """One round; returns the events of items that another process changed meanwhile."""
        damaged: dict[str, StoreError] | None = None if self.skipped.strict else {}
        known = self.served.refreshed(arrived.items, damaged)
        # counted events are read after the versions: a later event changes the version
        arrived = self._wanted(arrived, known, damaged or {})
        warm = {name for name in arrived.items if known.headers[known.numbers[name]].events}
        new = self._not_counted(arrived, warm)
        if self.unit_interval and not self.new:
            self.learner.encoder.require_no_run(len(new), self.states.unit_labels(self.model), self.where)
        past, new = self._past(warm & set(new.items), new, known)
        if not len(new):
            return new
        clicks = self.learner.encoder.clicks(new.log, numbers_of(new.log, known)).to(self.learner.device)
        scored = self._scored(known, clicks)
        late = self._tune(new, known, clicks, past)
        self.scored.append(scored[:, ~new.of_items(late) & new.of_items(self.items)])
        again = new.of_items(late)
        return new.take(again)

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

    def _not_counted(self, arrived: EventBatch, warm: Collection[str]) -> EventBatch:
        """Without events that were counted before, and without those of items whose counted events are damaged."""
        while True:
            try:
                labels = self.states.labels(self.model, arrived.asked(warm))
                break
            except DamagedItemError as error:
                mine = arrived.of_items([error.item])
                self.skipped.add(error, events=int(mine.sum()))
                arrived = arrived.take(~mine)
        conflicts, new = arrived.conflicts(labels), arrived.without(labels)
        self.differ(conflicts)
        self.known += len(arrived) - len(new) - len(conflicts)
        return new

    def _past(self, warm: Collection[str], new: EventBatch, known: ItemCache) -> tuple[PastEvents, EventBatch]:
        """Past events of these items, and the new events of items whose past is undamaged."""
        wanted = set(warm)
        while True:
            try:
                return PastEvents.read(self.states, self.model, self.learner, known, wanted), new
            except DamagedItemError as error:
                self.skipped.add(error)
                wanted.discard(error.item)
                new = new.take(~new.of_items([error.item]))

    def _tune(self, new: EventBatch, known: ItemCache, clicks: Clicks, past: PastEvents) -> set[str]:
        """Adapt and commit; returns the items that another process changed meanwhile."""
        by_item, late = new.by_item(), set[str]()
        names = {known.numbers[name]: name for name in by_item}
        rows = clicks.by_row()
        before, summaries = past.by_number(known.numbers)
        every = concat_clicks([to_clicks(before, self.learner.encoder, self.learner.device), rows]) if before else rows
        start = self._start(known, list(by_item)) if self.learner.from_initial_state else known.state
        keeps = rows if self.learner.warmup_events == "all" else None
        every, summaries = self.learner.lifecycle.absorb(start, known.item_features, every, summaries)
        for items, state in self.learner.adapt(start, known.item_features, every, summaries):
            mine = [names[number] for number in items.tolist()]
            changes = []
            finite = all_finite(state)
            sound = (items[finite], {key: value[finite] for key, value in state.items()})
            factors = self.learner.lifecycle.posterior(*sound, known.item_features, every, summaries)
            for n, (name, whole) in enumerate(zip(mine, finite.tolist(), strict=True)):
                number = known.numbers[name]
                summary, factor = summaries.get(number), factors.get(number)
                if whole and (summary is None or summary.is_finite):
                    of_item = {key: value[n] for key, value in state.items()}
                    noted = new.events(by_item[name], keeps)
                    changes.append(
                        replace(_next(known, name, of_item, noted, summary, factor), unit_interval=self.unit_interval)
                    )
                else:
                    self.skipped.add(
                        LearnerError(
                            f"item '{name}': by these events its state would become no number; it stays as it was"
                        )
                    )
            late |= self._written(changes)
        done = ~new.of_items(late) & new.of_items(self.items)
        self.unseen = self.unseen + unseen_of_clicks(self.learner.encoder, clicks, done)
        return late

    def _scored(self, known: ItemCache, clicks: Clicks) -> _Outcomes:
        """Numbers of events, labels and click probabilities of these events before they count.

        A negative of a log of which others were left out stands for these too.
        """
        before = np.array([known.headers[number].events for number in clicks.item.tolist()])
        logits = predict_logits(self.learner.network, known.state, known.item_features, clicks)
        label = clicks.label.cpu().numpy()
        weight = np.where(label, 1.0, 1 / self.learner.probabilities.negative_rate)
        return np.stack([before, label, weight * sigmoid(self.learner.calibration(logits, before))])

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
            self.items |= {change.state.item for change in done}
            return late
        return set()


def _by_age(scored: Sequence[_Outcomes]) -> dict[str, dict[str, float]]:
    if not scored:
        return {}
    before, label, expected = np.concatenate(scored, axis=1)
    sound = np.isfinite(expected)  # not of items whose state was repaired by these events
    return calibration_by_age(before[sound], label[sound], expected[sound])


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
    row = to_row(name, head.version + 1, count, item_features, mine, 0, again, summary, posterior)
    return Change(row, events)
