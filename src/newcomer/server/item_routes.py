"""Routes of a click model: items, scores, events."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Response

from newcomer.data.io.frames import frame_from_rows
from newcomer.data.time_units import NUMBERS, TIME_UNITS
from newcomer.errors import DataError
from newcomer.items.analysis.item_graphs import heaviest_edges
from newcomer.items.serving.candidates import score_candidates
from newcomer.items.serving.results import Warmed
from newcomer.items.serving.service import ItemService
from newcomer.server.bodies import (
    EVENT_ID,
    EVENT_TYPE,
    REQUEST_ID,
    AddedItem,
    AddedItems,
    Bodies,
    Counts,
    Edge,
    ItemDetails,
    ItemPage,
    ItemStatus,
    Refused,
    Score,
    Scores,
)
from newcomer.server.json_route import JsonRoute
from newcomer.server.metrics import Metrics
from newcomer.server.problems import ProblemError, row_error
from newcomer.server.request_ids import RequestIds, event_id
from newcomer.server.security import Guard, Role

EDGES = 10
PAGE = 100
"""Edges of a graph, and items of a page."""

SCORE_COLUMNS = {name: "logit_std" if name == "sd" else name for name in Score.model_fields}
"""Key of a score → column of the scores."""

ROW = re.compile(r"\brow (\d+)\b")


class ItemRoutes:
    """Routes for the items of one service. `clicked`: event types that are clicks."""

    def __init__(
        self, service: ItemService, ids: RequestIds, guard: Guard, metrics: Metrics, clicked: Sequence[str], rows: int
    ) -> None:
        self.service, self.ids, self.metrics, self.clicked = service, ids, metrics, set(clicked)
        self.schema = service.learner.schema
        self.bodies = Bodies(self.schema, rows)
        used = {self.schema.label, self.schema.time, *(node.name for node in self.schema.nodes)}
        self.id_column = next(name for name in (EVENT_ID, "service_event_id", "service_event_id_2") if name not in used)
        self.router = APIRouter(tags=["items"], route_class=JsonRoute)
        read, write = (Depends(guard.requires(role)) for role in (Role.READ, Role.WRITE))
        route = self.router.add_api_route
        items, score, events = (
            Annotated[model, Body()] for model in (self.bodies.Items, self.bodies.Score, self.bodies.Events)
        )

        def add(body: items) -> AddedItems:  # type: ignore[valid-type]
            """Register new items. They can be scored at once; an item that is there with the same features is known."""
            return self.add([self.bodies.row(item) for item in body.items])  # type: ignore[attr-defined]

        def scores(body: score) -> Response:  # type: ignore[valid-type]
            """Click probabilities of candidates for one user and context. Candidates given by their features are not added."""
            found = self.score(self.bodies.row(body))
            return Response(found.model_dump_json(), media_type="application/json")  # not validated once more

        def count(body: events) -> Counts:  # type: ignore[valid-type]
            """Count events and adapt their items. Each event counts once, by its item and event id."""
            return self.count([self.bodies.row(event) for event in body.events])  # type: ignore[attr-defined]

        route("/items", add, methods=["POST"], dependencies=[write])
        route("/items", self.page, methods=["GET"], dependencies=[read])
        route("/items/{item_id:path}", self.details, methods=["GET"], dependencies=[read])
        route("/items/{item_id:path}", self.delete, methods=["DELETE"], dependencies=[write], status_code=204)
        route("/score", scores, methods=["POST"], dependencies=[read], response_model=Scores)
        route("/events", count, methods=["POST"], dependencies=[write])

    def add(self, rows: Sequence[Mapping[str, Any]]) -> AddedItems:
        """Register items, with what each request left out."""
        done = self.service.add(frame_from_rows(rows, "items"), where="items", on_error="report")
        names = [*done.new, *done.known]
        headers = self.service.states.headers(self.service.model, names)
        new = set(done.new)
        items = [
            AddedItem(
                item_id=name,
                status="new" if name in new else "known",
                phase=headers[name].phase,
                events=headers[name].events,
            )
            for name in names
            if name in headers
        ]
        if done.left_out and not items:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY, done.left_out[0], [row_error(line) for line in done.left_out]
            )
        return AddedItems(model=self.service.model, items=items, refused=_refused(done.left_out))

    def page(
        self,
        phase: str | None = None,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = PAGE,
    ) -> ItemPage:
        """Items in the order of their ids, optionally of one phase, page by page."""
        headers = self.service.headers()
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
        """Phase, events and feature graph of an item."""
        try:
            row, state = self.service.look_up(item_id)
        except DataError as error:
            raise ProblemError(HTTPStatus.NOT_FOUND, str(error)) from None
        edges = heaviest_edges(self.service.learner, state, EDGES)
        return ItemDetails(
            item_id=row.item,
            phase=row.phase,
            events=row.events,
            model=self.service.model,
            version=row.version,
            updated_at=row.updated_at,
            graph=None if edges is None else [Edge(fields=(one, other), weight=weight) for one, other, weight in edges],
        )

    def delete(self, item_id: str) -> None:
        """Delete an item and its events. Its effect on the shared weights remains."""
        try:
            self.service.forget([item_id])
        except DataError as error:
            raise ProblemError(HTTPStatus.NOT_FOUND, str(error)) from None

    def score(self, body: Mapping[str, Any]) -> Scores:
        """Scores of candidates, and the request id for their events."""
        given = {
            key: value
            for key, value in body.items()
            if key not in ("context", "candidates", "on_unknown", "uncertainty")
        }
        request = given | body.get("context", {})
        on_unknown, uncertainty = body.get("on_unknown", "error"), body.get("uncertainty", False)
        answers, unseen = score_candidates(self.service, body["candidates"], request, on_unknown, uncertainty)
        self.metrics.scored(answers["phase"].to_list(), unseen)
        columns = (answers[name].to_list() for name in SCORE_COLUMNS.values())
        scores = [dict(zip(SCORE_COLUMNS, row, strict=True)) for row in zip(*columns, strict=True)]
        return Scores.model_validate(
            {"request_id": self.ids.make(request), "model": self.service.model, "scores": scores}
        )

    def count(self, events: Sequence[Mapping[str, Any]]) -> Counts:
        """Count events; those that cannot be counted are refused one by one."""
        errors, rows = list[str](), dict[int, dict[str, Any]]()
        for n, event in enumerate(events):
            try:
                rows[n] = self._row(event)
            except DataError as error:
                errors.append(f"events: row {n + 1}, {error}")
        done = []
        for has_id in (True, False):
            part = [n for n, row in rows.items() if (self.id_column in row) == has_id]
            if part:
                warmed, lines = self._warm([rows[n] for n in part], has_id)
                done.append(warmed)
                errors += [_renumbered(line, part) for line in lines]
        conflicting = sum(part.conflicting for part in done)
        new, known = sum(part.new for part in done), sum(part.known for part in done)
        refused = len(events) - new - known - conflicting
        self.metrics.counted(new, known, conflicting, refused)
        return Counts(new=new, known=known, conflicting=conflicting, refused=refused, errors=_refused(errors))

    def _warm(self, rows: Sequence[Mapping[str, Any]], has_id: bool) -> tuple[Warmed, Sequence[str]]:
        frame = frame_from_rows(rows, "events")
        try:
            done = self.service.warm(frame, self.id_column if has_id else None, where="events", on_error="report")
        except DataError as error:
            return Warmed(0, 0, []), [str(error)]
        return done, done.left_out

    def _row(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """An event as a row of the click log. Raises DataError for a foreign request id, and for an event without a label."""
        row = {key: value for key, value in event.items() if key not in (EVENT_ID, REQUEST_ID, EVENT_TYPE)}
        request, kind = event.get(REQUEST_ID), event.get(EVENT_TYPE)
        if request is not None:
            row = self.ids.read(request) | row
        if event.get(EVENT_ID) is not None or request is not None:
            row[self.id_column] = event.get(EVENT_ID) or event_id(str(request))
        if kind is not None and row.get(self.schema.label) is None:
            row[self.schema.label] = int(kind in self.clicked)
        elif kind is not None:
            raise DataError(f"column '{EVENT_TYPE}': give it or '{self.schema.label}', not both")
        if row.get(self.schema.label) is None:
            raise DataError(f"column '{self.schema.label}' is empty; give it, or '{EVENT_TYPE}'")
        if row.get(self.schema.time) is None:
            row[self.schema.time] = self._now()
        return row

    def _now(self) -> str:
        """The time of an event that has none. Raises DataError if training had other times."""
        if self.service.learner.encoder.clock in (None, TIME_UNITS[NUMBERS]):
            raise DataError(f"column '{self.schema.time}' is empty; give the time of the event")
        return datetime.now(UTC).isoformat()


def _refused(lines: Sequence[str]) -> list[Refused]:
    return [Refused(**row_error(line)) for line in lines]


def _renumbered(line: str, rows: Sequence[int]) -> str:
    """The message with the row counted in the body's list."""
    line = f"events: {line}" if line.startswith("row ") else line
    return ROW.sub(lambda found: f"row {rows[int(found[1]) - 1] + 1}", line, count=1)
