"""One warm-up of items in service: events on their way to states."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import torch

from newcomer.errors import LearnerError, StoreError
from newcomer.items.encoding.encoder import Clicks, joined_clicks
from newcomer.items.encoding.unseen_values import Unseen, unseen_of_clicks
from newcomer.items.networks.item_network import State
from newcomer.items.serving.cached_items import ServedItems
from newcomer.items.serving.event_batch import Arrivals
from newcomer.items.serving.event_serialization import to_clicks
from newcomer.items.serving.finite_checks import sound
from newcomer.items.serving.item_cache import Known
from newcomer.items.serving.repair import states_at_start
from newcomer.items.serving.results import LeftOut, Warmed
from newcomer.items.serving.scoring import numbers_of, wrong_items
from newcomer.items.serving.serialization import to_row
from newcomer.store.states import Change, DamagedItemError, Event

ATTEMPTS = 100
"""How often an item is warmed up anew because another process was quicker; each time, that one got on."""


class WarmUp:
    """Events of some items, round by round, until all have counted, had counted before, or are left out."""

    def __init__(self, served: ServedItems, where: str, left: LeftOut) -> None:
        self.served, self.where, self.left = served, where, left
        self.learner, self.states, self.model = served.learner, served.states, served.model
        self.new = self.known = self.conflicting = 0
        self.unit: bool | None = None
        """Whether all labels are from 0 to 1, where those of training were not."""
        self.items: set[str] = set()
        self.unseen = Unseen()

    def count(self, arrived: Arrivals) -> Warmed:
        """Let these events count.

        Raises StoreError for an item that others change without end; and DataError, and changes nothing, for labels of another kind
        than in training, which is seen where they are added to those of the calls before.
        """
        self.unit = self.learner.encoder.only_unit(arrived.log)
        for _ in range(ATTEMPTS):
            arrived = self._round(arrived)
            if not len(arrived):
                return Warmed(self.new, self.known, sorted(self.items), self.conflicting, self.left.lines, self.unseen)
        raise StoreError(
            f"item '{arrived.items[0]}' was changed by others {ATTEMPTS} times meanwhile; send the same events again"
        )

    def differ(self, conflicts: Sequence[str]) -> None:
        """Note events that have counted with another label."""
        self.left.lines += conflicts
        self.conflicting += len(conflicts)

    def _round(self, arrived: Arrivals) -> Arrivals:
        """The events whose items another process has changed meanwhile."""
        damaged: dict[str, StoreError] | None = None if self.left.strict else {}
        known = self.served.fresh(arrived.items, damaged)
        # only now is it asked what has counted: what counts later makes another version
        arrived = self._wanted(arrived, known, damaged or {})
        warm = {name for name in arrived.items if known.heads[known.numbers[name]].events}
        new = self._not_counted(arrived, warm)
        if self.unit and not self.new:
            self.learner.encoder.require_no_run(len(new), self.states.unit_labels(self.model), self.where)
        past, new = self._past(warm & set(new.items), new)
        if not len(new):
            return new
        clicks = self.learner.encoder.clicks(new.log, numbers_of(new.log, known)).to(self.learner.device)
        late = self._tune(new, known, clicks, past)
        again = new.of_items(late)
        return new.take(again)

    def _wanted(self, arrived: Arrivals, known: Known, damaged: dict[str, StoreError]) -> Arrivals:
        """Without the events of items that are not there or not sound; one that is no number is tuned from its start, if it can."""
        begins = known.unsound if self.learner.from_the_start else frozenset()
        wrong = wrong_items(arrived.log, known, damaged, self.where, but=begins)
        if not wrong:
            return arrived
        by_item: dict[int, list[int]] = {}
        for row in wrong:
            by_item.setdefault(int(arrived.log.item[row]), []).append(row)
        for rows in by_item.values():
            self.left.add(wrong[rows[0]], events=len(rows))
        return arrived.take(np.setdiff1d(np.arange(len(arrived)), list(wrong)))

    def _not_counted(self, arrived: Arrivals, warm: Collection[str]) -> Arrivals:
        labels = self.states.labels(self.model, arrived.asked(warm))
        conflicts, new = arrived.conflicts(labels), arrived.without(labels)
        self.differ(conflicts)
        self.known += len(arrived) - len(new) - len(conflicts)
        return new

    def _past(self, warm: Collection[str], new: Arrivals) -> tuple[list[tuple[str, Event]], Arrivals]:
        """Events that these items had before, where the history is 'all'; and the new ones of items whose past is sound."""
        if self.learner.history != "all":
            return [], new
        wanted = set(warm)
        while True:
            try:
                kept = self.states.past(self.model, wanted)
                return [(name, event) for name, events in kept.items() for event in events], new
            except DamagedItemError as error:
                self.left.add(error)
                wanted.discard(error.item)
                new = new.take(~new.of_items([error.item]))

    def _tune(self, new: Arrivals, known: Known, clicks: Clicks, past: Sequence[tuple[str, Event]]) -> set[str]:
        """Write the new states of the items; those that another process has changed meanwhile are returned."""
        by_item, late = new.by_item(), set[str]()
        names = {known.numbers[name]: name for name in by_item}
        rows = clicks.by_row()
        before = [(known.numbers[name], event) for name, event in past]
        every = joined_clicks([to_clicks(before, self.learner.encoder, self.learner.device), rows]) if before else rows
        start = self._start(known, list(by_item)) if self.learner.from_the_start else known.state
        keeps = rows if self.learner.history == "all" else None
        for items, state in self.learner.tuned(start, known.own, every):
            mine = [names[number] for number in items.tolist()]
            changes = []
            for n, (name, whole) in enumerate(zip(mine, sound(state).tolist(), strict=True)):
                if whole:
                    of_item = {key: value[n] for key, value in state.items()}
                    changes.append(
                        replace(_next(known, name, of_item, new.events(by_item[name], keeps)), unit=self.unit)
                    )
                else:
                    self.left.add(
                        LearnerError(
                            f"item '{name}': by these events its state would become no number; it stays as it was"
                        )
                    )
            late |= self._written(changes)
        done = ~new.of_items(late) & new.of_items(self.items)
        self.unseen = self.unseen + unseen_of_clicks(self.learner.encoder, clicks, done)
        return late

    def _start(self, known: Known, names: Sequence[str]) -> State:
        """What is known, with the states of these items as they began."""
        numbers = torch.tensor([known.numbers[name] for name in names], device=self.learner.device)
        state = states_at_start(self.learner, names, [values[numbers] for values in known.own], known.anew)
        return {key: value.index_copy(0, numbers, state[key]) for key, value in known.state.items()}

    def _written(self, changes: list[Change]) -> set[str]:
        """Write these states with the events that made them; items of which another version is there by now are returned."""
        while changes:
            try:
                late = self.states.advance(self.model, changes)
            except DamagedItemError as error:
                self.left.add(error)
                changes = [change for change in changes if change.state.item != error.item]
                continue
            done = [change for change in changes if change.state.item not in late]
            self.new += sum(len(change.events) for change in done)
            self.items |= {change.state.item for change in done}
            return late
        return set()


def _next(known: Known, name: str, state: State, events: Sequence[Event]) -> Change:
    """An item's next version; `state` is its own alone."""
    number = known.numbers[name]
    head, own = known.heads[number], [values[number][None] for values in known.own]
    mine = {key: value[None] for key, value in state.items()}
    row = to_row(name, head.version + 1, head.events + len(events), own, mine, 0, anew=name in known.anew)
    return Change(row, events)
