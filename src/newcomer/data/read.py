"""Reading click logs: CSV and parquet files, or a table that is in memory already."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.columns import column
from newcomer.data.columns import labels as click_labels
from newcomer.data.log import Column, Log, Table
from newcomer.data.moments import are_dates, moments
from newcomer.data.places import find
from newcomer.data.schema import Field, Schema
from newcomer.data.tables import read_table, require_columns
from newcomer.errors import DataError
from newcomer.settings import Json

Source = str | Path | Sequence[str | Path]


def read_log(source: Source, schema: Schema, *, items: bool = True, labels: bool = True) -> Log:
    """The log in these files: a path, a pattern such as `clicks/*.parquet`, or several of either; CSV and parquet.

    `items=False`: the items' fields need not be there (a learner that knows the items does not ask again). `labels=False`:
    neither label nor time need be there (requests, whose answers nobody knows yet).

    Raises DataError, with file and row, for what cannot be read or is not what the schema says.
    """
    frames, dated = [], {}
    for path in _paths(source):
        table = read_table(path)
        frames.append(_checked(table, schema, str(path), items, labels))
        if labels:
            dated[path] = are_dates(table[schema.time])
    if len(set(dated.values())) > 1:
        one, other = (next(path for path in dated if dated[path] == kind) for kind in (True, False))
        raise DataError(f"time '{schema.time}' has dates in {one} and numbers in {other}; write all of them in one way")
    return _encoded(pl.concat(frames), schema, items)


def click_log(path: str | list[str], *, schema: dict[str, Json]) -> Log:
    """The log in these files, as a recipe names them; `schema` is a table as `Schema.from_json` reads it."""
    patterns = [path] if isinstance(path, str) else path
    found = [pattern if glob.glob(pattern) else find(pattern) or pattern for pattern in patterns]  # noqa: PTH207
    return read_log(found, Schema.from_json(schema))


def log_from_frame(
    frame: pl.DataFrame, schema: Schema, *, items: bool = True, labels: bool = True, where: str = "table"
) -> Log:
    """The same of a table in memory, called `where` in messages; text that stands for a number is read as one."""
    return _encoded(_checked(frame, schema, where, items, labels), schema, items)


def log_from_rows(schema: Schema, /, **columns: Sequence[Any]) -> Log:
    """The same of plain lists, one a column."""
    return log_from_frame(pl.DataFrame(columns, strict=False), schema)


def items_from_frame(frame: pl.DataFrame, schema: Schema, where: str = "items") -> Table:
    """New items and their fields, one row an item: what is known of them before anybody clicked."""
    fields = (Field(schema.item, "item"), *schema.of("item"))
    require_columns(frame.columns, [field.name for field in fields], where)
    checked = frame.select(column(frame, field, where) for field in fields)
    return _table(checked, schema.item, schema.of("item"), where)


def _paths(source: Source) -> list[Path]:
    patterns = [source] if isinstance(source, (str, Path)) else list(source)
    paths = [Path(path) for pattern in patterns for path in sorted(glob.glob(str(pattern)))]  # noqa: PTH207
    if not paths:
        raise DataError(
            f"{', '.join(map(str, patterns))}: no such file; give a CSV or parquet file, or a pattern that matches some"
        )
    return paths


def _checked(frame: pl.DataFrame, schema: Schema, where: str, items: bool, labels: bool) -> pl.DataFrame:
    """The schema's columns, as text, lists of text and numbers; raises DataError for values that cannot be so."""
    fields = [field for field in schema.nodes if items or field.role != "item" or field.name == schema.item]
    require_columns(
        frame.columns, [*(field.name for field in fields), *([schema.label, schema.time] if labels else [])], where
    )
    if not len(frame):
        raise DataError(f"{where}: has no rows; give at least one event")
    columns = [column(frame, field, where) for field in fields]
    columns += [click_labels(frame, schema, where), moments(frame[schema.time], where)] if labels else []
    return frame.select(columns)


def _encoded(frame: pl.DataFrame, schema: Schema, items: bool, rows: NDArray[np.int64] | None = None) -> Log:
    """`rows`: where each row of the frame stood in the source; by default, where it stands here."""
    item_fields, user_fields = schema.of("item") if items else (), schema.of("user")
    count = len(frame)
    rows = np.arange(count) if rows is None else rows
    item_table = _table(_properties(frame, schema.item, item_fields, rows), schema.item, item_fields, "items")
    user_table = _table(_properties(frame, schema.user, user_fields, rows), schema.user, user_fields, "users")
    labels, times = (
        frame.get_column(name, default=pl.Series(name, [0] * count)) for name in (schema.label, schema.time)
    )
    return Log(
        schema,
        item_table,
        user_table,
        {field.name: encoded(frame[field.name], field) for field in schema.of("context")},
        item=_indices(frame[schema.item], item_table.ids),
        user=_indices(frame[schema.user], user_table.ids),
        label=labels.cast(pl.Float32).to_numpy(),
        time=times.cast(pl.Int64).to_numpy(),
        row=rows,
    )


def _properties(frame: pl.DataFrame, owner: str, fields: Sequence[Field], rows: NDArray[np.int64]) -> pl.DataFrame:
    """One row for every owner; raises DataError where two rows of the same one differ."""
    names = [owner, *(field.name for field in fields)]
    located = frame.select(*names, pl.Series("row ", rows))
    distinct = located.unique(names, keep="first", maintain_order=True)
    twice = distinct.filter(pl.col(owner).is_duplicated())
    if len(twice):
        one = twice[0]
        other = twice.filter(pl.col(owner) == one[owner][0])[1]
        field = next(name for name in names if not one[name].equals(other[name], null_equal=True))
        raise two_values(owner, one[owner][0], field, one["row "][0], other["row "][0])
    return distinct.select(names)


def two_values(owner: str, thing: str, field: str, row: int, other: int) -> DataError:
    """What to say of an item or user that shows two values of one field; rows count from 0."""
    return DataError(
        f"'{thing}' of column '{owner}' has two values of '{field}', in rows {row + 1} and {other + 1}; "
        f"make '{field}' a context field, or correct the rows"
    )


def _table(frame: pl.DataFrame, owner: str, fields: Sequence[Field], where: str) -> Table:
    frame = frame.sort(owner)
    if frame[owner].is_duplicated().any():
        raise DataError(
            f"{where}: '{frame.filter(pl.col(owner).is_duplicated())[owner][0]}' is there twice; give every id once"
        )
    return Table(tuple(frame[owner]), {field.name: encoded(frame[field.name], field) for field in fields})


def encoded(series: pl.Series, field: Field) -> Column:
    """A column as a log keeps it: names sorted, and indices into them."""
    if field.is_numeric:
        return Column((), series.to_numpy())
    if field.kind == "vector":
        return Column((), _vectors(series, field))
    flat = series.explode() if field.is_multi else series
    names = tuple(flat.drop_nulls().unique().sort())
    indices = _indices(flat, names)
    if not field.is_multi:
        return Column(names, indices)
    lengths = series.list.len().fill_null(0).to_numpy().astype(np.int64)
    padded = np.full((len(series), max(1, int(lengths.max(initial=0)))), -1, dtype=np.int32)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = indices[indices >= 0]
    return Column(names, padded)


def _vectors(series: pl.Series, field: Field) -> np.ndarray[Any, np.dtype[np.float32]]:
    sizes = series.list.len().drop_nulls().unique().sort()
    if len(sizes) > 1:
        raise DataError(
            f"column '{field.name}' has vectors of {sizes[0]} and of {sizes[1]} numbers; give all one length"
        )
    vectors = np.full((len(series), sizes[0] if len(sizes) else 0), np.nan, dtype=np.float32)
    if len(sizes):
        known = series.is_not_null().to_numpy()
        vectors[known] = series.filter(known).explode().to_numpy().reshape(-1, sizes[0])
    return vectors


def _indices(series: pl.Series, names: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int32]]:
    order = series.cast(pl.Enum(names)).to_physical().cast(pl.Int32).fill_null(-1)
    return order.to_numpy()
