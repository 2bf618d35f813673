"""Conflict resolution for fields of items and users: one value per entity where a few rows of a log disagree.

An item field should have the same value in all rows of the item. If a small share of rows disagrees, the value of the latest event
is used for all rows and a warning gives their number; a larger share is an error.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.io.timestamps import FRACTION
from newcomer.data.schema import Field
from newcomer.errors import DataError, DataWarning

COUNT, TIME, FIRST, LATEST = "count ", "time ", "first ", "latest "
"""Columns that `count_combinations` adds: number of rows, latest time, indices of the first and of the latest row."""

CURRENT = "kept "
"""Column with the value that a field has after resolution."""

INDEX = "at "
"""Column with the index of a combination in the order of time."""


def count_combinations(
    frame: pl.DataFrame, id_column: str, fields: Sequence[Field], time: str, row: str
) -> pl.DataFrame:
    """Distinct combinations of an id and the values of its fields, with their number of rows and latest occurrence.

    Rows are ordered by the columns `time`, `FRACTION` and `row` of the frame.
    """
    names = [id_column, *(field.name for field in fields)]
    by_time = frame.select(*names, pl.col(time).alias(TIME), FRACTION, pl.col(row).alias(LATEST)).sort(
        TIME, FRACTION, LATEST
    )
    return by_time.group_by(names, maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias(COUNT),
        pl.col(TIME).last(),
        pl.col(FRACTION).last(),
        pl.col(LATEST).min().alias(FIRST),
        pl.col(LATEST).last(),
    )


def merge_combinations(parts: Sequence[pl.DataFrame], id_column: str, fields: Sequence[Field]) -> pl.DataFrame:
    """Union of several results of `count_combinations`, each combination once."""
    names = [id_column, *(field.name for field in fields)]
    by_time = pl.concat(parts).sort(TIME, FRACTION, LATEST)
    return by_time.group_by(names, maintain_order=True).agg(
        pl.col(COUNT).sum(), pl.col(TIME).last(), pl.col(FRACTION).last(), pl.col(FIRST).min(), pl.col(LATEST).last()
    )


def resolve_conflicts(
    combinations: pl.DataFrame, id_column: str, fields: Sequence[Field], rows: int, share: float, *, warn: bool = True
) -> pl.DataFrame:
    """Each id once, with the latest known value of each field; warns about the rows that disagree.

    `combinations`: result of `count_combinations` over `rows` rows. Rows with the empty id are not one entity: they are kept as
    they are.

    Raises DataError if, for some field, more than `share` of all rows differ from the most frequent value of their entity.
    """
    names = [id_column, *(field.name for field in fields)]
    repeated = combinations.filter(pl.col(id_column).is_duplicated() & (pl.col(id_column) != ""))
    if not len(repeated):
        return combinations.select(names)
    resolved = _latest(repeated, id_column, fields)
    for field in fields:
        observed = _values(repeated, resolved, id_column, field)
        _require_few_conflicts(observed, id_column, field.name, share * rows)
        if warn:
            _warn(observed, id_column, field.name, rows)
    kept = combinations.select(names).join(repeated.select(id_column).unique(), on=id_column, how="anti")
    return pl.concat([kept, resolved.select(names)])


def too_many_conflicts(
    combinations: pl.DataFrame, id_column: str, fields: Sequence[Field], rows: int, share: float
) -> bool:
    """Whether the number of combinations alone proves that some field disagrees in more than `share` of all rows."""
    extra = len(combinations) - combinations[id_column].n_unique() - int((combinations[id_column] == "").sum())
    return extra > max(1, len(fields)) * share * rows


def conflict_error(id_column: str, entity: str, field: str, row: int, other: int) -> DataError:
    """Error for an entity with two values of one field; rows count from 0."""
    return DataError(
        f"'{entity}' of column '{id_column}' has two values of '{field}', in rows {row + 1} and {other + 1}; "
        f"make '{field}' a context field, or correct the rows"
    )


def distinct_entities(
    frame: pl.DataFrame, id_column: str, fields: Sequence[Field]
) -> tuple[pl.DataFrame, NDArray[np.int32]]:
    """Distinct combinations of an id and its fields, sorted by id, and the index of each row's combination."""
    names = [id_column, *(field.name for field in fields)]
    groups = frame.select(names).with_row_index("row ").group_by(names, maintain_order=True).agg("row ")
    groups = groups.sort(id_column, maintain_order=True)
    indices = np.empty(len(frame), dtype=np.int32)
    numbers = np.repeat(np.arange(len(groups), dtype=np.int32), groups["row "].list.len().to_numpy())
    indices[groups["row "].explode().to_numpy()] = numbers
    return groups.select(names), indices


def _values(repeated: pl.DataFrame, resolved: pl.DataFrame, id_column: str, field: Field) -> pl.DataFrame:
    """Values of this field per entity (lists sorted), with the resolved value as `CURRENT`.

    If the field may be missing, rows without a value that precede one with a value are left out.
    """
    current = resolved.select(id_column, pl.col(field.name).alias(CURRENT))
    observed = repeated.sort(TIME, FRACTION, LATEST).join(current, on=id_column, maintain_order="left")
    if field.is_multi:
        observed = observed.with_columns(pl.col(field.name, CURRENT).list.sort())
    if field.missing != "mark":
        return observed
    last = pl.when(_is_known(field)).then(INDEX).max().over(id_column)
    return observed.with_row_index(INDEX).filter(_is_known(field) | (pl.col(INDEX) > last).fill_null(True)).drop(INDEX)


def _require_few_conflicts(observed: pl.DataFrame, id_column: str, field: str, limit: float) -> None:
    """Raises DataError if more than `limit` rows differ from the most frequent value of their entity."""
    counted = observed.group_by(id_column, field).agg(pl.col(COUNT).sum(), pl.col(FIRST).min())
    each = counted.group_by(id_column).agg(pl.col(COUNT).sum() - pl.col(COUNT).max(), pl.len().alias(FIRST))
    if int(each[COUNT].sum()) <= limit:
        return
    wrong = counted.join(each.filter(pl.col(FIRST) > 1).select(id_column), on=id_column, how="semi").sort(FIRST)
    entity = wrong[id_column][0]
    one, other = wrong.filter(pl.col(id_column) == entity)[FIRST][:2]
    raise conflict_error(id_column, entity, field, one, other)


def _latest(repeated: pl.DataFrame, id_column: str, fields: Sequence[Field]) -> pl.DataFrame:
    by_time = repeated.sort(TIME, FRACTION, LATEST)
    return (
        by_time.group_by(id_column, maintain_order=True)
        .agg(
            pl.col(field.name).filter(_is_known(field)).last() if field.missing == "mark" else pl.col(field.name).last()
            for field in fields
        )
        .with_columns(_nan_if_missing(field) for field in fields)
    )


def _is_known(field: Field) -> pl.Expr:
    if field.is_numeric:
        return pl.col(field.name).is_not_nan()
    known = pl.col(field.name).is_not_null()
    return known & (pl.col(field.name).list.len() > 0) if field.is_multi else known


def _nan_if_missing(field: Field) -> pl.Expr:
    return pl.col(field.name).fill_null(float("nan")) if field.is_numeric else pl.col(field.name)


def _warn(observed: pl.DataFrame, id_column: str, field: str, rows: int) -> None:
    differ = observed.filter(pl.col(field).ne_missing(pl.col(CURRENT)))
    if not len(differ):
        return
    one = differ.sort(FIRST).row(0, named=True)
    count, entities = int(differ[COUNT].sum()), differ[id_column].n_unique()
    warnings.warn(
        f"column '{field}': {count:,} of {rows:,} rows show another value than the latest of the same '{id_column}', which counts; "
        f"{entities:,} {'has' if entities == 1 else 'have'} such rows, like '{one[id_column]}' in row {one[FIRST] + 1}: "
        f"{_quoted(one[field])}, where {_quoted(one[CURRENT])} counts",
        DataWarning,
        stacklevel=2,
    )


def _quoted(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
