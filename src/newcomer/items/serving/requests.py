"""Parsing of request, event and item tables: valid rows as a click log, errors of the others."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.click_log import ClickLog, EntityTable
from newcomer.data.io.column_parsing import row_number, scalar_values
from newcomer.data.io.frames import as_frame
from newcomer.data.io.log_reader import items_and_conflicts, items_from_frame, log_from_frame
from newcomer.data.io.plain_tables import PlainReader
from newcomer.data.io.timestamps import dates_among_numbers, dates_as_numbers
from newcomer.data.time_units import NUMBERS, TIME_UNITS, other_unit_note, require_time_unit, to_time_unit
from newcomer.errors import DataError
from newcomer.items.encoding.encoder import Encoder
from newcomer.items.serving.event_ids import digests, id_column, read_ids
from newcomer.items.serving.results import OnError
from newcomer.items.serving.row_isolation import readable

Frame = Any
"""A table in memory: a polars or pandas frame, columns by name, or a list of rows."""


@dataclass(frozen=True)
class ParsedRows:
    """Valid rows as a click log, their row numbers in the table, and the errors of invalid rows by row number."""

    log: ClickLog | None
    rows: NDArray[np.int64]
    wrong: dict[int, DataError]
    ids: Sequence[str] = ()
    """Event ids of the valid rows."""
    frame: pl.DataFrame | None = None
    """The table, if it may have item fields."""
    note: str | None = None
    """What to say of the valid rows."""

    def __len__(self) -> int:
        return len(self.rows) + len(self.wrong)


def parse_requests(
    requests: ClickLog | Frame, encoder: Encoder, reader: PlainReader, where: str, on_error: OnError
) -> ParsedRows:
    """Parse scoring requests. Raises DataError: see `readable`."""
    schema = reader.schema
    if isinstance(requests, ClickLog):
        return ParsedRows(requests, np.arange(len(requests)), {})
    log = reader.requests(requests)
    if log is not None:
        with suppress(DataError):  # of which row, and what becomes of the others: below
            encoder.require_values(log, where)
            return ParsedRows(log, np.arange(len(log)), {})

    def read(frame: pl.DataFrame) -> ClickLog:
        log = log_from_frame(frame, schema, items=False, labels=False, where=where)
        encoder.require_values(log, where)
        return log

    frame = as_frame(requests, where)
    log, rows, wrong = readable(frame, read, on_error, where) if len(frame) else (None, np.arange(0), {})
    return ParsedRows(log and replace(log, row=rows[log.row]), rows, dict(wrong), frame=frame)


def parse_events(
    events: ClickLog | Frame,
    encoder: Encoder,
    reader: PlainReader,
    event_id: str | None,
    where: str,
    on_error: OnError,
) -> ParsedRows:
    """Parse events by the reader's schema; times are converted to the unit of training.

    An event without an id needs a time in that unit; of one with an id, another time is said in `note`. Raises DataError: see
    `readable` and `event_ids`.
    """
    schema, clock = reader.schema, encoder.clock
    if isinstance(events, ClickLog):
        id_column(schema, None, event_id, where)
        require_time_unit(events, clock, where)
        events = to_time_unit(events, clock)
        return ParsedRows(events, np.arange(len(events)), {}, digests(events))

    def converted(log: ClickLog, ids: list[str] | None) -> tuple[ClickLog, ClickLog, list[str]]:
        """The log, the same in the unit of training, and its event ids."""
        encoder.require_values(log, where)
        if ids is None:
            require_time_unit(log, clock, where)
        in_unit = to_time_unit(log, clock)
        return log, in_unit, digests(in_unit) if ids is None else ids

    are_numbers = clock is None or clock == TIME_UNITS[NUMBERS]

    def read(frame: pl.DataFrame) -> tuple[ClickLog, ClickLog, list[str]]:
        if not are_numbers and schema.time in frame.columns:
            times = scalar_values(frame, schema.time, where, "time")
            frame = frame.with_columns(dates_as_numbers(times, schema.time_order))
        if dates:  # each alone could be read
            _require_no_date(frame, schema.time, dates, where)
        log = log_from_frame(frame, schema, items=False, where=where)
        return converted(log, None if column is None else read_ids(frame, column, where))

    found, frame, dates = None, None, list[str]()
    plain = reader.events(events, lambda names: id_column(schema, names, event_id, where))
    if plain is not None:
        with suppress(DataError):  # of which row, and what becomes of the others: below
            found, rows, wrong = converted(plain.log, plain.ids), np.arange(len(plain.log)), dict[int, DataError]()
    if found is None:
        frame = as_frame(events, where)
        column = id_column(schema, frame.columns, event_id, where) if len(frame) else None
        if are_numbers and schema.time in frame.columns:
            dates = frame[schema.time].filter(dates_among_numbers(frame[schema.time])).to_list()
        found, rows, wrong = readable(frame, read, on_error, where) if len(frame) else (None, np.arange(0), {})
    if found is None:
        return ParsedRows(None, rows, dict(wrong), frame=frame)
    log, in_unit, ids = found
    note = other_unit_note(replace(log, row=rows[log.row]), clock, where)
    return ParsedRows(replace(in_unit, row=rows[in_unit.row]), rows, dict(wrong), ids, frame, note)


def _require_no_date(frame: pl.DataFrame, time: str, dates: Sequence[str], where: str) -> None:
    """Raises DataError for the first row with one of these times."""
    dated = frame[time].is_in(dates)
    if dated.any():
        row = row_number(frame, dated)
        raise DataError(
            f"{where}: row {row}, time '{time}' is {frame[time].filter(dated)[0]!r}, others are numbers; "
            "write a number, as in training"
        )


def parse_items(
    items: EntityTable | pl.DataFrame, encoder: Encoder, where: str, on_error: OnError
) -> tuple[EntityTable | None, list[DataError]]:
    """Valid new items, and the errors of the others. Raises DataError: see `readable`."""
    if isinstance(items, EntityTable):
        return items, []
    if on_error == "raise":
        return items_from_frame(items, encoder.schema, where), []

    def read(frame: pl.DataFrame) -> tuple[EntityTable, list[DataError]]:
        found, conflicts = items_and_conflicts(frame, encoder.schema, where)
        encoder.require_item_values(found)
        return found, conflicts

    found, _, wrong = readable(items, read, on_error, where)
    table, conflicts = found or (None, [])
    return table if table is not None and len(table.ids) else None, [*wrong.values(), *conflicts]
