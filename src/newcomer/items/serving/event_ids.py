"""Event ids, by which a repeated event counts once."""

import hashlib
import json
import re
from collections.abc import Sequence

import numpy as np
import polars as pl

from newcomer.data.canonical import EXACT_INTEGERS, canonical
from newcomer.data.click_log import ClickLog, Column
from newcomer.data.io.column_parsing import scalar_values
from newcomer.data.io.tables import require_columns
from newcomer.data.schema import Schema
from newcomer.errors import DataError
from newcomer.settings import Json

COLUMN = "event_id"
"""Default column of event ids."""

LONGEST = 255
"""Maximum length of event and item ids in characters, limited by the databases."""


def id_column(schema: Schema, names: Sequence[str] | None, column: str | None, where: str) -> str | None:
    """The column of event ids among these: this one, else `event_id` if the schema does not use it; None if there is none.

    `names`: columns of the events; None for a click log, which has none of ids.

    Raises DataError for a column that is not there or that the schema gives another meaning, such as the items' ids.
    """
    meant = _meanings(schema)
    if column in meant:
        raise DataError(
            f"{where}: column '{column}' is the schema's {meant[column]}, and does not tell one event from another; name a column "
            "of ids of events, or leave it out: ids are then made of the whole event"
        )
    if column is not None:
        if names is None:
            raise DataError(f"{where}: no column '{column}'; give events as a table")
        require_columns(names, [column], where)
        return column
    if names is None:
        return None
    if COLUMN in names and COLUMN not in meant:
        require_columns(names, [COLUMN], where)
        return COLUMN
    for name in (name for name in names if name not in meant):
        if name != COLUMN and re.sub(r"[\W_]", "", name.lower()) == "eventid":
            raise DataError(
                f"{where}: column '{name}' looks like event ids; name it with event_id='{name}' (--event-id), or rename it"
            )
    return None


def read_ids(frame: pl.DataFrame, name: str, where: str) -> list[str]:
    """The event ids in this column. Raises DataError for an id that is empty, has a NUL or is longer than 255 characters."""
    ids = canonical(scalar_values(frame.select(name), name, where), where)
    wrong = (ids.is_null() | (ids.str.len_chars() > LONGEST) | ids.str.contains("\0", literal=True)).fill_null(True)
    if wrong.any():
        row = int(wrong.arg_true()[0])
        value = frame[name][row]
        is_empty = value is None or not str(value).strip()
        raise DataError(
            f"{where}: row {row + 1}, column '{name}' is {'empty' if is_empty else repr(value)}; give every event an id of 1 to "
            f"{LONGEST} characters without NUL"
        )
    return ids.to_list()


def _meanings(schema: Schema) -> dict[str | None, str]:
    """Role of each column of the schema."""
    ids: dict[str | None, str] = {schema.item: "item", schema.user: "user", schema.label: "label", schema.time: "time"}
    ids |= {} if schema.weight is None else {schema.weight: "weight"}
    return ids | {field.name: f"field of the {field.role}" for field in schema.fields}


def digests(log: ClickLog) -> list[str]:
    """32 hexadecimal digits of the SHA-256 of each row's item, user, time, label and field values.

    Fractions of a time unit and weights other than 1 are included. Rows that agree in all of these are one event.
    """
    users = {name: _named(column) for name, column in log.users.columns.items()}
    context = {name: _named(column) for name, column in log.context.items()}
    rows = zip(log.item.tolist(), log.user.tolist(), log.time.tolist(), log.label.tolist(), strict=True)
    found, fractions, weights = [], log.fraction_or_zero.tolist(), log.weight_or_one.tolist()
    for n, (item, user, time, label) in enumerate(rows):
        fields = {name: values[user] for name, values in users.items()} | {
            key: values[n] for key, values in context.items()
        }
        skipped: list[Json] = [fractions[n]] if fractions[n] else []
        skipped += [{"weight": _spelled(weights[n])}] if weights[n] != 1 else []
        content = [log.items.ids[item], log.users.ids[user], time, int(label), fields, *skipped]
        found.append(hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32])
    return found


def _named(column: Column) -> list[Json]:
    """Values of a column by name: numbers in float32 spelling, several values sorted."""
    if column.is_vector:
        return list(column.values.tolist())
    if np.issubdtype(column.values.dtype, np.floating):
        return [_spelled(number) for number in column.values.tolist()]
    if column.values.ndim == 1:
        return [None if value < 0 else column.names[value] for value in column.values.tolist()]
    return [sorted(column.names[value] for value in row if value >= 0) for row in column.values.tolist()]


def _spelled(number: float) -> float:
    """The shortest float32 spelling, so that 0.1 in float32 and in float64 give one digest.

    Integers and numbers too large for a float32 fraction are unchanged.

    >>> _spelled(0.1), _spelled(0.10000000149011612), _spelled(16777217.0)
    (0.1, 0.1, 16777217.0)
    """
    if number.is_integer() or not abs(number) < EXACT_INTEGERS["Float32"]:
        return number
    return float(str(np.float32(number)))
