"""All that must be known of a log before anything is learned from it, found in one pass over its pieces."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.log import Column, Log, Table
from newcomer.data.pieces import LogFiles
from newcomer.data.read import _table, two_values
from newcomer.data.schema import Field, Schema
from newcomer.data.spread import Spread
from newcomer.errors import DataError

NAME, TIMES = "name", "times"
ROW, EVENTS, CLICKS, BEFORE = "row ", "events ", "clicks ", " before"
"""Columns beside a schema's own; no name in a schema should end in a blank."""


class Survey:
    """Items and users that occur, with their fields; how often the values of context fields do; how many events and clicks.

    Kept once a thing and once a value, in columns: nothing grows with the number of events.

    >>> from newcomer.data.read import log_from_rows
    >>> log = log_from_rows(Schema("film", "viewer"), film=["b", "a"], viewer=[7, 8], label=[0, 1], time=[1, 2])
    >>> survey = Survey(log.schema).add(log.take(np.array([0]))).add(log.take(np.array([1])))
    >>> survey.items.ids, survey.events.tolist(), survey.clicks.tolist(), survey.rows, survey.last
    (('a', 'b'), [1, 1], [1, 0], 2, 2)
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.context = {field.name: _nothing_seen(field) for field in schema.of("context")}
        """Of each context field how numbers are spread, or how often each value occurs."""
        self.rows = 0
        self.first: int | None = None
        """The times of the earliest and of the latest event; None before there is any."""
        self.last: int | None = None
        self._items, self._users = _Things(schema.item, schema.of("item")), _Things(schema.user, schema.of("user"))
        self._events = pl.DataFrame(schema={schema.item: pl.String, EVENTS: pl.Int64, CLICKS: pl.Int64})

    @classmethod
    def of(cls, files: LogFiles) -> Self:
        """All pieces of the files."""
        survey = cls(files.schema)
        for piece in files.pieces:
            survey.add(files.read(piece))
        return survey

    def add(self, log: Log) -> Self:
        """Take these rows in too, and return the survey.

        Raises DataError where an item or a user shows two values of one field, or vectors of one field differ in length.
        """
        if not len(log):
            return self
        self._items.add(log.items, log.item, log.row)
        self._users.add(log.users, log.user, log.row)
        self._events = _summed(self._events, _counts(log), self.schema.item)
        for field in self.schema.of("context"):
            self.context[field.name] = _together(field, self.context[field.name], log.context[field.name])
        self.rows += len(log)
        first, last = int(log.time.min()), int(log.time.max())
        self.first = first if self.first is None else min(self.first, first)
        self.last = last if self.last is None else max(self.last, last)
        return self

    @property
    def items(self) -> Table:
        """The items that occur, with the fields that the schema names."""
        return self._items.table()

    @property
    def users(self) -> Table:
        return self._users.table()

    @property
    def events(self) -> NDArray[np.int64]:
        """How many events each of `items` has."""
        return self._of_items(EVENTS)

    @property
    def clicks(self) -> NDArray[np.int64]:
        return self._of_items(CLICKS)

    def _of_items(self, column: str) -> NDArray[np.int64]:
        return self._events.sort(self.schema.item)[column].to_numpy()


class Counted:
    """How often each value of a field occurred."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame.sort(NAME)

    @classmethod
    def of(cls, column: Column) -> Self:
        times = np.bincount(column.values[column.values >= 0].astype(np.int64), minlength=len(column.names))
        frame = pl.DataFrame([pl.Series(NAME, column.names, dtype=pl.String), pl.Series(TIMES, times, dtype=pl.Int64)])
        return cls(frame.filter(pl.col(TIMES) > 0))

    def __add__(self, other: Self) -> Self:
        return type(self)(_summed(self.frame, other.frame, NAME))

    @property
    def column(self) -> Column:
        """Every value once."""
        return Column(tuple(self.frame[NAME]), np.arange(len(self.frame), dtype=np.int32))

    @property
    def times(self) -> NDArray[np.int64]:
        return self.frame[TIMES].to_numpy()


class _Things:
    """Items, or users: each that has occurred, with its fields and the row where it did first."""

    def __init__(self, owner: str, fields: Sequence[Field]) -> None:
        self.owner, self.fields = owner, fields
        types = {field.name: _type(field) for field in fields}
        self.frame = pl.DataFrame(schema={owner: pl.String(), **types, ROW: pl.Int64()})

    def add(self, table: Table, of_rows: NDArray[np.int32], rows: NDArray[np.int64]) -> None:
        first = np.full(len(table), np.iinfo(np.int64).max)
        np.minimum.at(first, of_rows, rows)
        present = np.flatnonzero(np.bincount(of_rows, minlength=len(table)))
        found = self._frame(table.take(present)).with_columns(pl.Series(ROW, first[present]))
        self._require_agreement(found.join(self.frame, on=self.owner, suffix=BEFORE))
        self.frame = self.frame.vstack(found.join(self.frame, on=self.owner, how="anti"))

    def table(self) -> Table:
        names = [self.owner, *(field.name for field in self.fields)]
        return _table(self.frame.select(names), self.owner, self.fields, "log")

    def _frame(self, table: Table) -> pl.DataFrame:
        fields = [decoded(table.columns[field.name], field.name) for field in self.fields]
        return pl.DataFrame([pl.Series(self.owner, table.ids, dtype=pl.String), *fields])

    def _require_agreement(self, both: pl.DataFrame) -> None:
        """Of things that occurred before, the fields now and then are side by side."""
        for field in self.fields:
            differ = both.filter(pl.col(field.name).ne_missing(pl.col(field.name + BEFORE)))
            if len(differ):
                one = differ.sort(ROW).row(0, named=True)
                raise two_values(self.owner, one[self.owner], field.name, *sorted((one[ROW], one[ROW + BEFORE])))


def decoded(column: Column, name: str) -> pl.Series:
    """A column as a table keeps it: text, lists of text, numbers or lists of numbers; the way back from `read.encoded`."""
    values, count = column.values, len(column.values)
    if column.is_vector:
        known = ~np.isnan(values).any(axis=1) & (values.shape[1] > 0)
        lists = (
            pl.Series(values[known]).cast(pl.List(pl.Float32)) if known.any() else pl.Series(dtype=pl.List(pl.Float32))
        )
        return _placed(lists, known, name)
    if values.dtype.kind == "f":
        return pl.Series(name, values, dtype=pl.Float64)
    places = pl.Series(values.ravel(), dtype=pl.Int32)
    texts = pl.Series(name, column.names, dtype=pl.String).gather(places.set(places < 0, None).cast(pl.UInt32))
    if values.ndim == 1:
        return texts
    return texts.reshape((count, values.shape[1])).arr.to_list().list.drop_nulls()


def _placed(values: pl.Series, known: NDArray[np.bool_], name: str) -> pl.Series:
    """The values where they are known, nothing elsewhere."""
    places = pl.Series(np.where(known, np.cumsum(known) - 1, 0), dtype=pl.UInt32)
    return values.gather(places.set(pl.Series(~known), None)).alias(name)


def _nothing_seen(field: Field) -> Spread | Counted:
    if field.is_numeric:
        return Spread.of(np.zeros(0))
    return Spread.of(np.zeros((0, 0))) if field.kind == "vector" else Counted.of(Column.of_names([]))


def _together(field: Field, before: Spread | Counted, column: Column) -> Spread | Counted:
    if isinstance(before, Counted):
        return before + Counted.of(column)
    found = Spread.of(column.values)
    if before.count and found.count and before.mean.shape != found.mean.shape:
        raise DataError(
            f"column '{field.name}' has vectors of {before.mean.size} and of {found.mean.size} numbers; give all one length"
        )
    return before + found


def _type(field: Field) -> pl.DataType:
    """As what `decoded` gives a field."""
    if field.is_numeric:
        return pl.Float64()
    if field.kind == "vector":
        return pl.List(pl.Float32)
    return pl.List(pl.String) if field.is_multi else pl.String()


def _counts(log: Log) -> pl.DataFrame:
    """Events and clicks of each item that occurs."""
    events = np.bincount(log.item, minlength=len(log.items))
    present = np.flatnonzero(events)
    clicks = np.bincount(log.item, weights=log.label, minlength=len(log.items))[present]
    ids = [log.items.ids[item] for item in present]
    return pl.DataFrame(
        {log.schema.item: ids, EVENTS: events[present].astype(np.int64), CLICKS: np.rint(clicks).astype(np.int64)}
    )


def _summed(before: pl.DataFrame, found: pl.DataFrame, key: str) -> pl.DataFrame:
    return pl.concat([before, found]).group_by(key).sum()
