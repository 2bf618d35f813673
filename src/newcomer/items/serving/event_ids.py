"""What an event is called, so that it counts once however often it is sent."""

import hashlib
import json

import numpy as np
import polars as pl

from newcomer.data.canonical import EXACT, canonical
from newcomer.data.click_log import Column, Log
from newcomer.data.clocks import require_clock
from newcomer.data.io.column_parsing import plain
from newcomer.data.io.tables import require_columns
from newcomer.data.schema import Schema
from newcomer.errors import DataError
from newcomer.settings import Json

COLUMN = "event_id"
"""The column that is taken for the ids where none is named."""

LONGEST = 255
"""Characters of an id of an event or an item, as many as any database compares."""


def event_ids(
    log: Log,
    frame: pl.DataFrame | None = None,
    column: str | None = None,
    where: str = "table",
    clock: str | None = None,
) -> list[str]:
    """The id of each row: from this column, or from `event_id` where there is one that means nothing else; else `digests`.

    Raises DataError for a column that is not there or that the schema gives another meaning, such as the items' ids, and for an id
    that is empty or longer than 255 characters. And without ids for a time that says nothing in the `clock` of training.
    """
    meant = _meanings(log.schema)
    if column in meant:
        raise DataError(
            f"{where}: column '{column}' is the schema's {meant[column]}, and does not tell one event from another; name a column "
            "of ids of events, or leave it out: ids are then made of the whole event"
        )
    if frame is None or (column is None and (COLUMN not in frame.columns or COLUMN in meant)):
        if column is not None:
            raise DataError(f"{where}: no column '{column}'; give events as a table")
        require_clock(log, clock, where)
        return digests(log)
    name = column or COLUMN
    require_columns(frame.columns, [name], where)
    ids = canonical(plain(frame[name], where, frame), where)
    wrong = (ids.is_null() | (ids.str.len_chars() > LONGEST)).fill_null(True)
    if wrong.any():
        row = int(wrong.arg_true()[0])
        raise DataError(
            f"{where}: row {row + 1}, column '{name}' is {frame[name][row]!r}; give every event an id of 1 to {LONGEST} characters"
        )
    return ids.to_list()


def _meanings(schema: Schema) -> dict[str | None, str]:
    """By column what a schema says that it is."""
    ids: dict[str | None, str] = {schema.item: "item", schema.user: "user", schema.label: "label", schema.time: "time"}
    return ids | {field.name: f"field of the {field.role}" for field in schema.fields}


def digests(log: Log) -> list[str]:
    """Of each row 32 hexadecimal digits of SHA-256 over its item, user, time, label and the values of its fields.

    What is left of a time after its whole number tells two events apart as well.

    Two rows that are alike in all of these are one event.
    """
    users = {name: _named(column) for name, column in log.users.columns.items()}
    context = {name: _named(column) for name, column in log.context.items()}
    rows = zip(log.item.tolist(), log.user.tolist(), log.time.tolist(), log.label.tolist(), strict=True)
    found, fractions = [], log.ticks.tolist()
    for n, (item, user, time, label) in enumerate(rows):
        fields = {name: values[user] for name, values in users.items()} | {
            key: values[n] for key, values in context.items()
        }
        left = [fractions[n]] if fractions[n] else []
        told = [log.items.ids[item], log.users.ids[user], time, int(label), fields, *left]
        found.append(hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32])
    return found


def _named(column: Column) -> list[Json]:
    """Every value of a column by name; numbers as a float of 32 bits is written, several values sorted."""
    if column.is_vector:
        return list(column.values.tolist())
    if np.issubdtype(column.values.dtype, np.floating):
        return [_spelled(number) for number in column.values.tolist()]
    if column.values.ndim == 1:
        return [None if value < 0 else column.names[value] for value in column.values.tolist()]
    return [sorted(column.names[value] for value in row if value >= 0) for row in column.values.tolist()]


def _spelled(number: float) -> float:
    """The same for .1 and for what .1 becomes as a float of 32 bits, which one program sends and another does not.

    Whole numbers, and those too large for such a float to have a fraction, stay what they are.

    >>> _spelled(0.1), _spelled(0.10000000149011612), _spelled(16777217.0)
    (0.1, 0.1, 16777217.0)
    """
    if number.is_integer() or not abs(number) < EXACT["Float32"]:
        return number
    return float(str(np.float32(number)))
