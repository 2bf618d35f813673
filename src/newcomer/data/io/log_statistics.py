"""Statistics of a click log needed before training (entities, value counts, moments, clicks), in one pass over its chunks."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.canonical import canonical_names
from newcomer.data.click_log import ClickLog, Column, EntityTable
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.column_parsing import ROW
from newcomer.data.io.log_reader import entity_table
from newcomer.data.io.timestamps import FRACTION
from newcomer.data.labels import LabelStatistics, require_both_classes
from newcomer.data.placeholders import placeholder_ids
from newcomer.data.running_stats import RunningStats
from newcomer.data.schema import NOBODY, Field, Schema
from newcomer.data.time_units import TimeStatistics
from newcomer.data.value_conflicts import (
    COUNT,
    FIRST,
    LATEST,
    TIME,
    count_combinations,
    merge_combinations,
    resolve_conflicts,
    too_many_conflicts,
)
from newcomer.errors import DataError, DataWarning, nearest

NAME, COUNTS = "name", "count"
EVENTS, CLICKS, WEIGHTS = "events ", "clicks ", "weights "
"""Added columns; their names end in a blank, which names in a schema should not."""

SUMMARY_DTYPES = {COUNT: pl.Int64(), TIME: pl.Int64(), FRACTION: pl.Float64(), FIRST: pl.Int64(), LATEST: pl.Int64()}


class LogStatistics:
    """Entities with their fields, counts of context values, moments of numeric fields, and counts of events and clicks.

    Memory grows with the number of entities and distinct values, not of events.

    >>> from newcomer.data.io.log_reader import log_from_rows
    >>> log = log_from_rows(Schema("film", "viewer"), film=["b", "a"], viewer=[7, 8], label=[0, 1], time=[1, 2])
    >>> statistics = LogStatistics(log.schema).add(log.take(np.array([0]))).add(log.take(np.array([1])))
    >>> statistics.items.ids, statistics.events.tolist(), statistics.clicks.tolist(), statistics.rows, statistics.last
    (('a', 'b'), [1, 1], [1, 0], 2, 2)
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.context = {field.name: _empty_statistics(field) for field in schema.of("context")}
        """Per context field: moments of numbers, or counts of values."""
        self.labels: LabelStatistics | None = None
        """Statistics of the original labels, if a threshold turns them into clicks."""
        self.times: TimeStatistics | None = None
        self.rows = 0
        self.first: int | None = None
        """Times of the earliest and of the latest event; None before there is any."""
        self.last: int | None = None
        self._items, self._users = (
            _EntityStatistics(schema.item, schema.of("item")),
            _EntityStatistics(schema.user, schema.of("user")),
        )
        counts = {EVENTS: pl.Int64, CLICKS: pl.Int64, WEIGHTS: pl.Float64}
        self._events = pl.DataFrame(schema={schema.item: pl.String, **counts})

    @classmethod
    def of(cls, files: ChunkedLog) -> Self:
        """Statistics of all chunks; the files are then read with the resolved values of entities whose rows disagree.

        Raises DataError if too many rows of entities disagree; see `value_conflicts`.
        """
        statistics, share = cls(files.schema), files.schema.max_conflict_share
        for chunk in files.chunks:
            table = files.table(chunk)
            if len(table):
                statistics._add(files.encode(table), table)
            for entities in (statistics._items, statistics._users):
                if too_many_conflicts(entities.frame, entities.id_column, entities.fields, len(files), share):
                    entities.resolved(len(files), share)  # raises before memory is full
        resolved = [
            (entities, entities.resolved(statistics.rows, share)) for entities in (statistics._items, statistics._users)
        ]
        files.resolved = {entities.id_column: found for entities, (_, found) in resolved if len(found)}
        return statistics

    def add(self, log: ClickLog) -> Self:
        """Add these rows; returns self. Raises DataError if vectors of one field differ in length."""
        if len(log):
            self._add(log, None)
        return self

    def _add(self, log: ClickLog, rows: pl.DataFrame | None) -> None:
        """`rows`: the same rows before conflicts were resolved."""
        tables = ((self._items, log.items, log.item), (self._users, log.users, log.user))
        for entities, table, of_rows in tables:
            entities.add(log, table, of_rows) if rows is None else entities.add_unresolved(rows, self.schema.time)
        self._events = _sum_by_key(self._events, _counts(log), self.schema.item)
        for field in self.schema.of("context"):
            self.context[field.name] = _add_column(field, self.context[field.name], log.context[field.name])
        self.rows += len(log)
        self.labels = log.labels if self.labels is None or log.labels is None else self.labels + log.labels
        found = TimeStatistics.of(log)
        self.times = found if self.times is None else self.times + found
        self.times.require_one_unit(self.schema.time)
        first, last = int(log.time.min()), int(log.time.max())
        self.first = first if self.first is None else min(self.first, first)
        self.last = last if self.last is None else max(self.last, last)

    def require_both_classes(self) -> None:
        """Raises DataError if no event or every event is a click."""
        require_both_classes(self.rows, int(self.clicks.sum()), self.schema)

    def warn_of_placeholders(self) -> None:
        """DataWarning for a user or item id that seems to stand for an unknown one; see `placeholder_ids`."""
        for entities in (self._users, self._items):
            counts = entities.frame.group_by(entities.id_column).agg(pl.col(COUNT).sum())
            for name, count in placeholder_ids(counts[entities.id_column], counts[COUNT]):
                warnings.warn(
                    f"column '{entities.id_column}': '{name}' is in {count:,} of {self.rows:,} rows, learned as one id; if it "
                    "stands for a missing one, add it to missing_values in the schema",
                    DataWarning,
                    stacklevel=3,
                )

    def require_at_serving(self, values: Mapping[str, str | int | float]) -> None:
        """Raises DataError for a category that no event has, or too few for `min_count`: a model would not know it. DataWarning for
        a number beyond those of the events.

        `values`: those that context fields have in every request, by field.
        """
        for name, value in values.items():
            found = self.context[name]
            if isinstance(found, ValueCounts):
                least = next(field.min_count for field in self.schema.fields if field.name == name)
                known = list(found.frame.filter(pl.col(COUNTS) >= least)[NAME])
                if canonical_names(pl.Series([value]), "schema")[0] not in known:
                    few = "no event has" if least <= 1 else f"fewer than min_count = {least} events have"
                    raise DataError(
                        f"schema: field '{name}' has at_serving = {value!r}, which {few}; {nearest(str(value), known)}"
                    )
            elif not found.lowest <= float(value) <= found.highest:
                warnings.warn(
                    f"schema: field '{name}' has at_serving = {value!r}, but is from {float(found.lowest):g} to "
                    f"{float(found.highest):g} in the log",
                    DataWarning,
                    stacklevel=3,
                )

    @property
    def items(self) -> EntityTable:
        """Items that occur, with the item fields of the schema."""
        return self._items.table(self.rows, self.schema.max_conflict_share)

    @property
    def users(self) -> EntityTable:
        return self._users.table(self.rows, self.schema.max_conflict_share)

    def users_with(self, events: int) -> list[str]:
        """Sorted ids of the users with at least so many events."""
        counts = self._users.frame.group_by(self.schema.user).agg(pl.col(COUNT).sum())
        return counts.filter(pl.col(COUNT) >= events)[self.schema.user].sort().to_list()

    @property
    def events(self) -> NDArray[np.int64]:
        """Number of events of each of `items`."""
        return self._of_items(EVENTS)

    @property
    def clicks(self) -> NDArray[np.int64]:
        return self._of_items(CLICKS)

    @property
    def weights(self) -> NDArray[np.float64]:
        """Sum of the weights of each item's events: their number, if all weights are 1."""
        return self._of_items(WEIGHTS)

    def _of_items(self, column: str) -> NDArray[Any]:
        return self._events.sort(self.schema.item)[column].to_numpy()


class ValueCounts:
    """Number of occurrences of each value of a field."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame.sort(NAME)

    @classmethod
    def of(cls, column: Column) -> Self:
        times = np.bincount(column.values[column.values >= 0].astype(np.int64), minlength=len(column.names))
        frame = pl.DataFrame([pl.Series(NAME, column.names, dtype=pl.String), pl.Series(COUNTS, times, dtype=pl.Int64)])
        return cls(frame.filter(pl.col(COUNTS) > 0))

    def __add__(self, other: Self) -> Self:
        return type(self)(_sum_by_key(self.frame, other.frame, NAME))

    @property
    def column(self) -> Column:
        """The distinct values."""
        return Column(tuple(self.frame[NAME]), np.arange(len(self.frame), dtype=np.int32))

    @property
    def counts(self) -> NDArray[np.int64]:
        return self.frame[COUNTS].to_numpy()


class _EntityStatistics:
    """Items or users: distinct combinations of an id and its field values; see `value_conflicts`."""

    def __init__(self, id_column: str, fields: Sequence[Field]) -> None:
        self.id_column, self.fields = id_column, fields
        types = {field.name: _type(field) for field in fields}
        self.frame = pl.DataFrame(schema={id_column: pl.String(), **types, **SUMMARY_DTYPES})
        self._settled: tuple[pl.DataFrame, pl.DataFrame] | None = None

    def add(self, log: ClickLog, table: EntityTable, of_rows: NDArray[np.int32]) -> None:
        """Add rows of a log without conflicts."""
        order = np.lexsort((log.row, log.fraction_or_zero, log.time, of_rows))
        present, begins, counts = np.unique(of_rows[order], return_index=True, return_counts=True)
        latest = order[begins + counts - 1]
        first = np.minimum.reduceat(log.row[order], begins)
        found = self._frame(table.take(present)).with_columns(
            pl.Series(COUNT, counts, dtype=pl.Int64),
            pl.Series(TIME, log.time[latest], dtype=pl.Int64),
            pl.Series(FRACTION, log.fraction_or_zero[latest], dtype=pl.Float64),
            pl.Series(FIRST, first, dtype=pl.Int64),
            pl.Series(LATEST, log.row[latest], dtype=pl.Int64),
        )
        self._merge(found)

    def add_unresolved(self, rows: pl.DataFrame, time: str) -> None:
        """Add rows that may have conflicts."""
        self._merge(count_combinations(rows, self.id_column, self.fields, time, ROW).select(self.frame.columns))

    def resolved(self, rows: int, share: float) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Entities after conflict resolution, and those of them with conflicts; at most this share of `rows` may disagree."""
        if self._settled is None:
            once = resolve_conflicts(self.frame, self.id_column, self.fields, rows, share)
            of = self.frame[self.id_column]
            twice = self.frame.filter(of.is_duplicated() & (of != NOBODY)).select(self.id_column).unique()
            self._settled = once, once.join(twice, on=self.id_column, how="semi")
        return self._settled

    def table(self, rows: int, share: float) -> EntityTable:
        return entity_table(self.resolved(rows, share)[0], self.id_column, self.fields, "log", repeated=True)

    def _merge(self, found: pl.DataFrame) -> None:
        known = self.frame.join(found.select(self.id_column), on=self.id_column, how="semi")
        if len(known):
            found = merge_combinations([known, found], self.id_column, self.fields).select(self.frame.columns)
        self.frame, self._settled = (
            self.frame.join(found.select(self.id_column), on=self.id_column, how="anti").vstack(found),
            None,
        )

    def _frame(self, table: EntityTable) -> pl.DataFrame:
        fields = [decode_column(table.columns[field.name], field.name) for field in self.fields]
        return pl.DataFrame([pl.Series(self.id_column, table.ids, dtype=pl.String), *fields])


def decode_column(column: Column, name: str) -> pl.Series:
    """Decode a column to text, lists of text, numbers or lists of numbers: the inverse of `log_reader.encode_column`."""
    values, count = column.values, len(column.values)
    if column.is_vector:
        known = ~np.isnan(values).any(axis=1) & (values.shape[1] > 0)
        lists = (
            pl.Series(values[known]).cast(pl.List(pl.Float32)) if known.any() else pl.Series(dtype=pl.List(pl.Float32))
        )
        return _scatter(lists, known, name)
    if values.dtype.kind == "f":
        return pl.Series(name, values, dtype=pl.Float64)
    rows = pl.Series(values.ravel(), dtype=pl.Int32)
    texts = pl.Series(name, column.names, dtype=pl.String).gather(rows.set(rows < 0, None).cast(pl.UInt32))
    if values.ndim == 1:
        return texts
    return texts.reshape((count, values.shape[1])).arr.to_list().list.drop_nulls()


def _scatter(values: pl.Series, known: NDArray[np.bool_], name: str) -> pl.Series:
    """Scatter the values to the known rows, null elsewhere."""
    rows = pl.Series(np.where(known, np.cumsum(known) - 1, 0), dtype=pl.UInt32)
    return values.gather(rows.set(pl.Series(~known), None)).alias(name)


def _empty_statistics(field: Field) -> RunningStats | ValueCounts:
    if field.is_numeric:
        return RunningStats.of(np.zeros(0))
    return RunningStats.of(np.zeros((0, 0))) if field.kind == "vector" else ValueCounts.of(Column.of_names([]))


def _add_column(field: Field, before: RunningStats | ValueCounts, column: Column) -> RunningStats | ValueCounts:
    if isinstance(before, ValueCounts):
        return before + ValueCounts.of(column)
    found = RunningStats.of(column.values)
    if before.count and found.count and before.mean.shape != found.mean.shape:
        raise DataError(
            f"column '{field.name}' has vectors of {before.mean.size} and of {found.mean.size} numbers; give all one length"
        )
    return before + found


def _type(field: Field) -> pl.DataType:
    """Dtype that `decode_column` returns for a field."""
    if field.is_numeric:
        return pl.Float64()
    if field.kind == "vector":
        return pl.List(pl.Float32)
    return pl.List(pl.String) if field.is_multi else pl.String()


def _counts(log: ClickLog) -> pl.DataFrame:
    """Number of events and clicks, and sum of weights, of each item that occurs."""
    events = np.bincount(log.item, minlength=len(log.items))
    present = np.flatnonzero(events)
    clicks, weights = (np.bincount(log.item, of, len(log.items))[present] for of in (log.label, log.weight_or_one))
    ids = [log.items.ids[item] for item in present]
    return pl.DataFrame(
        {
            log.schema.item: ids,
            EVENTS: events[present].astype(np.int64),
            CLICKS: np.rint(clicks).astype(np.int64),
            WEIGHTS: weights,
        }
    )


def _sum_by_key(before: pl.DataFrame, found: pl.DataFrame, key: str) -> pl.DataFrame:
    return pl.concat([before, found]).group_by(key).sum()
