"""Events as rows of the click log: their id column, and the warm-up of a service by them."""

from collections.abc import Mapping, Sequence
from typing import Any

from newcomer.data.schema import Schema
from newcomer.errors import DataError
from newcomer.items.serving.results import Warmed
from newcomer.items.serving.service import ItemService
from newcomer.server.bodies import EVENT_ID, columns_of

Row = Mapping[str, Any]


def event_id_column(schema: Schema) -> str:
    """The column of event ids in rows of events: a name that the schema does not use."""
    used = columns_of(schema)
    return next(name for name in (EVENT_ID, "service_event_id", "service_event_id_2") if name not in used)


def warm_rows(service: ItemService, rows: Sequence[Row], has_id: bool) -> tuple[Warmed, Sequence[str]]:
    """Count these events, all with or all without an id; what was counted, and why others were not."""
    column = event_id_column(service.learner.schema) if has_id else None
    try:
        done = service.warm(rows, column, where="events", on_error="report")
    except DataError as error:
        return Warmed(0, 0, []), [str(error)]
    return done, done.left_out
