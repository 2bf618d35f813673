"""Parsing of request, event and item tables: valid rows as a click log, errors of the others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.click_log import ClickLog, EntityTable
from newcomer.data.io.column_parsing import scalar_values
from newcomer.data.io.log_reader import items_and_conflicts, items_from_frame, log_from_frame
from newcomer.data.io.timestamps import dates_as_numbers
from newcomer.data.schema import Schema
from newcomer.data.time_units import NUMBERS, TIME_UNITS, require_time_unit, to_time_unit, warn_of_time_unit
from newcomer.errors import DataError
from newcomer.items.encoding.encoder import Encoder
from newcomer.items.serving.event_ids import digests, id_column, read_ids
from newcomer.items.serving.results import OnError
from newcomer.items.serving.row_isolation import readable


@dataclass(frozen=True)
class ParsedRows:
    """Valid rows as a click log, their row numbers in the table, and the errors of invalid rows by row number."""

    log: ClickLog | None
    rows: NDArray[np.int64]
    wrong: dict[int, DataError]
    ids: Sequence[str] = ()
    """Event ids of the valid rows."""


def parse_requests(requests: ClickLog | pl.DataFrame, schema: Schema, where: str, on_error: OnError) -> ParsedRows:
    """Parse scoring requests. Raises DataError: see `readable`."""
    if isinstance(requests, ClickLog):
        return ParsedRows(requests, np.arange(len(requests)), {})

    def read(frame: pl.DataFrame) -> ClickLog:
        return log_from_frame(frame, schema, items=False, labels=False, where=where)

    log, rows, wrong = readable(requests, read, on_error)
    return ParsedRows(log and replace(log, row=rows[log.row]), rows, dict(wrong))


def parse_events(
    events: ClickLog | pl.DataFrame, encoder: Encoder, event_id: str | None, where: str, on_error: OnError
) -> ParsedRows:
    """Parse events; times are converted to the unit of training.

    An event without an id needs a time in that unit; of one with an id, another time is a DataWarning. Raises DataError: see
    `readable` and `event_ids`.
    """
    schema, clock = encoder.schema, encoder.clock
    column = id_column(schema, None if isinstance(events, ClickLog) else events, event_id, where)
    if isinstance(events, ClickLog):
        require_time_unit(events, clock, where)
        events = to_time_unit(events, clock)
        return ParsedRows(events, np.arange(len(events)), {}, digests(events))

    def read(frame: pl.DataFrame) -> tuple[ClickLog, ClickLog, list[str]]:
        if clock is not None and clock != TIME_UNITS[NUMBERS] and schema.time in frame.columns:
            times = scalar_values(frame, schema.time, where, "time")
            frame = frame.with_columns(dates_as_numbers(times, schema.time_order))
        log = log_from_frame(frame, schema, items=False, where=where)
        converted = to_time_unit(log, clock)
        if column is not None:
            return log, converted, read_ids(frame, column, where)
        require_time_unit(log, clock, where)
        return log, converted, digests(converted)

    found, rows, wrong = readable(events, read, on_error)
    if found is None:
        return ParsedRows(None, rows, dict(wrong))
    log, converted, ids = found
    warn_of_time_unit(replace(log, row=rows[log.row]), clock, where)
    return ParsedRows(replace(converted, row=rows[log.row]), rows, dict(wrong), ids)


def parse_items(
    items: EntityTable | pl.DataFrame, schema: Schema, where: str, on_error: OnError
) -> tuple[EntityTable | None, list[DataError]]:
    """Valid new items, and the errors of the others. Raises DataError: see `readable`."""
    if isinstance(items, EntityTable):
        return items, []
    if on_error == "raise":
        return items_from_frame(items, schema, where), []
    found, _, wrong = readable(items, lambda frame: items_and_conflicts(frame, schema, where), on_error)
    table, conflicts = found or (None, [])
    return table if table is not None and len(table.ids) else None, [*wrong.values(), *conflicts]
