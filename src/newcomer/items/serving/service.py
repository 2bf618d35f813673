"""Item service: add, score and warm up items; their states are in a database."""

import warnings
from collections.abc import Collection, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl

from newcomer.data.canonical import canonical_name
from newcomer.data.click_log import ClickLog, EntityTable
from newcomer.data.io.column_parsing import ROW
from newcomer.data.io.frames import as_frame
from newcomer.errors import DataError, DataWarning, LearnerError, StoreError
from newcomer.items.calibration import Calibration
from newcomer.items.encoding.encoder import Values
from newcomer.items.encoding.unseen_values import Unseen, unseen_of_items
from newcomer.items.learner import ItemLearner
from newcomer.items.serving.cached_items import CachedItems
from newcomer.items.serving.changed_items import changed, lost
from newcomer.items.serving.event_batch import EventBatch, item_names
from newcomer.items.serving.event_ids import LONGEST
from newcomer.items.serving.feature_conflicts import item_fields_in, warn_of_other_features
from newcomer.items.serving.finite_checks import all_finite
from newcomer.items.serving.item_cache import ItemCache
from newcomer.items.serving.past_events import PastEvents
from newcomer.items.serving.repair import needs_repair, repaired
from newcomer.items.serving.requests import Frame, parse_events, parse_items, parse_requests
from newcomer.items.serving.results import Added, ForgottenUser, OnError, Repaired, SkippedRows, Warmed
from newcomer.items.serving.scoring import SCORE_COLUMNS, item_errors, merge_errors, score_requests
from newcomer.items.serving.serialization import same_features, to_row
from newcomer.items.serving.user_digests import user_digest
from newcomer.items.serving.user_erasure import UserErasure
from newcomer.items.serving.warm_up import ATTEMPTS, WarmUp
from newcomer.registry import find_learner
from newcomer.store.folder import Store
from newcomer.store.states import KEPT, Change
from newcomer.store.urls import open_states
from newcomer.training.forks import require_own_process

__all__ = ["SCORE_COLUMNS", "Added", "ForgottenUser", "ItemService", "Repaired", "Warmed", "fingerprint"]

CHUNK = 500
"""Items repaired at a time."""


class ItemService(CachedItems):
    """A trained click model with the states of all items in a database.

    Several processes may share the database: what one writes, the others see at their next request. The weights never change; do
    not use the learner otherwise meanwhile. `model`: fingerprint of the weights; states of other models in the same database are
    separate. The items of the learner's store are imported once; deleted items stay deleted.

    What cannot be done for a row or an item (it cannot be read, is not known, is damaged, would become no number) is an error
    before anything is done; with `on_error='report'` it is left out, the rest is done, and the result says so. Nearly all values
    of a column never seen before are a DataWarning.

    All methods raise StoreError when the database refuses or holds what was not written, and in a process that was forked from one
    that used a model; and DataError for a table that the learner's schema does not fit. They may be called from several threads.
    """

    def __repr__(self) -> str:
        return f"ItemService({self.learner!r}, model={self.model!r})"

    @classmethod
    def open(cls, folder: str | Path, states: str | None = None) -> Self:
        """The click model that was saved in this folder.

        Item states are in `items.db` in the same folder, or in the database at the URL `states`. A database that cannot be written
        is read once; its items can be scored, not changed.
        Raises StoreError for a store of a classifier.
        """
        from newcomer.store.sql import sqlite_url  # SQLAlchemy is loaded by services only

        require_own_process(uses=False)
        kind = find_learner(Store(folder).manifest().learner)
        if not issubclass(kind, ItemLearner):
            raise StoreError(f"{folder}: holds a model of '{kind.name}', a classifier; use newcomer.load")
        return cls(kind.load(folder), fingerprint(folder), open_states(states or sqlite_url(Path(folder) / "items.db")))

    def with_calibration(self, calibration: Calibration) -> Self:
        """The same weights and states, calibrated otherwise; what one of both has read or changed, the other has too."""
        learner, other = copy(self.learner), copy(self)
        learner.fitted_calibration, other.learner = calibration, learner
        return other

    def add(
        self,
        items: EntityTable | Frame,
        where: str = "items",
        on_error: OnError = "raise",
        replace: bool = False,
    ) -> Added:
        """Add new items by their features; they can be scored at once. All of them are added, or none.

        `replace`: an item that exists with other features gets these, and its state is adapted anew to its kept events, from its
        new initial state; what that loses is said (`Added.lost`). Otherwise, and where warm-ups do not begin at the initial state
        (`adaptation`, `warmup_events`), it is a DataError.
        """
        self.require_here(writes=True)
        replace = replace and self.learner.from_initial_state
        items = items if isinstance(items, EntityTable) else as_frame(items, where)
        if not len(items):
            return Added([], [])
        skipped = SkippedRows(on_error)
        table, wrong = parse_items(items, self.learner.encoder, where, on_error)
        skipped.lines += map(str, wrong)
        if table is None:
            return Added([], [], skipped.lines)
        table = _of_valid_ids(table, where, skipped)
        item_features = [values.to(self.learner.device) for values in self.learner.encoder.items(table)]
        known = self.refreshed(table.ids)
        new = [n for n, name in enumerate(table.ids) if name not in known.numbers]
        old, others = _compared(known, table, item_features, sorted({*range(len(table))} - {*new}))
        if not replace:
            self._refuse(table, others, where, skipped)
        mine = [values[new] for values in item_features]
        names, raced = self._begin([table.ids[n] for n in new], mine, where, skipped)
        if raced:
            rows = [n for n in new if table.ids[n] in raced]
            same, differing = _compared(self.refreshed(raced), table, item_features, rows)
            old, others = [*old, *same], [*others, *differing]
            if not replace:
                self._refuse(table, differing, where, skipped)
        replaced: dict[str, str | None] = {}
        if replace and others:
            replaced, same = self._replaced(table, item_features, others, where, skipped)
            old += same
            mine = [values[[*new, *others]] for values in item_features]
        unseen = unseen_of_items(self.learner.encoder, mine)
        unseen.warn()
        done = [name for name in names if name not in raced]
        losses = {name: line for name, line in replaced.items() if line is not None}
        return Added(done, sorted(old), skipped.lines, sorted(replaced), losses, unseen)

    def score(
        self,
        requests: ClickLog | Frame,
        where: str = "table",
        on_error: OnError = "raise",
        uncertainty: bool = False,
    ) -> pl.DataFrame:
        """Click probabilities: a table with `SCORE_COLUMNS`, one row a request. Unseen users and values are counted.

        `uncertainty`: also `logit_std`, the posterior std of each logit (`nn.optim.laplace_posterior`), which takes a backward
        pass. It is null for items whose states are not MAP estimates from all of their events.

        Raises DataError, with row, column and value, for an unknown item; with on_error='report' the column `error` says why a
        request has no score.
        """
        parts = list(self.score_batches(requests, where, on_error, None, uncertainty))
        return parts[0] if parts else pl.DataFrame(schema=SCORE_COLUMNS)

    def score_batches(
        self,
        requests: ClickLog | Frame,
        where: str = "table",
        on_error: OnError = "raise",
        at_once: int | None = 10_000,
        uncertainty: bool = False,
    ) -> Iterator[pl.DataFrame]:
        """`score` in batches of `at_once` requests; None: in one."""
        self.require_here()
        asked = parse_requests(requests, self.learner.encoder, self.reader, where, on_error)
        if not len(asked):
            return
        at_once = at_once or len(asked)
        log, position, unseen = asked.log, {row: n for n, row in enumerate(asked.rows.tolist())}, Unseen()
        for begin in range(0, len(asked), at_once):
            rows = range(begin, min(begin + at_once, len(asked)))
            there = np.array([position[row] for row in rows if row in position], dtype=np.int64)
            errors = {row - begin: str(asked.wrong[row]) for row in rows if row in asked.wrong}
            found, more = pl.DataFrame(schema=SCORE_COLUMNS), Unseen()
            if log is not None and len(there):
                part = log if len(there) == len(log) else log.take(there)
                found, more = self._answered(part, where, on_error, uncertainty)
            unseen = unseen + more
            yield merge_errors(found, asked.rows[there] - begin, len(rows), errors, self.model) if errors else found
        unseen.warn(self._expected)
        self._warn_of_other_features(asked.frame, log, where)

    def warm(
        self,
        events: ClickLog | Frame,
        event_id: str | None = None,
        where: str = "table",
        on_error: OnError = "raise",
        are_clicks: bool = False,
    ) -> Warmed:
        """Adapt the states of the items of these events; nothing else changes.

        An event counts once, however often it is sent, by its item and its id: the column `event_id`, or a digest of the row
        (`event_ids.digests`). Events may come late or out of order. A click under the id of an event that counted as no click
        corrects it (`corrections`); a click stays a click. When the method returns, all of it is on the disk; cut off before, every
        item has all of these events or none of them, and the same call does the rest.

        `are_clicks`: the labels of this table are 1 for a click and 0 for none, also where those of training were grades
        (`Schema.clicked_from`).
        """
        self.require_here(writes=True)
        skipped, reader = SkippedRows(on_error), self.reader_of_clicks if are_clicks else self.reader
        given = parse_events(events, self.learner.encoder, reader, event_id, where, on_error)
        skipped.lines += map(str, given.wrong.values())
        if given.log is None or not len(given.log):
            return Warmed(0, 0, [], left_out=skipped.lines)
        self.learner.encoder.require_labels(given.log, where)
        arrived, repeated, contradictions = EventBatch.of(given.log, given.ids)
        for error in contradictions:
            skipped.add(error)
        warm_up = WarmUp(self, where, skipped)
        done = warm_up.count(arrived.in_order_of_time())
        self.changed(done.items)
        if len(repeated):  # known now, unless the first was refused
            left = warm_up.due(repeated)
            for row in range(len(left)):
                skipped.add(left.refused_before(row))
        if given.note is not None:
            warnings.warn(given.note, DataWarning, stacklevel=2)
        done.unseen.warn(self._expected)
        self._warn_of_other_features(given.frame, given.log, where)
        return replace(done, known=warm_up.known, note=given.note)

    def forget(self, items: Collection[str]) -> list[str]:
        """Delete these items and their events from the database; they are not imported again.

        An item that is added again starts from its features. Its effect on the shared weights remains, and so does its state in
        the learner's store.
        Raises DataError, and deletes nothing, for an unknown item.
        """
        self.require_here(writes=True)
        items = [items] if isinstance(items, str) else items
        names = [canonical_name(item) or item for item in items]
        self._import_trained_items()
        there = self.states.headers(self.model, names)
        for name in names:
            if name not in there:
                raise self.not_known(name)
        gone = sorted(self.states.forget(self.model, names))
        self.changed(gone)
        return gone

    def forget_user(self, user: str) -> ForgottenUser:
        """Forget this user for good: from here on an unseen user, whose events are refused, for all models in the database.

        The values of the user's events are erased, and the states of their items computed anew from the others, as far as it is
        known whose an event was: the result says what remains. So do the shared weights, until they are trained without the user.
        Cut off before it returns, or done again, the same call does the rest. Raises DataError for what is no id.
        """
        self.require_here(writes=True)
        name = canonical_name(user)
        digest = None if name is None else user_digest(name)
        if name is None or digest is None:
            raise DataError(f"user {user!r} is no id; give the id of a user")
        self.states.forget_users([digest])
        self.changed_users()
        return UserErasure(self, name).run()

    def repair(self) -> Repaired:
        """Recompute items with non-finite states or out-of-bounds values from their initial states and stored events.

        With `warmup_events = "new"` events are not stored: their effect is lost, their number kept. So is that of events whose
        summary is not finite; the result says so.
        """
        self.require_here(writes=True)
        names, damaged, skipped, done = (
            sorted(self.headers()),
            dict[str, StoreError](),
            SkippedRows("report"),
            list[str](),
        )
        for begin in range(0, len(names), CHUNK):
            part = names[begin : begin + CHUNK]
            known = self.refreshed(part, damaged)
            part = [name for name in part if name in known.numbers and name not in damaged]
            past = PastEvents.read(self.states, self.model, self.learner, known, part)
            found = list(repaired(self.learner, known, needs_repair(known, part, past), past))
            late = self.states.commit(self.model, [change for change in found if isinstance(change, Change)])
            for change in found:
                name = change.state.item if isinstance(change, Change) else change
                if not isinstance(change, Change):
                    skipped.add(
                        LearnerError(f"item '{name}': has no state of finite numbers even where it began; forget it")
                    )
                elif name in late:
                    skipped.add(LearnerError(f"item '{name}' was changed by another process meanwhile; heal once more"))
                else:
                    done.append(name)
                    if name in past.lost:
                        skipped.add(
                            LearnerError(
                                f"item '{name}': its summary is no number and is deleted; it is recomputed from its last {KEPT} "
                                "events alone"
                            )
                        )
        return Repaired(done, [*map(str, damaged.values()), *skipped.lines])

    def to_learner(self) -> ItemLearner:
        """The learner itself with all items as the database has them now, to be looked into; it is not for service any more."""
        names = list(self.headers())
        known = self.refreshed(names)
        self.learner.set_states(
            list(known.numbers), known.item_features, known.state, [head.events for head in known.headers]
        )
        return self.learner

    def _answered(self, log: ClickLog, where: str, on_error: OnError, uncertainty: bool) -> tuple[pl.DataFrame, Unseen]:
        damaged: dict[str, StoreError] | None = None if on_error == "raise" else {}
        known = self.refreshed(item_names(log), damaged, self.max_age, for_scores=True)
        wrong = item_errors(log, known, damaged or {}, where)
        if wrong and on_error == "raise":
            raise wrong[min(wrong)]
        answers, unseen = score_requests(self, known, log, wrong, where, uncertainty)
        if wrong and on_error == "raise":
            raise wrong[min(wrong)]
        return answers, unseen

    def _begin(
        self, names: Sequence[str], item_features: Values, where: str, skipped: SkippedRows
    ) -> tuple[list[str], set[str]]:
        """Write the states that new items begin with; which that are, and those that another process has added meanwhile."""
        if not names:
            return [], set()
        state, again = self.learner.cold_state(item_features, len(names)), self.states.forgotten(self.model, names)
        rows = []
        for n, (name, whole) in enumerate(zip(names, all_finite(state).tolist(), strict=True)):
            if whole:
                readded = name in again or name in self.learner.known
                rows.append(to_row(name, 0, 0, item_features, state, n, readded=readded))
            else:
                skipped.add(
                    LearnerError(
                        f"{where}: item '{name}': its features write a state that is no number; it is not added"
                    )
                )
        raced = self.states.add(self.model, [Change(row, []) for row in rows])
        return [row.item for row in rows], raced

    def _refuse(self, table: EntityTable, rows: Sequence[int], where: str, skipped: SkippedRows) -> None:
        """Skip the items of these rows, which are there with other features."""
        then = "add it under another id"
        if self.learner.from_initial_state:
            then += ", or replace its features (replace = true; --replace in a shell)"
        for name in (table.ids[n] for n in rows):
            skipped.add(DataError(f"{where}: item '{name}' is there with other features; {then}"))

    def _replaced(
        self, table: EntityTable, item_features: Values, rows: Sequence[int], where: str, skipped: SkippedRows
    ) -> tuple[dict[str, str | None], list[str]]:
        """Replace the features of the items in these rows: which were, and what each lost; and which had them by then."""
        done, same = dict[str, str | None](), list[str]()
        for _ in range(ATTEMPTS):
            known = self.refreshed([table.ids[n] for n in rows])
            for name in (table.ids[n] for n in rows if table.ids[n] not in known.numbers):
                skipped.add(DataError(f"{where}: item '{name}' was deleted by another process meanwhile; add it again"))
            more, rows = _compared(known, table, item_features, [n for n in rows if table.ids[n] in known.numbers])
            same += more
            if not rows:
                break
            names, mine = [table.ids[n] for n in rows], [values[list(rows)] for values in item_features]
            past = PastEvents.read(self.states, self.model, self.learner, known, names)
            changes = list(changed(self.learner, known, names, mine, past, where, skipped))
            late, losses = self.states.commit(self.model, changes), lost(self.learner, known, names, past)
            done |= {name: losses.get(name) for name in (one.state.item for one in changes) if name not in late}
            rows = [n for n in rows if table.ids[n] in late]
        if rows:
            raise StoreError(
                f"item '{table.ids[rows[0]]}' was changed by others {ATTEMPTS} times meanwhile; send the same items again"
            )
        self.changed(done)
        return done, same

    def _warn_of_other_features(self, given: pl.DataFrame | None, log: ClickLog | None, where: str) -> None:
        if log is not None and given is not None and item_fields_in(given, self.learner.encoder):
            known = self.refreshed(item_names(log), {})
            warn_of_other_features(given.with_row_index(ROW)[log.row], self.learner.encoder, known, where)

    @cached_property
    def _expected(self) -> list[str]:
        """Columns of which nearly all is unseen as a rule: the users', where most had one or two events when they were learned, or
        too few to be learned."""
        events, users = sum(self.learner.counts), self.learner.encoder.users
        are_cut = self.learner.pretraining.user_min_count > 1
        return [self.learner.schema.user] if are_cut or events < 2 * users else []


def fingerprint(folder: str | Path) -> str:
    """What the shared weights of a store are known by: the first 16 hexadecimal digits of the SHA-256 of its first stage.

    Raises StoreError for a store that has learned nothing.
    """
    stages = Store(folder).manifest().stages
    if not stages:
        raise StoreError(f"{folder}: has learned nothing yet; train it on old items first")
    return str(stages[0]["sha256"])[:16]


def _compared(
    known: ItemCache, table: EntityTable, item_features: Values, rows: Sequence[int]
) -> tuple[list[str], list[int]]:
    """Items of these rows that are known with the same features, and the rows of those that are known with others."""
    same, others = list[str](), list[int]()
    for n in rows:
        if same_features(item_features, n, known.item_features, known.numbers[table.ids[n]]):
            same.append(table.ids[n])
        else:
            others.append(n)
    return same, others


def _of_valid_ids(table: EntityTable, where: str, skipped: SkippedRows) -> EntityTable:
    """Without items whose ids are too long, empty, or have a NUL, which PostgreSQL cannot hold."""
    fit = [n for n, name in enumerate(table.ids) if 1 <= len(name) <= LONGEST and "\0" not in name]
    for name in (table.ids[n] for n in sorted({*range(len(table))} - {*fit})):
        what = "a NUL" if "\0" in name else f"{len(name)} characters"
        skipped.add(DataError(f"{where}: item '{name[:40]}…' has {what}; give an id of 1 to {LONGEST} without NUL"))
    return table if len(fit) == len(table) else table.take(np.array(fit, dtype=np.int64))
