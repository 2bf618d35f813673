"""Tables that come to a learner in service: which of their rows can be read, and what their events are called."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.click_log import Log, Table
from newcomer.data.clocks import in_clock
from newcomer.data.io.log_reader import items_from_frame, log_from_frame
from newcomer.data.schema import Schema
from newcomer.errors import DataError
from newcomer.items.encoding.encoder import Encoder
from newcomer.items.serving.event_ids import event_ids
from newcomer.items.serving.results import OnError
from newcomer.items.serving.row_isolation import readable


@dataclass(frozen=True)
class Incoming:
    """Rows that can be read, as a log; where they stood in what was given; and what is wrong with the others, by the same."""

    log: Log | None
    rows: NDArray[np.int64]
    wrong: dict[int, DataError]
    ids: Sequence[str] = ()
    """Of events what each is called."""


def requests_of(requests: Log | pl.DataFrame, schema: Schema, where: str, on_error: OnError) -> Incoming:
    """Raises DataError: see `readable`."""
    if isinstance(requests, Log):
        return Incoming(requests, np.arange(len(requests)), {})

    def read(frame: pl.DataFrame) -> Log:
        return log_from_frame(frame, schema, items=False, labels=False, where=where)

    log, rows, wrong = readable(requests, read, on_error)
    return Incoming(log and replace(log, row=rows[log.row]), rows, dict(wrong))


def events_of(
    events: Log | pl.DataFrame, encoder: Encoder, event_id: str | None, where: str, on_error: OnError
) -> Incoming:
    """Events with their times in the clock of training. Raises DataError: see `readable` and `event_ids`."""
    schema, clock = encoder.schema, encoder.clock
    if isinstance(events, Log):
        events = in_clock(events, clock)
        return Incoming(events, np.arange(len(events)), {}, event_ids(events, None, event_id, where, clock))

    def read(frame: pl.DataFrame) -> tuple[Log, list[str]]:
        log = in_clock(log_from_frame(frame, schema, items=False, where=where), clock)
        return log, event_ids(log, frame, event_id, where, clock)

    found, rows, wrong = readable(events, read, on_error)
    if found is None:
        return Incoming(None, rows, dict(wrong))
    log, ids = found
    return Incoming(replace(log, row=rows[log.row]), rows, dict(wrong), ids)


def items_of(
    items: Table | pl.DataFrame, schema: Schema, where: str, on_error: OnError
) -> tuple[Table | None, list[DataError]]:
    """New items that can be read, and what is wrong with the others. Raises DataError: see `readable`."""
    if isinstance(items, Table):
        return items, []
    table, _, wrong = readable(items, lambda frame: items_from_frame(frame, schema, where), on_error)
    return table, list(wrong.values())
