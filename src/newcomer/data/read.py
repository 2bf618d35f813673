"""Reading click logs: CSV and parquet files, or a table that is in memory already."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from newcomer.data.log import Column, Log, Table
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
    frames = [_checked(read_table(path), schema, str(path), items, labels) for path in _paths(source)]
    return _encoded(pl.concat(frames), schema, items)


def click_log(path: str | list[str], *, schema: dict[str, Json]) -> Log:
    """The log in these files, as a recipe names them; `schema` is a table as `Schema.from_json` reads it."""
    patterns = [path] if isinstance(path, str) else path
    found = [pattern if glob.glob(pattern) else find(pattern) or pattern for pattern in patterns]  # noqa: PTH207
    return read_log(found, Schema.from_json(schema))


def log_from_frame(frame: pl.DataFrame, schema: Schema, *, items: bool = True, labels: bool = True) -> Log:
    """The same of a table in memory; text that stands for a number is read as one."""
    return _encoded(_checked(frame, schema, "table", items, labels), schema, items)


def log_from_rows(schema: Schema, /, **columns: Sequence[Any]) -> Log:
    """The same of plain lists, one a column."""
    return log_from_frame(pl.DataFrame(columns, strict=False), schema)


def items_from_frame(frame: pl.DataFrame, schema: Schema, where: str = "items") -> Table:
    """New items and their fields, one row an item: what is known of them before anybody clicked."""
    fields = (Field(schema.item, "item"), *schema.of("item"))
    require_columns(frame.columns, [field.name for field in fields], where)
    checked = frame.select(_column(frame, field, where) for field in fields)
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
    columns = [_column(frame, field, where) for field in fields]
    columns += [_label(frame, schema.label, where), _time(frame, schema.time, where)] if labels else []
    return frame.select(columns)


def _column(frame: pl.DataFrame, field: Field, where: str) -> pl.Series:
    given = frame[field.name]
    if field.is_numeric:
        return _numbers(given, where, needed=field.missing == "error")
    column = given if given.dtype == pl.List else given.cast(pl.String)
    if field.missing == "error" and column.null_count():
        row = int(column.is_null().arg_true()[0])
        raise DataError(
            f"{where}: row {row + 1}, column '{field.name}' is empty; fill it, or set missing = 'mark' in the schema"
        )
    if field.kind == "text":
        return column.str.to_lowercase().str.extract_all(r"[\p{L}\p{N}][\p{L}\p{N}']*").list.unique(maintain_order=True)
    if field.kind == "multi":
        parts = (
            column.list.eval(pl.element().cast(pl.String))
            if column.dtype == pl.List
            else column.str.split(field.separator)
        )
        return parts.list.eval(pl.element().filter(pl.element() != "")).list.unique(maintain_order=True)
    return column


def _numbers(given: pl.Series, where: str, needed: bool) -> pl.Series:
    numbers = given.cast(pl.Float64, strict=False)
    wrong = numbers.is_null() & given.is_not_null() & (given.cast(pl.String) != "")
    if wrong.any():
        row = int(wrong.arg_true()[0])
        raise DataError(f"{where}: row {row + 1}, column '{given.name}': '{given[row]}' is not a number")
    numbers = numbers.fill_null(float("nan"))
    unusable = ~numbers.is_finite() if needed else numbers.is_infinite()
    if unusable.any():
        row = int(unusable.arg_true()[0])
        found = numbers[row]
        raise DataError(
            f"{where}: row {row + 1}, column '{given.name}' is {found}; fill it, or set missing = 'mark' in the schema"
        )
    return numbers


def _label(frame: pl.DataFrame, name: str, where: str) -> pl.Series:
    labels = frame[name].cast(pl.Float32, strict=False)
    wrong = ~labels.is_in([0.0, 1.0]).fill_null(False)
    if wrong.any():
        row = int(wrong.arg_true()[0])
        raise DataError(
            f"{where}: row {row + 1}, label '{name}' is {frame[name][row]!r}; write 1 for a click and 0 for none"
        )
    return labels


def _time(frame: pl.DataFrame, name: str, where: str) -> pl.Series:
    given = frame[name]
    times = given.cast(pl.Int64, strict=False)
    if times.null_count():
        row = int(times.is_null().arg_true()[0])
        raise DataError(
            f"{where}: row {row + 1}, time '{name}' is {given[row]!r}; write a whole number that grows, such as seconds"
        )
    return times


def _encoded(frame: pl.DataFrame, schema: Schema, items: bool) -> Log:
    item_fields = schema.of("item") if items else ()
    item_table = _table(_properties(frame, schema.item, item_fields), schema.item, item_fields, "items")
    user_table = _table(_properties(frame, schema.user, schema.of("user")), schema.user, schema.of("user"), "users")
    count = len(frame)
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
        row=np.arange(count),
    )


def _properties(frame: pl.DataFrame, owner: str, fields: Sequence[Field]) -> pl.DataFrame:
    """One row for every owner; raises DataError where two rows of the same one differ."""
    names = [owner, *(field.name for field in fields)]
    distinct = frame.select(names).with_row_index("row ").unique(names, keep="first", maintain_order=True)
    twice = distinct.filter(pl.col(owner).is_duplicated())
    if len(twice):
        one = twice[0]
        other = twice.filter(pl.col(owner) == one[owner][0])[1]
        field = next(name for name in names if not one[name].equals(other[name], null_equal=True))
        raise DataError(
            f"'{one[owner][0]}' of column '{owner}' has two values of '{field}', in rows {one['row '][0] + 1} and "
            f"{other['row '][0] + 1}; make '{field}' a context field, or correct the rows"
        )
    return distinct.select(names)


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
    flat = series.explode() if field.is_multi else series
    names = tuple(flat.drop_nulls().unique().sort())
    indices = _indices(flat, names)
    if not field.is_multi:
        return Column(names, indices)
    lengths = series.list.len().fill_null(0).to_numpy().astype(np.int64)
    padded = np.full((len(series), max(1, int(lengths.max(initial=0)))), -1, dtype=np.int32)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = indices[indices >= 0]
    return Column(names, padded)


def _indices(series: pl.Series, names: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int32]]:
    order = series.cast(pl.Enum(names)).to_physical().cast(pl.Int32).fill_null(-1)
    return order.to_numpy()
