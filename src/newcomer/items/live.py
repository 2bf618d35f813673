"""A learner in service: items are added, scored and warmed up one request at a time, and what they become is in a database."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from newcomer.data.log import Log, Table
from newcomer.data.read import items_from_frame, log_from_frame
from newcomer.errors import DataError, StoreError
from newcomer.items.arrivals import Arrivals, names_of
from newcomer.items.encoding import Clicks, Values, joined_clicks
from newcomer.items.event_ids import LONGEST, event_ids
from newcomer.items.kept import same_fields, to_clicks, to_row
from newcomer.items.known import Known
from newcomer.items.learner import ItemLearner
from newcomer.items.network import State
from newcomer.items.taking_up import own_items
from newcomer.items.warm import scored
from newcomer.store.folder import Store
from newcomer.store.states import Change, Event, Head, ItemState, ItemStates

ATTEMPTS = 100
"""How often an item is warmed up anew because another process was quicker; each time, that one got on."""

ANSWER = {"score": pl.Float64, "model": pl.String, "phase": pl.String, "events": pl.Int64}
"""The columns of an answer, one row a request."""


@dataclass(frozen=True)
class Added:
    """What `add` did: items that are new, and those that were there already with the same features."""

    new: Sequence[str]
    known: Sequence[str]


@dataclass(frozen=True)
class Warmed:
    """What `warm` did: events that counted, events that had counted before, and the items that were tuned."""

    new: int
    known: int
    items: Sequence[str]


class LiveItems:
    """A learner that has learned its old items, with the states of all items in a database.

    Several processes may share the database: what one writes the others see at their next request. The learner's weights are
    never changed, and the learner is not to be used otherwise meanwhile. `model` is the weights' fingerprint: the states of other
    weights in the same database are not touched. The learner's own items are taken up when they are not there yet.

    All methods raise StoreError when the database refuses or holds what was not written, and DataError for a table that the
    learner's schema does not fit. They may be called from several threads.
    """

    def __init__(self, learner: ItemLearner, model: str, states: ItemStates) -> None:
        self.learner, self.model, self.states = learner, model, states
        learner.network.eval().requires_grad_(False)
        self._known, self._lock, self._taken_up = Known(), Lock(), False

    @classmethod
    def open(cls, kind: type[ItemLearner], folder: str | Path, url: str | None = None) -> Self:
        """The learner that was saved here, its states in `items.db` in the same folder or in the database at `url`."""
        from newcomer.store.sql import SqlItemStates, sqlite_url  # whoever serves no items does not load it

        learner = kind.load(folder)
        return cls(learner, fingerprint(folder), SqlItemStates(url or sqlite_url(Path(folder) / "items.db")))

    def add(self, items: Table | pl.DataFrame, where: str = "items") -> Added:
        """Know these items from now on, by their fields alone; they can be scored at once. All of them are added or none.

        Raises DataError, with its name, for an item that is there with other features.
        """
        if not len(items):
            return Added([], [])
        table = items_from_frame(items, self.learner.schema, where) if isinstance(items, pl.DataFrame) else items
        _require_short(table.ids, where)
        own = [values.to(self.learner.device) for values in self.learner.encoder.items(table)]
        known = self._fresh(table.ids)
        self._require_alike(known, table, own, where)
        new = [n for n, name in enumerate(table.ids) if name not in known.numbers]
        raced = self._begin([table.ids[n] for n in new], [values[new] for values in own]) if new else set()
        if raced:
            self._require_alike(self._fresh(raced), table, own, where)
        old = raced | set(table.ids) & set(known.numbers)
        return Added([name for name in table.ids if name not in old], sorted(old))

    def score(self, requests: Log | pl.DataFrame, where: str = "table") -> pl.DataFrame:
        """The columns of `ANSWER`, one row a request. Users and values never seen are read as 'unseen'.

        Raises DataError, with row, column and value, for an item that was not added.
        """
        if not len(requests):
            return pl.DataFrame(schema=ANSWER)
        log = self._log(requests, where, labels=False)
        known = self._fresh(names_of(log))
        numbers = self._numbers(log, known, where)
        clicks = self.learner.encoder.clicks(log, numbers).to(self.learner.device)
        heads = [known.heads[number] for number in numbers]
        answer = {
            "score": scored(self.learner.network, known.state, known.own, clicks, self.learner.prepared),
            "model": [self.model] * len(log),
            "phase": [head.phase for head in heads],
            "events": [head.events for head in heads],
        }
        return pl.DataFrame(answer, schema=ANSWER)

    def warm(self, events: Log | pl.DataFrame, event_id: str | None = None, where: str = "table") -> Warmed:
        """Tune the states of the items that these events are about, and touch nothing else.

        An event counts once, however often it comes, for its item and its id, which stands in the column `event_id` or is made by
        `event_ids.digests`. When an event happened makes no difference, only that it came. When the method returns, all of it is on
        the disk; cut off before, every item has all of these events or none of them, and the same call does the rest.
        """
        if not len(events):
            return Warmed(0, 0, [])
        log = self._log(events, where)
        ids = event_ids(log, events if isinstance(events, pl.DataFrame) else None, event_id, where)
        waiting, new, tuned = Arrivals.of(log, ids), 0, set[str]()
        for _ in range(ATTEMPTS):
            done, waiting = self._tune(waiting, where)
            new += len(done)
            tuned |= set(done.items)
            if not len(waiting):
                return Warmed(new, len(log) - new, sorted(tuned))
        raise StoreError(
            f"item '{waiting.items[0]}' was changed by others {ATTEMPTS} times meanwhile; send the same events again"
        )

    def heads(self) -> dict[str, Head]:
        """Version, phase and number of events of every item."""
        self._take_up()
        return self.states.heads(self.model)

    def look_up(self, item: str) -> tuple[ItemState, State]:
        """One item's row, and its state as the learner's methods take it: Float[1 …] by name.

        Raises DataError for an item that was not added.
        """
        known = self._fresh([item])
        if item not in known.numbers:
            close = difflib.get_close_matches(item, self.heads(), n=1)
            then = f"did you mean '{close[0]}'?" if close else "add it first"
            raise DataError(f"item '{item}' is not known; {then}")
        number = known.numbers[item]
        row = self.states.get(self.model, [item])[item]
        return row, {key: value[number : number + 1] for key, value in known.state.items()}

    def taken_over(self) -> ItemLearner:
        """The learner itself with all items as the database has them now, to be looked into; it is not for service any more."""
        names = list(self.heads())
        known = self._fresh(names)
        self.learner.take_over(list(known.numbers), known.own, known.state, [head.events for head in known.heads])
        return self.learner

    def close(self) -> None:
        """Give back what is held of the database."""
        self.states.close()

    def _tune(self, arrived: Arrivals, where: str) -> tuple[Arrivals, Arrivals]:
        """The events that have counted now, and those whose items another process has changed meanwhile."""
        known = self._fresh(
            arrived.items
        )  # before it is asked what has counted: what counts later makes another version
        self._numbers(arrived.log, known, where)
        warm = {name for name in arrived.items if known.heads[known.numbers[name]].events}
        new = arrived.without(self.states.seen(self.model, arrived.asked(warm)))
        if not len(new):
            return new, new
        numbers = self._numbers(new.log, known, where)
        clicks = self.learner.encoder.clicks(new.log, numbers).to(self.learner.device).by_row()
        keeps, by_item = self.learner.history == "all", new.by_item()
        warm &= set(by_item)
        names, late = {known.numbers[name]: name for name in by_item}, set[str]()
        start = self._begun(known, list(by_item)) if self.learner.from_the_start else known.state
        for items, state in self.learner.tuned(start, known.own, self._with_past(clicks, known, warm)):
            changes = []
            for n, number in enumerate(items.tolist()):
                events = new.events(by_item[names[number]], clicks if keeps else None)
                changes.append(_next(known, names[number], {key: value[n] for key, value in state.items()}, events))
            late |= self.states.advance(self.model, changes)
        again = new.of_items(late)
        return new.take(~again), new.take(again)

    def _begun(self, known: Known, names: Sequence[str]) -> State:
        """What is known, with the states of these items as they began."""
        numbers = torch.tensor([known.numbers[name] for name in names], device=self.learner.device)
        state = self.learner.begin([values[numbers] for values in known.own], len(names))
        own = [n for n, name in enumerate(names) if name in self.learner.known]
        theirs = [self.learner.known[names[n]] for n in own]
        for key, value in state.items():
            value[own] = self.learner.begun[key][theirs]
        return {key: value.index_copy(0, numbers, state[key]) for key, value in known.state.items()}

    def _with_past(self, clicks: Clicks, known: Known, warm: Collection[str]) -> Clicks:
        """These events, and before them those that these items had before, where the history is 'all'."""
        if self.learner.history != "all":
            return clicks
        kept = self.states.past(self.model, warm)
        past = [(known.numbers[name], event) for name, events in kept.items() for event in events]
        return joined_clicks([to_clicks(past, clicks), clicks]) if past else clicks

    def _begin(self, names: Sequence[str], own: Values) -> set[str]:
        """Write the states that new items begin with; those that another process has added meanwhile are returned."""
        state = self.learner.begin(own, len(names))
        rows = [to_row(name, 0, 0, own, state, n) for n, name in enumerate(names)]
        return self.states.add(self.model, [Change(row, []) for row in rows])

    def _fresh(self, names: Collection[str]) -> Known:
        """What is known, these items as they are in the database now; without those that are not there."""
        self._take_up()
        with self._lock:
            heads = self.states.heads(self.model, names)
            if any(name in self._known.numbers and name not in heads for name in names):
                self._known = Known()  # somebody has deleted rows
            stale = self._known.stale(heads)
            if stale:
                rows = self.states.get(self.model, stale).values()
                self._known = self._known.updated(list(rows), self.learner.device)
            return self._known

    def _take_up(self) -> None:
        """Write the learner's own items to the database, those that are not there yet."""
        with self._lock:
            if self._taken_up:
                return
            there = self.states.heads(self.model, self.learner.known)
            missing = [name for name in self.learner.known if name not in there]
            if missing:
                self.states.add(self.model, own_items(self.learner, missing))
            self._taken_up = True

    def _require_alike(self, known: Known, table: Table, own: Values, where: str) -> None:
        for n, name in enumerate(table.ids):
            if name in known.numbers and not same_fields(own, n, known.own, known.numbers[name]):
                raise DataError(
                    f"{where}: item '{name}' is there with other features; features do not change, add it under another id"
                )

    def _numbers(self, log: Log, known: Known, where: str) -> NDArray[np.int64]:
        numbers: NDArray[np.int64] = np.array([known.numbers.get(name, -1) for name in log.items.ids])[log.item]
        if (numbers < 0).any():
            row = int((numbers < 0).argmax())
            raise DataError(
                f"{where}: row {log.row[row] + 1}, column '{self.learner.schema.item}': item '{log.items.ids[log.item[row]]}' "
                "is not known; add it first"
            )
        return numbers

    def _log(self, table: Log | pl.DataFrame, where: str, labels: bool = True) -> Log:
        if isinstance(table, Log):
            return table
        return log_from_frame(table, self.learner.schema, items=False, labels=labels, where=where)


def fingerprint(folder: str | Path) -> str:
    """What the shared weights of a store are known by: the first 16 hexadecimal digits of the SHA-256 of its first stage.

    Raises StoreError for a store that has learned nothing.
    """
    stages = Store(folder).manifest().stages
    if not stages:
        raise StoreError(f"{folder}: has learned nothing yet; teach it old items first")
    return str(stages[0]["sha256"])[:16]


def _next(known: Known, name: str, state: State, events: Sequence[Event]) -> Change:
    """An item's next version; `state` is its own alone."""
    number = known.numbers[name]
    head, own = known.heads[number], [values[number][None] for values in known.own]
    mine = {key: value[None] for key, value in state.items()}
    return Change(to_row(name, head.version + 1, head.events + len(events), own, mine, 0), events)


def _require_short(names: Sequence[str], where: str) -> None:
    for name in names:
        if not 1 <= len(name) <= LONGEST:
            raise DataError(f"{where}: item '{name[:40]}…' has {len(name)} characters; give an id of 1 to {LONGEST}")
