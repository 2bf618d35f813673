"""Reading click logs: CSV and parquet files, or a table that is in memory already."""

import difflib
import glob
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.agreement import agreed, combinations, owned
from newcomer.data.canonical import BLANK
from newcomer.data.click_log import Column, Log, Table
from newcomer.data.io.column_parsing import MARK, ROW, column, plain
from newcomer.data.io.frames import frame_of
from newcomer.data.io.tables import read_tables, require_columns
from newcomer.data.io.timestamps import DATED, FRACTION, are_dates, times
from newcomer.data.labels import GRADE, Labels
from newcomer.data.labels import labels as click_labels
from newcomer.data.paths import find
from newcomer.data.schema import NOBODY, Field, Schema
from newcomer.errors import DataError, DataWarning
from newcomer.settings import Json

Source = str | Path | Sequence[str | Path]

Settled = Mapping[str, pl.DataFrame]
"""By the column of an id, those of whom rows disagree, with the values that count."""


def read_log(source: Source, schema: Schema, *, items: bool = True, labels: bool = True) -> Log:
    """The log in these files: a path, a pattern such as `clicks/*.parquet`, or several of either; CSV and parquet.

    `items=False`: the items' fields need not be there (a learner that knows the items does not ask again). `labels=False`:
    neither label nor time need be there (requests, whose answers nobody knows yet). With both it is a log to learn from: lines
    without any value are passed over, and so are files without rows among others. A column of a field that may be missing need not
    be in all of the files.

    Raises DataError, with file and row, for what cannot be read or is not what the schema says. DataWarning: see `agreement`.
    """
    tables = {path: table for path, table in read_tables(_paths(source)).items() if len(table)}
    anywhere = {name for table in tables.values() for name in table.columns} if items and labels else None
    frames, dated, before = [], {}, 0
    for path, table in tables.items():
        checked = _checked(table, schema, str(path), items, labels, anywhere)
        frames.append(checked.with_columns(pl.col(ROW) + before))
        before += len(table)
        if labels:
            dated[path] = are_dates(table[schema.time])
    if len(set(dated.values())) > 1:
        one, other = (next(path for path in dated if dated[path] == kind) for kind in (True, False))
        raise DataError(f"time '{schema.time}' has dates in {one} and numbers in {other}; write all of them in one way")
    rows = pl.concat(frames)
    if not len(rows):
        raise DataError(f"{next(iter(tables))}: has only empty rows; give at least one event")
    return _encoded(rows, schema, items)


def click_log(path: str | list[str], *, schema: dict[str, Json]) -> Log:
    """The log in these files, as a recipe names them; `schema` is a table as `Schema.from_json` reads it."""
    patterns = [path] if isinstance(path, str) else path
    found = [pattern if glob.glob(pattern) else find(pattern) or pattern for pattern in patterns]  # noqa: PTH207
    return read_log(found, Schema.from_json(schema))


def log_from_frame(
    frame: pl.DataFrame, schema: Schema, *, items: bool = True, labels: bool = True, where: str = "table"
) -> Log:
    """The same of a table in memory, called `where` in messages; text that stands for a number is read as one."""
    frame = frame_of(frame, where)
    rows = _checked(frame, schema, where, items, labels, set(frame.columns) if items and labels else None)
    if not len(rows):
        raise DataError(f"{where}: has only empty rows; give at least one event")
    return _encoded(rows, schema, items)


def log_from_rows(schema: Schema, /, **columns: Sequence[Any]) -> Log:
    """The same of plain lists, one a column."""
    return log_from_frame(frame_of(columns), schema)


def items_from_frame(frame: pl.DataFrame, schema: Schema, where: str = "items") -> Table:
    """New items and their fields, one row an item: what is known of them before anybody clicked."""
    fields = (Field(schema.item, "item"), *schema.of("item"))
    given = _with_optional(frame_of(frame, where), fields, where, None)
    require_columns(given.columns, [field.name for field in fields], where)
    given = _without_blanks(given, [field.name for field in fields])
    checked = given.select(_column(given, field, schema, where) for field in fields)
    return _table(checked, schema.item, schema.of("item"), where)


def _paths(source: Source) -> list[Path]:
    patterns = [source] if isinstance(source, (str, Path)) else list(source)
    paths = [Path(path) for pattern in patterns for path in sorted(glob.glob(str(pattern)))]  # noqa: PTH207
    if not paths:
        raise DataError(
            f"{', '.join(map(str, patterns))}: no such file; give a CSV or parquet file, or a pattern that matches some"
        )
    return paths


def _checked(
    frame: pl.DataFrame, schema: Schema, where: str, items: bool, labels: bool, anywhere: Collection[str] | None = None
) -> pl.DataFrame:
    """The schema's columns, as text, lists of text and numbers, and `ROW`; of labelled ones `FRACTION`, `DATED`, `GRADE`.

    `anywhere`: the columns of all files of the log; what may be missing must be among them. None: it may be in none.
    Raises DataError for values that cannot be so.
    """
    fields = [field for field in schema.nodes if items or field.role != "item" or field.name == schema.item]
    frame = _with_optional(frame, fields, where, anywhere)
    wanted = [*(field.name for field in fields), *([schema.label, schema.time] if labels else [])]
    require_columns(frame.columns, wanted, where)
    if not len(frame):
        raise DataError(f"{where}: has no rows; give at least one event")
    frame = _without_blanks(frame, wanted) if items and labels else frame.with_row_index(ROW)
    columns = [_column(frame, field, schema, where) for field in fields]
    if labels:
        clicks, grades = click_labels(frame, schema, where)
        columns += [clicks, *times(frame, schema.time, where, schema.time_order)]
        columns += [grades] if schema.clicked_from is not None else []
        columns += [
            pl.Series(DATED, [are_dates(plain(frame[schema.time], where, frame))]).new_from_index(0, len(frame))
        ]
    return pl.DataFrame([*columns, frame[ROW].cast(pl.Int64)])


def _column(frame: pl.DataFrame, field: Field, schema: Schema, where: str) -> pl.Series:
    advice = {schema.item: "leave the row out", schema.user: "set user_missing = 'mark' in the schema"}
    found = column(frame, field, where, schema.missing_values, advice.get(field.name, MARK))
    return found.fill_null(NOBODY) if field.name == schema.user else found


def _with_optional(
    frame: pl.DataFrame, fields: Sequence[Field], where: str, anywhere: Collection[str] | None
) -> pl.DataFrame:
    """With empty columns for fields that may be missing."""
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
    """Without rows that hold none of the wanted columns, such as blank lines; `ROW` says where the others stood."""
    empty = [
        pl.col(name).is_null() | (pl.col(name).str.strip_chars(BLANK) == "")
        if frame[name].dtype == pl.String
        else pl.col(name).is_null()
        for name in wanted
    ]
    return frame.with_row_index(ROW).filter(~pl.all_horizontal(empty))


def _encoded(
    frame: pl.DataFrame, schema: Schema, items: bool, settled: Settled | None = None, in_all: int | None = None
) -> Log:
    """`settled`: values that count for items and users whose rows disagree; `in_all`: rows of the log of which these are some."""
    learning = items and schema.label in frame.columns
    for name in (schema.label, schema.time, FRACTION):
        if name not in frame.columns:
            frame = frame.with_columns(pl.lit(0, dtype=pl.Int64).alias(name))
    item_fields = schema.of("item") if items else ()
    agree = _Agreement(schema, settled or {}, in_all, learning)
    item_table, item = agree.owners(frame, schema.item, item_fields)
    user_table, user = agree.owners(frame, schema.user, schema.of("user"))
    left = frame[FRACTION].cast(pl.Float64)
    return Log(
        schema,
        item_table,
        user_table,
        {field.name: encoded(frame[field.name], field) for field in schema.of("context")},
        item=item,
        user=user,
        label=frame[schema.label].cast(pl.Float32).to_numpy(),
        time=frame[schema.time].cast(pl.Int64).to_numpy(),
        row=frame[ROW].to_numpy().copy(),
        fraction=left.to_numpy() if (left != 0).any() else None,
        labels=Labels.of(frame[GRADE]) if GRADE in frame.columns else None,
        dated=DATED in frame.columns and bool(frame[DATED].any()),
    )


@dataclass(frozen=True)
class _Agreement:
    """How the rows of one item or user become one: by agreement in a log to learn from, each for itself in service."""

    schema: Schema
    settled: Settled
    in_all: int | None
    learning: bool

    def owners(self, frame: pl.DataFrame, owner: str, fields: Sequence[Field]) -> tuple[Table, NDArray[np.int32]]:
        """The table of these owners, and which of them each row is about."""
        if not self.learning and owner == self.schema.user:
            table, place = owned(frame, owner, fields)
            return _table(table, owner, fields, "users", repeated=True), place
        names = [owner, *(field.name for field in fields)]
        distinct = frame.select(names).unique(maintain_order=True)
        if distinct[owner].is_duplicated().any() or owner in self.settled:
            distinct = self._once(frame, distinct, owner, fields)
        table = distinct.sort(owner, maintain_order=True)
        nobody = int((table[owner] == NOBODY).sum())
        place = _indices(frame[owner], table[owner].unique(maintain_order=True)) + max(nobody - 1, 0)
        if nobody > 1:
            rows = (frame[owner] == NOBODY).arg_true()
            kept, of_rows = owned(frame[rows], owner, fields)
            table = pl.concat([kept, table.filter(pl.col(owner) != NOBODY)])
            place[rows.to_numpy()] = of_rows
        return _table(table, owner, fields, "rows", repeated=owner == self.schema.user), place

    def _once(self, frame: pl.DataFrame, distinct: pl.DataFrame, owner: str, fields: Sequence[Field]) -> pl.DataFrame:
        twice = distinct.filter(pl.col(owner).is_duplicated() & (pl.col(owner) != NOBODY))[owner].unique()
        if len(twice):
            rows = frame.filter(pl.col(owner).is_in(twice.implode()))
            found = combinations(rows, owner, fields, self.schema.time, ROW)
            in_all = len(frame) if self.in_all is None else self.in_all
            once = agreed(found, owner, fields, in_all, self.schema.disagreeing, say=self.in_all is None)
            distinct = pl.concat([distinct.filter(~pl.col(owner).is_in(twice.implode())), once])
        if owner not in self.settled:
            return distinct
        theirs = self.settled[owner].join(distinct.select(owner), on=owner, how="semi")
        return pl.concat([distinct.join(theirs, on=owner, how="anti"), theirs.select(distinct.columns)])


def _table(frame: pl.DataFrame, owner: str, fields: Sequence[Field], where: str, repeated: bool = False) -> Table:
    """`repeated`: an id may be there more than once."""
    frame = frame.sort(owner, maintain_order=True)
    if not repeated and frame[owner].is_duplicated().any():
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


def _indices(series: pl.Series, names: Sequence[str] | pl.Series) -> np.ndarray[Any, np.dtype[np.int32]]:
    order = series.cast(pl.Enum(names)).to_physical().cast(pl.Int32).fill_null(-1)
    return order.to_numpy()
