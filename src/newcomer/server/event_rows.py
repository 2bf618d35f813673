"""Events as rows of the click log: their id column, and the warm-up of a service by them."""

from collections.abc import Mapping, Sequence
from typing import Any

from newcomer.data.schema import Schema
from newcomer.errors import DataError, StoreError
from newcomer.items.serving.event_batch import item_names
from newcomer.items.serving.requests import parse_events
from newcomer.items.serving.results import Warmed
from newcomer.items.serving.scoring import item_errors
from newcomer.items.serving.service import ItemService
from newcomer.server.bodies import EVENT_ID, columns_of

Row = Mapping[str, Any]


def event_id_column(schema: Schema) -> str:
    """The column of event ids in rows of events: a name that the schema does not use."""
    used = columns_of(schema)
    return next(name for name in (EVENT_ID, "service_event_id", "service_event_id_2") if name not in used)


def refusals(service: ItemService, rows: Sequence[Row]) -> dict[int, str]:
    """Why events with an id would be refused now, by number; nothing is counted."""
    schema, where = service.learner.schema, "events"
    try:
        column = event_id_column(schema)
        parsed = parse_events(rows, service.learner.encoder, service.reader, column, where, "report")
    except DataError as error:
        return dict.fromkeys(range(len(rows)), str(error))
    found = {row: str(error) for row, error in parsed.wrong.items()}
    if parsed.log is not None:
        damaged: dict[str, StoreError] = {}
        known = service.refreshed(item_names(parsed.log), damaged)
        wrong = item_errors(parsed.log, known, damaged, where, but=known.non_finite)
        found |= {int(parsed.log.row[row]): str(error) for row, error in wrong.items()}
    return found


def warm_rows(service: ItemService, rows: Sequence[Row], has_id: bool) -> tuple[Warmed, Sequence[str]]:
    """Count these events, all with or all without an id; what was counted, and why others were not."""
    column = event_id_column(service.learner.schema) if has_id else None
    try:
        done = service.warm(rows, column, where="events", on_error="report")
    except DataError as error:
        return Warmed(0, 0, []), [str(error)]
    return done, done.left_out
