"""Click logs and entities as tables again: ids and categories as canonical text, several values as lists, numbers as numbers.

Of a text that is a bag of words the words are written, which are the words of what is written.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from newcomer.data.click_log import ClickLog, Column, EntityTable
from newcomer.data.schema import Field


def entity_frame(table: EntityTable, id_column: str, fields: Sequence[Field]) -> pl.DataFrame:
    """One row an entity: its id and fields."""
    ids = pl.Series(id_column, [name or None for name in table.ids], dtype=pl.String)
    return pl.DataFrame([ids, *(_series(field, table.columns[field.name]) for field in fields)])


def log_frame(log: ClickLog) -> pl.DataFrame:
    """One row an event: item, user, weight, the user's and the context's fields; not label and time, which a log may have changed.

    >>> from newcomer.data.io.log_reader import log_from_rows
    >>> from newcomer.data.schema import Schema
    >>> log = log_from_rows(Schema("film", "viewer"), film=["b", "a"], viewer=[7, 7], label=[0, 1], time=[1, 2])
    >>> log_frame(log).rows()
    [('b', '7'), ('a', '7')]
    """
    schema = log.schema
    items = pl.Series(schema.item, log.items.ids, dtype=pl.String)
    users = entity_frame(log.users, schema.user, schema.of("user"))
    context = (_series(field, log.context[field.name]) for field in schema.of("context"))
    weight = [] if log.weight is None else [pl.Series(schema.weight, log.weight)]
    return pl.DataFrame([items[log.item.tolist()], *users[log.user.tolist()], *weight, *context])


def _series(field: Field, column: Column) -> pl.Series:
    values = column.values
    if column.is_vector:
        vectors = [None if np.isnan(row).any() else row.tolist() for row in values]
        return pl.Series(field.name, vectors, dtype=pl.List(pl.Float64))
    if values.dtype.kind == "f":
        return pl.Series(field.name, values, dtype=pl.Float64).fill_nan(None)
    if values.ndim == 1:
        return pl.Series(field.name, [_name(column, value) for value in values.tolist()], dtype=pl.String)
    rows = [[column.names[value] for value in row if value >= 0] for row in values.tolist()]
    given = [row if row or field.missing == "error" else None for row in rows]  # none at all is no missing value
    if field.kind == "text":
        return pl.Series(field.name, [None if row is None else " ".join(row) for row in given], dtype=pl.String)
    return pl.Series(field.name, given, dtype=pl.List(pl.String))


def _name(column: Column, value: int) -> str | None:
    return None if value < 0 else column.names[value]
