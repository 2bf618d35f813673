"""Readers of click logs: files, and tables in memory."""

import difflib
import glob
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.canonical import BLANK
from newcomer.data.click_log import ClickLog, Column, EntityTable
from newcomer.data.io.column_parsing import MARK, ROW, parse_column, scalar_values
from newcomer.data.io.frames import as_frame
from newcomer.data.io.log_files import Source, matching_files
from newcomer.data.io.tables import read_tables, require_columns
from newcomer.data.io.timestamps import DATED, FRACTION, are_dates, parse_time_column
from newcomer.data.labels import ORIGINAL_LABEL, LabelStatistics, parse_labels
from newcomer.data.paths import find_path
from newcomer.data.schema import NOBODY, Field, Schema
from newcomer.data.value_conflicts import count_combinations, distinct_entities, resolve_conflicts
from newcomer.data.weights import parse_weights
from newcomer.errors import DataError, DataWarning
from newcomer.settings import Json

ORIGINAL_ID = "spelled "
"""Column: an id as it was written."""

ResolvedValues = Mapping[str, pl.DataFrame]
"""Resolved field values of entities whose rows disagree, by id column."""


def read_log(source: Source, schema: Schema, *, items: bool = True, labels: bool = True) -> ClickLog:
    """Read a log from a path, a folder, a pattern such as `clicks/**/*.parquet`, a URL, or several of these.

    Formats: see `formats`; folders such as `date=2024-01-01` are columns.

    `items=False`: item fields are not read (for learners that know the items). `labels=False`: label and time are not read
    (requests). With both it is a training log: blank rows, and files without rows among others, are skipped, and the column of an
    optional field must be in at least one file.

    Raises DataError, with file and row, for unreadable or invalid values. DataWarning: see `value_conflicts`.
    """
    tables = {path: table for path, table in read_tables(matching_files(source)).items() if len(table)}
    anywhere = {name for table in tables.values() for name in table.columns} if items and labels else None
    frames, dated, before = [], {}, 0
    for path, table in tables.items():
        checked = checked_columns(table, schema, str(path), items, labels, anywhere)
        frames.append(checked.with_columns(pl.col(ROW) + before))
        before += len(table)
        if labels:
            dated[path] = are_dates(table[schema.time])
    if len(set(dated.values())) > 1:
        one, other = (next(path for path in dated if dated[path] == kind) for kind in (True, False))
        raise DataError(f"time '{schema.time}' has dates in {one} and numbers in {other}; use one format in all files")
    rows = pl.concat(frames)
    if not len(rows):
        raise DataError(f"{next(iter(tables))}: has only empty rows; give at least one event")
    return encode_log(rows, schema, items)


def click_log(path: str | list[str], *, schema: dict[str, Json]) -> ClickLog:
    """Data source "click-log" of recipes; `schema` is a table as `Schema.from_json` reads it."""
    patterns = [path] if isinstance(path, str) else path
    found = [pattern if glob.glob(pattern, recursive=True) else find_path(pattern) or pattern for pattern in patterns]  # noqa: PTH207
    return read_log(found, Schema.from_json(schema))


def log_from_frame(
    frame: pl.DataFrame, schema: Schema, *, items: bool = True, labels: bool = True, where: str = "table"
) -> ClickLog:
    """Like `read_log`, for a table in memory that error messages call `where`; numbers may be text."""
    frame = as_frame(frame, where)
    rows = checked_columns(frame, schema, where, items, labels, set(frame.columns) if items and labels else None)
    if not len(rows):
        raise DataError(f"{where}: has only empty rows; give at least one event")
    return encode_log(rows, schema, items)


def log_from_rows(schema: Schema, /, **columns: Sequence[Any]) -> ClickLog:
    """Like `log_from_frame`, with one list per column."""
    return log_from_frame(as_frame(columns), schema)


def items_from_frame(frame: pl.DataFrame, schema: Schema, where: str = "items") -> EntityTable:
    """Table of new items: ids and item fields, one row per item. Equal rows count once.

    Raises DataError for an item whose rows differ.
    """
    table, conflicts = items_and_conflicts(frame, schema, where)
    if conflicts:
        raise conflicts[0]
    return table


def items_and_conflicts(frame: pl.DataFrame, schema: Schema, where: str) -> tuple[EntityTable, list[DataError]]:
    """Like `items_from_frame`, without the items whose rows differ, and an error for each of these."""
    fields = (Field(schema.item, "item"), *schema.of("item"))
    given = _with_optional(as_frame(frame, where), fields, where, None)
    require_columns(given.columns, [field.name for field in fields], where)
    given = _without_blanks(given, [field.name for field in fields])
    checked = given.select(_column(given, field, schema, where) for field in fields)
    original = scalar_values(given, schema.item, where).cast(pl.String).alias(ORIGINAL_ID)
    distinct = checked.with_columns(original).unique(maintain_order=True).drop(ORIGINAL_ID)
    repeated = distinct[schema.item].is_duplicated()
    conflicts = [
        DataError(f"{where}: item '{name}' occurs twice with different values or spellings; give every id once")
        for name in distinct.filter(repeated)[schema.item].unique(maintain_order=True)
    ]
    return entity_table(distinct.filter(~repeated), schema.item, schema.of("item"), where), conflicts


def checked_columns(
    frame: pl.DataFrame, schema: Schema, where: str, items: bool, labels: bool, anywhere: Collection[str] | None = None
) -> pl.DataFrame:
    """Columns of the schema as text, lists of text and numbers, and `ROW`; with labels also `FRACTION`, `DATED`, `ORIGINAL_LABEL`
    and weights.

    `anywhere`: names of columns in any file of the log, among which optional fields must be; None: they need not exist. Raises
    DataError for invalid values.
    """
    fields = [field for field in schema.nodes if items or field.role != "item" or field.name == schema.item]
    if not labels and len(frame):
        frame = frame.with_columns(pl.lit(value).alias(name) for name, value in schema.at_serving.items())
    frame = _with_optional(frame, fields, where, anywhere)
    wanted = [*(field.name for field in fields), *(schema.event_columns if labels else ())]
    require_columns(frame.columns, wanted, where)
    if not len(frame):
        raise DataError(f"{where}: has no rows; give at least one event")
    frame = _without_blanks(frame, wanted) if items and labels else frame.select(wanted).with_row_index(ROW)
    columns = [_column(frame, field, schema, where) for field in fields]
    if labels:
        clicks, grades = parse_labels(frame, schema, where)
        columns += [clicks, *parse_time_column(frame, schema.time, where, schema.time_order)]
        columns += [grades] if schema.clicked_from is not None else []
        columns += [parse_weights(frame, schema, where)] if schema.weight is not None else []
        columns += [
            pl.Series(DATED, [are_dates(scalar_values(frame, schema.time, where, "time"))]).new_from_index(
                0, len(frame)
            )
        ]
    return pl.DataFrame([*columns, frame[ROW].cast(pl.Int64)])


def _column(frame: pl.DataFrame, field: Field, schema: Schema, where: str) -> pl.Series:
    advice = {schema.item: "leave the row out", schema.user: "set user_missing = 'mark' in the schema"}
    found = parse_column(frame, field, where, schema.missing_values, advice.get(field.name, MARK))
    return found.fill_null(NOBODY) if field.name == schema.user else found


def _with_optional(
    frame: pl.DataFrame, fields: Sequence[Field], where: str, anywhere: Collection[str] | None
) -> pl.DataFrame:
    """Add empty columns for optional fields."""
    absent = [field.name for field in fields if field.missing == "mark" and field.name not in frame.columns]
    if not absent:
        return frame
    if anywhere is not None:
        require_columns(anywhere, absent, where)
    spare = [name for name in frame.columns if name not in {field.name for field in fields}]
    for name in absent if anywhere is None else ():
        alike = [other for other in spare if other.casefold() == name.casefold()]
        if close := alike or difflib.get_close_matches(name, spare, n=1, cutoff=0.8):
            warnings.warn(
                f"{where}: no column '{name}', which is read as missing; did you mean '{close[0]}'?",
                DataWarning,
                stacklevel=3,
            )
    return frame.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in absent)


def _without_blanks(frame: pl.DataFrame, wanted: Sequence[str]) -> pl.DataFrame:
    """The wanted columns, without rows in which all of them are blank; `ROW` keeps the original row numbers."""
    empty = [
        pl.col(name).is_null() | (pl.col(name).str.strip_chars(BLANK) == "")
        if frame[name].dtype == pl.String
        else pl.col(name).is_null()
        for name in wanted
    ]
    return frame.select(wanted).with_row_index(ROW).filter(~pl.all_horizontal(empty))


def encode_log(
    frame: pl.DataFrame, schema: Schema, items: bool, resolved: ResolvedValues | None = None, in_all: int | None = None
) -> ClickLog:
    """Encode checked columns as a log. `resolved`: values of entities whose rows disagree; `in_all`: number of rows of the whole
    log."""
    learning = items and schema.label in frame.columns
    for name in (schema.label, schema.time, FRACTION):
        if name not in frame.columns:
            frame = frame.with_columns(pl.lit(0, dtype=pl.Int64).alias(name))
    item_fields = schema.of("item") if items else ()
    tables = _EntityTables(schema, resolved or {}, in_all, learning)
    item_table, item = tables.entities(frame, schema.item, item_fields)
    user_table, user = tables.entities(frame, schema.user, schema.of("user"))
    left = frame[FRACTION].cast(pl.Float64)
    return ClickLog(
        schema,
        item_table,
        user_table,
        {field.name: encode_column(frame[field.name], field) for field in schema.of("context")},
        item=item,
        user=user,
        label=frame[schema.label].cast(pl.Float32).to_numpy(),
        time=frame[schema.time].cast(pl.Int64).to_numpy(),
        row=frame[ROW].to_numpy().copy(),
        fraction=left.to_numpy() if (left != 0).any() else None,
        labels=LabelStatistics.of(frame[ORIGINAL_LABEL]) if ORIGINAL_LABEL in frame.columns else None,
        has_dates=DATED in frame.columns and bool(frame[DATED].any()),
        weight=frame[schema.weight].to_numpy().copy() if schema.weight in frame.columns else None,
    )


@dataclass(frozen=True)
class _EntityTables:
    """Tables of items and users: conflicts are resolved in training logs; in service, users keep one row per distinct
    combination."""

    schema: Schema
    resolved: ResolvedValues
    in_all: int | None
    learning: bool

    def entities(
        self, frame: pl.DataFrame, id_column: str, fields: Sequence[Field]
    ) -> tuple[EntityTable, NDArray[np.int32]]:
        """Entity table of an id column, and the index of each row's entity in it."""
        if not self.learning and id_column == self.schema.user:
            table, index = distinct_entities(frame, id_column, fields)
            return entity_table(table, id_column, fields, "users", repeated=True), index
        names = [id_column, *(field.name for field in fields)]
        distinct = frame.select(names).unique(maintain_order=True)
        if distinct[id_column].is_duplicated().any() or id_column in self.resolved:
            distinct = self._resolve(frame, distinct, id_column, fields)
        table = distinct.sort(id_column, maintain_order=True)
        unknown = int((table[id_column] == NOBODY).sum())
        index = _indices(frame[id_column], table[id_column].unique(maintain_order=True)) + max(unknown - 1, 0)
        if unknown > 1:
            rows = (frame[id_column] == NOBODY).arg_true()
            kept, of_rows = distinct_entities(frame[rows], id_column, fields)
            table = pl.concat([kept, table.filter(pl.col(id_column) != NOBODY)])
            index[rows.to_numpy()] = of_rows
        return entity_table(table, id_column, fields, "rows", repeated=id_column == self.schema.user), index

    def _resolve(
        self, frame: pl.DataFrame, distinct: pl.DataFrame, id_column: str, fields: Sequence[Field]
    ) -> pl.DataFrame:
        repeated_ids = distinct.filter(pl.col(id_column).is_duplicated() & (pl.col(id_column) != NOBODY))[
            id_column
        ].unique()
        if len(repeated_ids):
            rows = frame.filter(pl.col(id_column).is_in(repeated_ids.implode()))
            found = count_combinations(rows, id_column, fields, self.schema.time, ROW)
            in_all = len(frame) if self.in_all is None else self.in_all
            once = resolve_conflicts(
                found, id_column, fields, in_all, self.schema.max_conflict_share, warn=self.in_all is None
            )
            distinct = pl.concat([distinct.filter(~pl.col(id_column).is_in(repeated_ids.implode())), once])
        if id_column not in self.resolved:
            return distinct
        known = self.resolved[id_column].join(distinct.select(id_column), on=id_column, how="semi")
        return pl.concat([distinct.join(known, on=id_column, how="anti"), known.select(distinct.columns)])


def entity_table(
    frame: pl.DataFrame, id_column: str, fields: Sequence[Field], where: str, repeated: bool = False
) -> EntityTable:
    """Encode an entity table, sorted by id. `repeated`: ids need not be unique."""
    frame = frame.sort(id_column, maintain_order=True)
    if not repeated and frame[id_column].is_duplicated().any():
        raise DataError(
            f"{where}: '{frame.filter(pl.col(id_column).is_duplicated())[id_column][0]}' occurs twice; give every id once"
        )
    return EntityTable(
        tuple(frame[id_column]), {field.name: encode_column(frame[field.name], field) for field in fields}
    )


def encode_column(series: pl.Series, field: Field) -> Column:
    """Encode a column: sorted names and indices into them, or numbers."""
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


def _indices(series: pl.Series, names: Sequence[str] | pl.Series) -> np.ndarray[Any, np.dtype[np.int32]]:
    order = series.cast(pl.Enum(names)).to_physical().cast(pl.Int32).fill_null(-1)
    return order.to_numpy()
