"""The event log as tables: valid events, each once, with the features of their items."""

import math
from collections.abc import Collection, Sequence

import numpy as np
import polars as pl

from newcomer.data.click_log import ClickLog
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.frames import as_series, frame_from_rows
from newcomer.data.io.log_tables import entity_frame, log_frame
from newcomer.data.io.plain_tables import PlainReader
from newcomer.data.labels import label_numbers
from newcomer.data.time_units import DATES, TIME_UNITS
from newcomer.errors import DataError
from newcomer.items.encoding.encoder import Encoder
from newcomer.items.serving.requests import parse_events, parse_items
from newcomer.server.event_rows import Kind, Row, by_kind, event_id_column
from newcomer.server.history import History, batches

NUMBER = "number in the history "
"""Column: the index of an event in the history. No column of a schema ends with a blank."""


def event_table(history: History, encoder: Encoder) -> pl.DataFrame:
    """Valid events in the order of arrival, one of each item and id: the columns of the schema without those of items.

    Of events with one id it is the first, with the highest label of those with the same values: a click corrects an impression.

    Besides: the column of `event_id_column`, and `NUMBER`. Times are in the unit of training.
    """
    id_column, found = event_id_column(encoder.schema), list[pl.DataFrame]()
    for part in batches([(number, row) for number, (_, row) in enumerate(history.events)]):
        for kind, numbers in by_kind([row for _, row in part], encoder.schema).items():
            found += _event_tables([part[number] for number in numbers], kind, encoder)
    if not found:
        return pl.DataFrame(schema={encoder.schema.item: pl.String, NUMBER: pl.Int64})
    every = pl.concat(found, how="vertical_relaxed").sort(NUMBER)
    same = [name for name in every.columns if name not in (encoder.schema.label, encoder.schema.time, NUMBER)]
    every = every.with_columns(pl.col(encoder.schema.label).max().over(same))
    return every.unique([encoder.schema.item, id_column], keep="first", maintain_order=True)


def item_table(
    history: History, encoder: Encoder, logs: Sequence[str], names: Collection[str], replace: bool
) -> pl.DataFrame:
    """Ids and fields of these items, as far as they are known: as registered, or else as the training log has them.

    `replace`: see `History.rounds`.
    """
    schema, found = encoder.schema, list[pl.DataFrame]()
    fields = schema.of("item")
    left = set(names)

    def take(table: pl.DataFrame) -> None:
        found.append(table.filter(pl.col(schema.item).is_in(sorted(left))))
        left.difference_update(found[-1][schema.item])

    take(pl.DataFrame(schema={schema.item: pl.String}))
    for rows in history.rounds(replace):
        for part in batches(list(rows.values())):
            for table in _item_tables(part, encoder):
                take(table)
    if left - set(history.registrations):
        log = ChunkedLog(list(logs), schema)
        for chunk in log.chunks:
            take(entity_frame(log.read(chunk, labels=False).items, schema.item, fields))
    return pl.concat(found, how="diagonal_relaxed")


def _event_tables(events: Sequence[tuple[int, Row]], kind: Kind, encoder: Encoder) -> list[pl.DataFrame]:
    """Tables of the valid ones among these events of one kind, given with their numbers."""
    rows, id_column = [row for _, row in events], event_id_column(encoder.schema)
    try:
        reader = PlainReader(encoder.schema.of_clicks if kind.are_clicks else encoder.schema)
        parsed = parse_events(rows, encoder, reader, id_column if kind.has_id else None, "events", "report")
        if parsed.log is None:
            return []
        encoder.require_labels(parsed.log)
    except DataError:  # a table that cannot be read as one: each row by itself
        return [found for event in events for found in _event_tables([event], kind, encoder)] if len(rows) > 1 else []
    numbers = parsed.log.row.tolist()
    return [
        log_frame(parsed.log).with_columns(
            _labels(parsed.log, [rows[number] for number in numbers], encoder.schema.clicked_from),
            _times(parsed.log, encoder.clock),
            pl.Series(id_column, parsed.ids),
            pl.Series(NUMBER, [events[number][0] for number in numbers]),
        )
    ]


def _labels(log: ClickLog, rows: Sequence[Row], threshold: float | None) -> pl.Series:
    """Labels as they were given, before a threshold made clicks of them; by types of events, the threshold and just below it."""
    label = log.schema.label
    if threshold is None:
        return pl.Series(label, log.label, dtype=pl.Float64)
    if log.schema.clicked_from is None:
        return pl.Series(label, np.where(log.label, threshold, math.nextafter(threshold, -math.inf)), dtype=pl.Float64)
    return label_numbers(as_series(label, [row[label] for row in rows], "events")).cast(pl.Float64)


def _times(log: ClickLog, unit: str | None) -> pl.Series:
    """Times as the training log has them: numbers or dates, in its unit."""
    times = pl.Series(log.schema.time, log.time)
    if unit == TIME_UNITS[DATES] or (unit is None and log.has_dates):
        return (times * 1000 + pl.Series((log.fraction_or_zero * 1000).round())).cast(pl.Int64).cast(pl.Datetime("us"))
    fractions = [repr(part)[1:] if part else "" for part in np.abs(log.fraction_or_zero).tolist()]
    return pl.Series(times.name, [f"{time}{part}" for time, part in zip(log.time.tolist(), fractions, strict=True)])


def _item_tables(rows: Sequence[Row], encoder: Encoder) -> list[pl.DataFrame]:
    try:
        table, _ = parse_items(frame_from_rows(rows, "items"), encoder, "items", "report")
    except DataError:  # a table that cannot be read as one: each row by itself
        return [found for row in rows for found in _item_tables([row], encoder)] if len(rows) > 1 else []
    return [] if table is None else [entity_frame(table, encoder.schema.item, encoder.schema.of("item"))]
