"""Events as rows of the click log: their id column, how they are read, and the warm-up of a service by them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from newcomer.data.io.plain_tables import PlainReader
from newcomer.data.schema import Schema
from newcomer.errors import DataError
from newcomer.items.serving.event_batch import EventBatch
from newcomer.items.serving.requests import parse_events
from newcomer.items.serving.results import SkippedRows, Warmed
from newcomer.items.serving.service import ItemService
from newcomer.items.serving.warm_up import WarmUp
from newcomer.server.bodies import EVENT_ID, columns_of

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """Events that are read as one table.

    `are_clicks`: the label is true for a click and false for none, by the event's type, where other labels are grades.
    """

    has_id: bool
    are_clicks: bool

    def reader(self, service: ItemService) -> PlainReader:
        """The reader of such events."""
        return service.reader_of_clicks if self.are_clicks else service.reader


def by_kind(rows: Sequence[Row], schema: Schema) -> dict[Kind, list[int]]:
    """Numbers of the rows of each kind."""
    id_column, found = event_id_column(schema), dict[Kind, list[int]]()
    for number, row in enumerate(rows):
        kind = Kind(id_column in row, schema.has_grades and isinstance(row.get(schema.label), bool))
        found.setdefault(kind, []).append(number)
    return found


def event_id_column(schema: Schema) -> str:
    """The column of event ids in rows of events: a name that the schema does not use."""
    used = columns_of(schema)
    return next(name for name in (EVENT_ID, "service_event_id", "service_event_id_2") if name not in used)


def check_impressions(service: ItemService, rows: Sequence[Row]) -> tuple[list[int], int, list[str]]:
    """Numbers of the impressions that would count now, how many have counted, and why others would be refused.

    Nothing is counted. All of them have an id.
    """
    schema, where = service.learner.schema, "events"
    try:
        column, reader = event_id_column(schema), Kind(True, schema.has_grades).reader(service)
        parsed = parse_events(rows, service.learner.encoder, reader, column, where, "report")
    except DataError as error:
        return [], 0, [str(error)]
    refused = SkippedRows("report")
    refused.lines += map(str, parsed.wrong.values())
    if parsed.log is None:
        return [], 0, refused.lines
    warm_up = WarmUp(service, where, refused)
    due = warm_up.due(EventBatch(parsed.log, parsed.ids))
    return due.log.row.tolist(), warm_up.known, refused.lines


def warm_rows(service: ItemService, rows: Sequence[Row], kind: Kind) -> tuple[Warmed, Sequence[str]]:
    """Count these events, all of one kind; what was counted, and why others were not."""
    column = event_id_column(service.learner.schema) if kind.has_id else None
    try:
        done = service.warm(rows, column, where="events", on_error="report", are_clicks=kind.are_clicks)
    except DataError as error:
        return Warmed(0, 0, []), [str(error)]
    return done, done.left_out
