"""A learner in service: items are added, scored and warmed up one request at a time, and what they become is in a database."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from newcomer.data.canonical import canonical_name
from newcomer.data.click_log import Log, Table
from newcomer.data.io.frames import frame_of
from newcomer.errors import DataError, LearnerError, StoreError
from newcomer.items.encoding.encoder import Values
from newcomer.items.encoding.unseen_values import Unseen, unseen_of_items
from newcomer.items.learner import ItemLearner
from newcomer.items.serving.cached_items import ServedItems
from newcomer.items.serving.event_batch import Arrivals, names_of
from newcomer.items.serving.event_ids import LONGEST
from newcomer.items.serving.finite_checks import sound
from newcomer.items.serving.item_cache import Known
from newcomer.items.serving.repair import healed, in_need
from newcomer.items.serving.requests import events_of, items_of, requests_of
from newcomer.items.serving.results import Added, Healed, LeftOut, OnError, Warmed
from newcomer.items.serving.scoring import ANSWER, answered, with_errors, wrong_items
from newcomer.items.serving.serialization import same_fields, to_row
from newcomer.items.serving.warm_up import WarmUp
from newcomer.store.folder import Store
from newcomer.store.states import Change
from newcomer.training.forks import require_own_process

__all__ = ["ANSWER", "Added", "Healed", "LiveItems", "Warmed", "fingerprint"]

Frame = Any
"""A table in memory: a frame of polars or pandas, columns by name, or a list of rows."""

AT_ONCE = 500
"""Items whose kept events are looked at together."""


class LiveItems(ServedItems):
    """A learner that has learned its old items, with the states of all items in a database.

    Several processes may share the database: what one writes the others see at their next request. The learner's weights are
    never changed, and the learner is not to be used otherwise meanwhile. `model` is the weights' fingerprint: the states of other
    weights in the same database are not touched. The learner's own items are taken up once; what is deleted stays deleted.

    What cannot be done for a row or an item (it cannot be read, is not known, is damaged, would become no number) is an error
    before anything is done; with `on_error='report'` it is left out, the rest is done, and the result says so. Nearly all values
    of a column never seen before are a DataWarning.

    All methods raise StoreError when the database refuses or holds what was not written, and in a process that was forked from one
    that used a model; and DataError for a table that the learner's schema does not fit. They may be called from several threads.
    """

    @classmethod
    def open(cls, kind: type[ItemLearner], folder: str | Path, url: str | None = None) -> Self:
        """The learner that was saved here, its states in `items.db` in the same folder or in the database at `url`.

        States that cannot be written where they lie are read once, as they are then, and can only be asked.
        """
        from newcomer.store.sql import sqlite_url  # whoever serves no items does not load it
        from newcomer.store.sql_read_only import open_states

        require_own_process(uses=False)
        learner = kind.load(folder)
        return cls(learner, fingerprint(folder), open_states(url or sqlite_url(Path(folder) / "items.db")))

    def add(self, items: Table | Frame, where: str = "items", on_error: OnError = "raise") -> Added:
        """Know these items from now on, by their fields alone; they can be scored at once. All of them are added or none.

        Raises DataError, with its name, for an item that is there with other features.
        """
        self.require_here(writes=True)
        items = items if isinstance(items, Table) else frame_of(items, where)
        if not len(items):
            return Added([], [])
        left = LeftOut(on_error)
        table, wrong = items_of(items, self.learner.schema, where, on_error)
        left.lines += map(str, wrong)
        if table is None:
            return Added([], [], left.lines)
        table = _of_right_length(table, where, left)
        own = [values.to(self.learner.device) for values in self.learner.encoder.items(table)]
        known = self.fresh(table.ids)
        old = self._alike(known, table, own, where, left)
        new = [n for n, name in enumerate(table.ids) if name not in known.numbers]
        mine = [values[new] for values in own]
        names, raced = self._begin([table.ids[n] for n in new], mine, where, left)
        if raced:
            old += self._alike(self.fresh(raced), table, own, where, left, among=raced)
        unseen = unseen_of_items(self.learner.encoder, mine)
        unseen.warn()
        return Added([name for name in names if name not in raced], sorted(old), left.lines, unseen)

    def score(self, requests: Log | Frame, where: str = "table", on_error: OnError = "raise") -> pl.DataFrame:
        """The columns of `ANSWER`, one row a request. Users and values never seen are read as 'unseen', and counted.

        Raises DataError, with row, column and value, for an item that was not added; where this is to be reported, a request
        without a score says why in `error`.
        """
        requests = requests if isinstance(requests, Log) else frame_of(requests, where)
        parts = list(self.answers(requests, where, on_error, at_once=max(len(requests), 1)))
        return parts[0] if parts else pl.DataFrame(schema=ANSWER)

    def answers(
        self, requests: Log | Frame, where: str = "table", on_error: OnError = "raise", at_once: int = 10_000
    ) -> Iterator[pl.DataFrame]:
        """`score`, so many requests at a time."""
        self.require_here()
        requests = requests if isinstance(requests, Log) else frame_of(requests, where)
        if not len(requests):
            return
        asked = requests_of(requests, self.learner.schema, where, on_error)
        log, place, unseen = asked.log, {int(row): n for n, row in enumerate(asked.rows)}, Unseen()
        for begin in range(0, len(requests), at_once):
            rows = range(begin, min(begin + at_once, len(requests)))
            there = np.array([place[row] for row in rows if row in place], dtype=np.int64)
            errors = {row - begin: str(asked.wrong[row]) for row in rows if row in asked.wrong}
            found, more = pl.DataFrame(schema=ANSWER), Unseen()
            if log is not None and len(there):
                found, more = self._answered(log.take(there), where, on_error)
            unseen = unseen + more
            yield with_errors(found, asked.rows[there] - begin, len(rows), errors, self.model) if errors else found
        unseen.warn(self._expected())

    def warm(
        self,
        events: Log | Frame,
        event_id: str | None = None,
        where: str = "table",
        on_error: OnError = "raise",
    ) -> Warmed:
        """Tune the states of the items that these events are about, and touch nothing else.

        An event counts once, however often it comes, for its item and its id, which stands in the column `event_id` or is made by
        `event_ids.digests`. When an event happened makes no difference, only that it came. One that comes again with another
        label does not count, and is reported. When the method returns, all of it is on the disk; cut off before, every item has
        all of these events or none of them, and the same call does the rest.
        """
        self.require_here(writes=True)
        events = events if isinstance(events, Log) else frame_of(events, where)
        if not len(events):
            return Warmed(0, 0, [])
        left, given = LeftOut(on_error), events_of(events, self.learner.encoder, event_id, where, on_error)
        left.lines += map(str, given.wrong.values())
        if given.log is None:
            return Warmed(0, 0, [], left_out=left.lines)
        self.learner.encoder.require_labels(given.log, where)
        arrived, conflicts = Arrivals.of(given.log, given.ids)
        warm_up = WarmUp(self, where, left)
        warm_up.differ(conflicts)
        warm_up.known = len(given.log) - len(arrived) - len(conflicts)
        done = warm_up.count(arrived)
        done.unseen.warn(self._expected())
        return done

    def forget(self, items: Collection[str]) -> list[str]:
        """Delete all that the database holds of these items, their events too; they do not come back when it is opened again.

        Added once more an item begins anew, by its features, and its events count anew. What it taught the shared weights
        remains, and so does its state in the store that the learner was saved to.
        Raises DataError, and deletes nothing, for an item that is not there.
        """
        self.require_here(writes=True)
        items = [items] if isinstance(items, str) else items
        there, names = self.heads(), [canonical_name(item) or item for item in items]
        for name in names:
            if name not in there:
                raise self.not_known(name)
        return sorted(self.states.forget(self.model, names))

    def heal(self) -> Healed:
        """Make anew, from where they began and from their kept events, items whose state is no number or was made of such far out.

        Of an item whose events are not kept (`history = "phase"`) what they made of it is gone; they stay counted.
        """
        self.require_here(writes=True)
        names, damaged, left, done = sorted(self.heads()), dict[str, StoreError](), LeftOut("report"), list[str]()
        for begin in range(0, len(names), AT_ONCE):
            part = names[begin : begin + AT_ONCE]
            known = self.fresh(part, damaged)
            part = [name for name in part if name in known.numbers and name not in damaged]
            past = self.states.past(self.model, part) if self.learner.history == "all" else {}
            found = list(healed(self.learner, known, in_need(known, part, past), past))
            late = self.states.advance(self.model, [change for change in found if isinstance(change, Change)])
            for change in found:
                name = change.state.item if isinstance(change, Change) else change
                if not isinstance(change, Change):
                    left.add(
                        LearnerError(f"item '{name}': has no state of finite numbers even where it began; forget it")
                    )
                elif name in late:
                    left.add(LearnerError(f"item '{name}' was changed by another process meanwhile; heal once more"))
                else:
                    done.append(name)
        return Healed(done, [*map(str, damaged.values()), *left.lines])

    def taken_over(self) -> ItemLearner:
        """The learner itself with all items as the database has them now, to be looked into; it is not for service any more."""
        names = list(self.heads())
        known = self.fresh(names)
        self.learner.take_over(list(known.numbers), known.own, known.state, [head.events for head in known.heads])
        return self.learner

    def _answered(self, log: Log, where: str, on_error: OnError) -> tuple[pl.DataFrame, Unseen]:
        damaged: dict[str, StoreError] | None = None if on_error == "raise" else {}
        known = self.fresh(names_of(log), damaged)
        wrong = wrong_items(log, known, damaged or {}, where)
        if wrong and on_error == "raise":
            raise wrong[min(wrong)]
        answers, unseen = answered(self.learner, self.model, known, log, wrong, where)
        if wrong and on_error == "raise":
            raise wrong[min(wrong)]
        return answers, unseen

    def _begin(self, names: Sequence[str], own: Values, where: str, left: LeftOut) -> tuple[list[str], set[str]]:
        """Write the states that new items begin with; which that are, and those that another process has added meanwhile."""
        if not names:
            return [], set()
        state, again = self.learner.begin(own, len(names)), self.states.forgotten(self.model, names)
        rows = []
        for n, (name, whole) in enumerate(zip(names, sound(state).tolist(), strict=True)):
            if whole:
                anew = name in again or name in self.learner.known
                rows.append(to_row(name, 0, 0, own, state, n, anew=anew))
            else:
                left.add(
                    LearnerError(
                        f"{where}: item '{name}': its features write a state that is no number; it is not added"
                    )
                )
        raced = self.states.add(self.model, [Change(row, []) for row in rows])
        return [row.item for row in rows], raced

    def _alike(
        self, known: Known, table: Table, own: Values, where: str, left: LeftOut, among: Collection[str] | None = None
    ) -> list[str]:
        """Items of this table, or `among` these, that are there with the same features; those with others are left out."""
        same = []
        for n, name in enumerate(table.ids):
            if name not in known.numbers or (among is not None and name not in among):
                continue
            if same_fields(own, n, known.own, known.numbers[name]):
                same.append(name)
                continue
            left.add(
                DataError(
                    f"{where}: item '{name}' is there with other features; features do not change, add it under another id"
                )
            )
        return same

    def _expected(self) -> list[str]:
        """Columns of which nearly all is unseen as a rule: the users', where most had one or two events when they were learned."""
        events, users = sum(self.learner.counts), self.learner.encoder.users
        return [self.learner.schema.user] if events < 2 * users else []


def fingerprint(folder: str | Path) -> str:
    """What the shared weights of a store are known by: the first 16 hexadecimal digits of the SHA-256 of its first stage.

    Raises StoreError for a store that has learned nothing.
    """
    stages = Store(folder).manifest().stages
    if not stages:
        raise StoreError(f"{folder}: has learned nothing yet; teach it old items first")
    return str(stages[0]["sha256"])[:16]


def _of_right_length(table: Table, where: str, left: LeftOut) -> Table:
    """Without items whose ids are too long, or empty."""
    for name in table.ids:
        if not 1 <= len(name) <= LONGEST:
            left.add(
                DataError(f"{where}: item '{name[:40]}…' has {len(name)} characters; give an id of 1 to {LONGEST}")
            )
    fit = [n for n, name in enumerate(table.ids) if 1 <= len(name) <= LONGEST]
    return table if len(fit) == len(table) else table.take(np.array(fit, dtype=np.int64))
