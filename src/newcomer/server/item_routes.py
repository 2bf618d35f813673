"""Routes of a click model: items, scores, events."""

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from difflib import get_close_matches
from http import HTTPStatus
from itertools import islice
from typing import Annotated, Any, Literal

import polars as pl
from fastapi import APIRouter, BackgroundTasks, Body, Depends, Query, Response
from pydantic_core import to_json

from newcomer.data.canonical import canonical_name
from newcomer.data.io.frames import frame_from_rows
from newcomer.data.io.log_reader import log_from_frame
from newcomer.data.schema import Schema
from newcomer.data.time_units import NUMBERS, TIME_UNITS
from newcomer.errors import DataError, NewcomerError
from newcomer.items.analysis.item_graphs import heaviest_edges
from newcomer.items.serving.candidates import score_candidates
from newcomer.items.serving.event_batch import same_values
from newcomer.items.serving.item_uncertainty import item_uncertainty
from newcomer.items.serving.requests import parse_items
from newcomer.items.serving.service import ItemService
from newcomer.server.bodies import (
    CANDIDATES,
    CONTEXT,
    EVENT_ID,
    EVENT_TYPE,
    REQUEST_ID,
    AddedItem,
    AddedItems,
    Bodies,
    Counts,
    Edge,
    Forgotten,
    ItemChange,
    ItemDetails,
    ItemPage,
    ItemStatus,
    Refused,
    Score,
    Scores,
    Uncertainty,
    Unseen,
)
from newcomer.server.click_versions import ClickVersions
from newcomer.server.event_log import EventLog
from newcomer.server.event_rows import by_kind, check_impressions, event_id_column, warm_rows
from newcomer.server.exploration import Exploration
from newcomer.server.history import name_in
from newcomer.server.impressions import WaitingImpressions
from newcomer.server.item_deletion import delete_items
from newcomer.server.json_route import JsonRoute
from newcomer.server.metrics import Metrics
from newcomer.server.problems import ProblemError, row_error, value_error
from newcomer.server.request_ids import RequestIds, event_id, joined
from newcomer.server.security import Guard, Role
from newcomer.server.user_erasure import erase_from_log, forget_user, of_forgotten

log = logging.getLogger("newcomer.server")

Phase = Literal["cold", "warm", "sufficient"]
"""In the order of an item's life."""

EDGES = 10
PAGE = 100
"""Edges of a graph, and items of a page."""

COLUMN_OF_KEY = {name: "logit_std" if name == "sd" else name for name in Score.model_fields}
"""Key of a score → column of the scores."""

ROW = re.compile(r"^events: row (\d+)\b")
"""Beginning of a message about an event. Ids and values further on may look like rows."""


class ItemRoutes:
    """Routes for the items of one service.

    `clicked`: event types that are clicks. `waiting`: events of other types do not count yet; see `impressions`.
    """

    def __init__(
        self,
        versions: ClickVersions,
        log: EventLog,
        ids: RequestIds,
        guard: Guard,
        metrics: Metrics,
        clicked: Sequence[str],
        training_log: Sequence[str],
        rows: int,
        waiting: WaitingImpressions | None = None,
    ) -> None:
        self.versions, self.log, self.ids, self.metrics, self.clicked = versions, log, ids, metrics, set(clicked)
        self.waiting, self.training_log = waiting, training_log
        self.schema = self.live.learner.schema
        self.bodies = Bodies(self.schema, rows)
        self.id_column = event_id_column(self.schema)
        self.required = [self.schema.user] if self.schema.user_missing == "error" else []
        self.required += [
            field.name for field in self.schema.fields if field.role != "item" and field.missing == "error"
        ]
        self.router = APIRouter(tags=["items"], route_class=JsonRoute)
        read, write, admin = (Depends(guard.requires(role)) for role in (Role.READ, Role.WRITE, Role.ADMIN))
        route = self.router.add_api_route
        items, score, events = (
            Annotated[model, Body()] for model in (self.bodies.Items, self.bodies.Score, self.bodies.Events)
        )

        def add(body: items) -> AddedItems:  # type: ignore[valid-type]
            """Register items. They can be scored at once; one that is there with other features gets these."""
            rows = [self.bodies.row(item) for item in body.items]  # type: ignore[attr-defined]
            return self.add(rows, body.replace)  # type: ignore[attr-defined]

        def scores(body: score, after: BackgroundTasks) -> Response:  # type: ignore[valid-type]
            """Click probabilities of candidates for one user and context. Candidates given by their features are not added."""
            return Response(to_json(self.score(self.bodies.row(body), after)), media_type="application/json")

        def count(body: events) -> Counts:  # type: ignore[valid-type]
            """Count events and adapt their items. Each event counts once, by its item and event id."""
            return self.count([self.bodies.row(event) for event in body.events])  # type: ignore[attr-defined]

        route("/items", add, methods=["POST"], dependencies=[write])
        route("/items", self.look, methods=["GET"], dependencies=[read])
        route("/items/{item_id:path}", self.details, methods=["GET"], dependencies=[read])
        route("/items/{item_id:path}", self.delete, methods=["DELETE"], dependencies=[write], status_code=204)
        route("/score", scores, methods=["POST"], dependencies=[read], response_model=Scores)
        route("/events", count, methods=["POST"], dependencies=[write])
        route("/users/{user_id:path}", self.forget_user, methods=["DELETE"], dependencies=[admin])
        # by name as well: a path cannot have the ids . and .., and not every proxy passes on those with slashes
        route("/items", self.delete, methods=["DELETE"], dependencies=[write], status_code=204)
        route("/users", self.forget_user, methods=["DELETE"], dependencies=[admin])

    @property
    def live(self) -> ItemService:
        """The live version of the click model."""
        return self.versions.current().live

    def add(self, rows: Sequence[Mapping[str, Any]], replace: bool) -> AddedItems:
        """Register items, with what each request left out."""
        frame = frame_from_rows(rows, "items")
        table, _ = parse_items(frame, self.live.learner.encoder, "items", "report")
        valid = set() if table is None else {*table.ids}  # of rows that contradict each other a replay would take one
        if not replace:  # nor the latest of those that are refused
            valid -= {*self.live.states.headers(self.live.model, valid)}
        self.log.append("item", [row for row in rows if name_in(row, self.schema) in valid])
        serving = self.versions.latest()  # after the log: what a version does not get here is replayed to it
        live = serving.live
        done = live.add(frame, where="items", on_error="report", replace=replace)
        for service in serving.others.values():
            service.add(frame, where="items", on_error="report", replace=replace)
        outcomes: dict[ItemChange, Sequence[str]] = {"new": done.new, "known": done.known, "replaced": done.replaced}
        statuses = {name: outcome for outcome, names in outcomes.items() for name in names}
        headers = live.states.headers(live.model, list(statuses))
        items = [
            AddedItem(
                item_id=name,
                status=status,
                lost=done.lost.get(name),
                phase=headers[name].phase,
                events=headers[name].events,
            )
            for name, status in statuses.items()
            if name in headers
        ]
        self.metrics.count_values(done.unseen)
        refused = [_item_error(line, rows, self.schema) for line in done.left_out]
        if refused and not items:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, done.left_out[0], refused)
        unseen = {name: Unseen(**one) for name, one in done.unseen.to_json().items() if one["unseen"]}
        return AddedItems(model=live.model, items=items, refused=[Refused(**one) for one in refused], unseen=unseen)

    def look(
        self,
        item_id: str | None = None,
        phase: Phase | None = None,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = PAGE,
    ) -> ItemDetails | ItemPage:
        """Items in the order of their ids, optionally of one phase, page by page; or the one item with this id."""
        if item_id is None:
            return self.page(phase, after, limit)
        if phase is not None or after is not None:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY, "query:/item_id: give it alone, or list items without it"
            )
        return self.details(item_id)

    def page(self, phase: Phase | None = None, after: str | None = None, limit: int = PAGE) -> ItemPage:
        """Items in the order of their ids, optionally of one phase."""
        headers = self.live.headers()
        names = sorted(
            name
            for name, header in headers.items()
            if (phase is None or header.phase == phase) and (after is None or name > after)
        )
        items = [
            ItemStatus(item_id=name, phase=headers[name].phase, events=headers[name].events)
            for name in islice(names, limit)
        ]
        return ItemPage(items=items, next=items[-1].item_id if len(names) > limit else None)

    def details(self, item_id: str) -> ItemDetails:
        """Phase, events, feature graph and uncertainty of an item."""
        live = self.live
        try:
            row, state = live.look_up(item_id)
            initial, _ = live.initial_state(item_id)
        except DataError as error:
            raise ProblemError(HTTPStatus.NOT_FOUND, str(error)) from None
        edges, found = heaviest_edges(live.learner, state, initial, EDGES), item_uncertainty(live, item_id)
        return ItemDetails(
            item_id=row.item,
            phase=row.phase,
            events=row.events,
            model=live.model,
            version=row.version,
            updated_at=row.updated_at,
            graph=None if edges is None else [Edge(**asdict(edge)) for edge in edges],
            uncertainty=None if found is None else Uncertainty(sd=found.std, prior_sd=found.prior_std),
        )

    def delete(self, item_id: str) -> None:
        """Delete an item and its events. Its effect on the shared weights remains."""
        try:
            delete_items(self.versions, self.log, [item_id])
        except DataError as error:
            raise ProblemError(HTTPStatus.NOT_FOUND, str(error)) from None

    def forget_user(self, user_id: str) -> Forgotten:
        """Forget a user for good, for all models of the database: the user's events are erased, later ones refused.

        The effect on the shared weights remains.
        """
        done, lines = forget_user(self.versions, user_id)
        live = next(iter(done.values()))
        remains = [
            f"version '{name}': {line}"
            for name, one in done.items()
            for line in (*one.remains, *one.lost.values(), *one.left_out)
        ]
        if self.training_log:
            remains.append(
                f"the training log ({', '.join(self.training_log)}) was not searched: remove the user's rows there"
            )
        notes = (
            []
            if live.events or lines
            else ["nothing of this user was found; events under this id are refused from now on"]
        )
        return Forgotten(events=live.events, items=len(live.items), log_lines=lines, remains=remains, notes=notes)

    def score(self, body: Mapping[str, Any], after: BackgroundTasks) -> dict[str, Any]:
        """Scores of candidates, and the request id for their events: `Scores`, not validated."""
        options = {name: body.get(name, default) for name, (_, default) in self.bodies.score_options.items()}
        given = {key: value for key, value in body.items() if key not in (CONTEXT, CANDIDATES, *options)}
        request, candidates = given | body.get(CONTEXT, {}), body[CANDIDATES]
        serving = self.versions.current()
        service = serving.for_user(request.get(self.schema.user))
        exploration = Exploration.asked_for(options, service.learner.lifecycle.has_posterior)
        uncertainty = options["uncertainty"] or (exploration is not None and exploration.needs_std)
        try:
            answers, unseen = score_candidates(service, candidates, request, options["on_unknown"], uncertainty)
        except DataError as error:
            raise self._score_problem(error) from None
        self.metrics.scored(answers["phase"].to_list(), unseen)
        for name, other in serving.shadow.items():
            if other is not service:
                after.add_task(self._compare, name, other, candidates, request, answers["score"])
        columns = (answers[name].to_list() for name in COLUMN_OF_KEY.values())
        scores = [dict(zip(COLUMN_OF_KEY, row, strict=True)) for row in zip(*columns, strict=True)]
        kept = {name: value for name, value in request.items() if name not in self.schema.at_serving}
        request_id = self.ids.make(kept)
        ranking = {} if exploration is None else exploration.ranking(answers, request_id)
        return {"request_id": request_id, "model": service.model, "scores": scores, **ranking}

    def _score_problem(self, error: DataError) -> ProblemError:
        """The problem of a body of `score`, whose values of the context stand under a key of their own."""
        detail = str(error).removeprefix("request: row 1, ")
        context = {field.name for field in self.schema.of("context")}
        found = row_error(detail)
        return ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY, detail, [found if "pointer" in found else value_error(detail, context)]
        )

    def _compare(
        self, name: str, shadow: ItemService, candidates: Sequence[Any], request: Mapping[str, Any], scores: pl.Series
    ) -> None:
        """Score a request that was answered by a shadow version, and record the differences."""
        try:
            found, _ = score_candidates(shadow, candidates, request, "null")
        except NewcomerError as error:
            log.warning("%s", error, extra={"model": name})
            return
        pairs = zip(scores, found["score"], strict=True)
        self.metrics.compared(name, [(one, other) for one, other in pairs if one is not None and other is not None])

    def count(self, events: Sequence[Mapping[str, Any]]) -> Counts:
        """Count events; those that cannot be counted are refused one by one."""
        errors, rows = list[str](), dict[int, dict[str, Any]]()
        for n, event in enumerate(events):
            try:
                rows[n] = self._row(event)
            except DataError as error:
                errors.append(f"events: row {n + 1}, {error}")
        numbers = list(rows)
        for k in sorted(of_forgotten(list(rows.values()), self.schema, self.live.states)):
            del rows[numbers[k]]
            errors.append(f"events: row {numbers[k] + 1}: its user was forgotten; leave it out")
        if self.waiting is not None:
            others = self.waiting.under_ids_of_others(self.live, rows)
            errors += [f"events: {line}" for line in others.values()]
            rows = {n: row for n, row in rows.items() if n not in others}
        logged, notes = list(rows.values()), self._unusual([events[n] for n in rows])
        pending, known = self._pending(events, rows, errors)
        self.log.append("event", list(rows.values()))
        # a user may have been forgotten meanwhile, and the log searched before these were in it
        erase_from_log(self.log.folder, self.schema, self.live.states, logged)
        serving = self.versions.latest()  # after the log: what a version does not get here is replayed to it
        done, numbers = [], list(rows)
        for kind, places in by_kind(list(rows.values()), self.schema).items():
            part = [numbers[place] for place in places]
            warmed, lines = warm_rows(serving.live, [rows[n] for n in part], kind)
            for name, service in serving.others.items():
                _, more = warm_rows(service, [rows[n] for n in part], kind)
                notes += [f"version '{name}': {_renumbered(line, part)}" for line in more if line not in lines]
            done.append(warmed)
            notes += [] if warmed.note is None else [_renumbered(warmed.note, part)]
            errors += [_renumbered(line, part) for line in lines]
        counts = {name: sum(getattr(part, name) for part in done) for name in ("new", "known", "corrected")}
        counts["known"] += known
        counts["pending"] = pending
        counts["refused"] = len(events) - sum(counts.values())
        self.metrics.counted(counts)
        for warmed in done:
            self.metrics.believed(warmed.calibration)
        return Counts(**counts, errors=_refused(errors), notes=notes)

    def _pending(
        self, events: Sequence[Mapping[str, Any]], rows: dict[int, dict[str, Any]], errors: list[str]
    ) -> tuple[int, int]:
        """Log the impressions that wait for a click, which their ids tell, and take them out of `rows`.

        Returns their number, and that of those that have counted before.
        """
        kinds = {n: events[n].get(EVENT_TYPE) for n in rows if self.id_column in rows[n]}
        waiting = [n for n, kind in kinds.items() if kind not in (None, *self.clicked)]
        if self.waiting is None or not waiting:
            return 0, 0
        part = [rows.pop(n) for n in waiting]
        due, known, refused = check_impressions(self.live, part)
        errors += [_renumbered(line, waiting) for line in refused]
        self.log.append("impression", [part[k] for k in due])
        return len(due), known

    def _row(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """An event as a row of the click log.

        Raises DataError for a request id of others or of another request, and for an event without a label.
        """
        row = {key: value for key, value in event.items() if key not in (EVENT_ID, REQUEST_ID, EVENT_TYPE)}
        request, kind = event.get(REQUEST_ID), event.get(EVENT_TYPE)
        if request is not None:
            of_request = self.ids.read(request)
            row = joined(of_request, row, lambda name, value: self._may_differ(of_request, name, value))
        if absent := [name for name in self.required if name not in row]:
            own = request is not None or absent[0] in self.schema.at_serving
            raise DataError(
                f"column '{absent[0]}' is missing; give it{'' if own else f', or the {REQUEST_ID} of the scores that were shown'}"
            )
        if request is not None:
            row[self.id_column] = event_id(request)
        elif event.get(EVENT_ID) is not None:
            row[self.id_column] = event[EVENT_ID]
        label = row.get(self.schema.label)
        if kind is not None and label is None:
            row[self.schema.label] = self._is_click(kind) if self.schema.has_grades else int(self._is_click(kind))
        elif kind is not None:
            raise DataError(f"column '{EVENT_TYPE}': give it or '{self.schema.label}', not both")
        elif label is None:
            raise DataError(f"column '{self.schema.label}' is empty; give it, or '{EVENT_TYPE}'")
        elif self.schema.has_grades and isinstance(label, bool):  # that is how a type is logged: see `Kind`
            raise DataError(
                f"column '{self.schema.label}' is {label}, and labels are grades; write a number, or give '{EVENT_TYPE}'"
            )
        if row.get(self.schema.time) is None:
            if self.id_column not in row:
                raise DataError(
                    f"column '{self.schema.time}' is empty, without '{EVENT_ID}': sent again, the event would count twice; give one"
                )
            row[self.schema.time] = self._now()
        return row

    def _may_differ(self, request: Mapping[str, Any], name: str, value: Any) -> bool:
        """Whether an event's value is that of its request in another spelling, or of its own, such as a candidate's position."""
        if not isinstance(value, list) and not isinstance(request[name], list):
            with suppress(DataError):
                if canonical_name(value) == canonical_name(request[name]):
                    return True
        rows = [{**request, self.schema.item: "?"}, {**request, self.schema.item: "?", name: value}]
        try:  # requests have the same value of such a field, whatever they give
            log = log_from_frame(
                frame_from_rows(rows, "events"), self.schema, items=False, labels=False, where="events"
            )
        except DataError:
            return False
        return same_values(log, 0, 1)

    def _unusual(self, events: Sequence[Mapping[str, Any]]) -> list[str]:
        """Notes on event types that are no clicks, and look like those that are."""
        kinds = {kind for event in events if (kind := event.get(EVENT_TYPE)) and kind not in self.clicked}
        near = {kind: get_close_matches(kind, self.clicked, 1) for kind in sorted(kinds)}
        return [f"{EVENT_TYPE} '{kind}' is no click; '{like[0]}' is" for kind, like in near.items() if like]

    def _is_click(self, kind: str) -> bool:
        """Whether events of this type are clicks. Raises DataError for a type that is one but for its case or blanks."""
        if not kind.strip():
            raise DataError(f"column '{EVENT_TYPE}' is empty; leave it out, or write the type")
        near = next((one for one in self.clicked if one.strip().casefold() == kind.strip().casefold()), None)
        if near is not None and kind not in self.clicked:
            raise DataError(f"column '{EVENT_TYPE}' is '{kind}', which is no click; did you mean '{near}'?")
        return near is not None

    def _now(self) -> str:
        """The time of an event that has none. Raises DataError if training had other times."""
        if self.live.learner.encoder.clock in (None, TIME_UNITS[NUMBERS]):
            raise DataError(f"column '{self.schema.time}' is empty; give the time of the event")
        return datetime.now(UTC).isoformat()


def _item_error(line: str, rows: Sequence[Mapping[str, Any]], schema: Schema) -> dict[str, Any]:
    """An error of `add` with a JSON pointer: of a row, or of the last row of an item that is named."""
    found = row_error(line)
    if "pointer" in found:
        return found
    named = [n for n, row in enumerate(rows) if line.startswith(f"items: item '{name_in(row, schema)}' ")]
    return {"pointer": f"/items/{named[-1]}", **found} if named else found


def _refused(lines: Sequence[str]) -> list[Refused]:
    return [Refused(**row_error(line)) for line in lines]


def _renumbered(line: str, rows: Sequence[int]) -> str:
    """The message with the row with which it begins, if it does, counted in the body's list."""
    line = f"events: {line}" if line.startswith("row ") else line
    return ROW.sub(lambda found: f"events: row {rows[int(found[1]) - 1] + 1}", line)
