"""One request of plain scalars as a click log, without a table: what `log_reader` makes of it, many times as fast."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from newcomer.data.canonical import plain_name
from newcomer.data.click_log import ClickLog, Column, EntityTable
from newcomer.data.schema import NOBODY, Field, Schema


def plain_request(row: Mapping[str, Any], schema: Schema) -> ClickLog | None:
    """The log that `log_from_frame` makes of this request (items=False, labels=False) and an item '?'.

    `row`: values of the user and the context by column. None if a value needs the general way: text that is not canonical, lists,
    numbers written as text, missing values that are an error, unknown columns.
    """
    fields = (Field(schema.user, "user", missing=schema.user_missing), *schema.of("user"), *schema.of("context"))
    if schema.missing_values or not row.keys() <= {field.name for field in fields}:
        return None
    row, columns = {**row, **schema.at_serving}, dict[str, Column]()
    for field in fields:
        column = _missing(field) if (value := row.get(field.name)) is None else _column(field, value)
        if column is None:
            return None
        columns[field.name] = column
    user, one = columns[schema.user].names or (NOBODY,), np.zeros(1, dtype=np.int32)
    return ClickLog(
        schema,
        EntityTable(("?",), {}),
        EntityTable(user, {field.name: columns[field.name] for field in schema.of("user")}),
        {field.name: columns[field.name] for field in schema.of("context")},
        item=one,
        user=one,
        label=np.zeros(1, dtype=np.float32),
        time=np.zeros(1, dtype=np.int64),
        row=np.zeros(1, dtype=np.int64),
    )


def _missing(field: Field) -> Column | None:
    if field.missing != "mark":
        return None
    if field.kind == "categorical":
        return Column((), np.array([-1], dtype=np.int32))
    return Column((), np.array([np.nan])) if field.is_numeric else None


def _column(field: Field, value: Any) -> Column | None:
    if field.is_numeric:
        if type(value) not in (int, float, bool) or not abs(value) < 2**63:
            return None
        return Column((), np.array([value], dtype=np.float64))
    name = plain_name(value) if field.kind == "categorical" else None
    return None if name is None else Column((name,), np.zeros(1, dtype=np.int32))
