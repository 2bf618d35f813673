"""All that must be known of a log before anything is learned from it, found in one pass over its pieces."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.agreement import COUNT, FIRST, LATEST, TIME, agreed, combinations, together, too_many
from newcomer.data.click_log import Column, Log, Table
from newcomer.data.clocks import CLOCKS, clocks_of
from newcomer.data.io.chunked_log import LogFiles
from newcomer.data.io.column_parsing import ROW
from newcomer.data.io.log_reader import _table
from newcomer.data.io.timestamps import FRACTION
from newcomer.data.labels import Labels, require_both
from newcomer.data.running_stats import Spread
from newcomer.data.schema import NOBODY, Field, Schema
from newcomer.errors import DataError

NAME, TIMES = "name", "times"
EVENTS, CLICKS = "events ", "clicks "
"""Columns beside a schema's own; no name in a schema should end in a blank."""

SEEN = {COUNT: pl.Int64(), TIME: pl.Int64(), FRACTION: pl.Float64(), FIRST: pl.Int64(), LATEST: pl.Int64()}


class Survey:
    """Items and users that occur, with their fields; how often the values of context fields do; how many events and clicks.

    Kept once a thing and once a value, in columns: nothing grows with the number of events.

    >>> from newcomer.data.io.log_reader import log_from_rows
    >>> log = log_from_rows(Schema("film", "viewer"), film=["b", "a"], viewer=[7, 8], label=[0, 1], time=[1, 2])
    >>> survey = Survey(log.schema).add(log.take(np.array([0]))).add(log.take(np.array([1])))
    >>> survey.items.ids, survey.events.tolist(), survey.clicks.tolist(), survey.rows, survey.last
    (('a', 'b'), [1, 1], [1, 0], 2, 2)
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.context = {field.name: _nothing_seen(field) for field in schema.of("context")}
        """Of each context field how numbers are spread, or how often each value occurs."""
        self.labels: Labels | None = None
        """The labels as they were written, where a threshold makes clicks of them."""
        self.clocks = set[str]()
        """What the times are counted in; see `clocks`."""
        self.rows = 0
        self.first: int | None = None
        """The times of the earliest and of the latest event; None before there is any."""
        self.last: int | None = None
        self._items, self._users = _Things(schema.item, schema.of("item")), _Things(schema.user, schema.of("user"))
        self._events = pl.DataFrame(schema={schema.item: pl.String, EVENTS: pl.Int64, CLICKS: pl.Int64})

    @classmethod
    def of(cls, files: LogFiles) -> Self:
        """All pieces of the files, which from now on are read with the values that count where rows disagree.

        Raises DataError where too many rows of items or users show two values of one field; see `agreement`.
        """
        survey, share = cls(files.schema), files.schema.disagreeing
        for piece in files.pieces:
            table = files.table(piece)
            if len(table):
                survey._add(files.encoded(table), table)
            for things in (survey._items, survey._users):
                if too_many(things.frame, things.owner, things.fields, len(files), share):
                    things.settled(len(files), share)  # which raises, before there are too many to be kept
        both = [(things, things.settled(survey.rows, share)) for things in (survey._items, survey._users)]
        files.settled = {things.owner: found for things, (_, found) in both if len(found)}
        return survey

    def add(self, log: Log) -> Self:
        """Take these rows in too, and return the survey.

        Raises DataError where vectors of one field differ in length.
        """
        if len(log):
            self._add(log, None)
        return self

    def _add(self, log: Log, rows: pl.DataFrame | None) -> None:
        """`rows`: the same rows as they were before those of one item or user were brought to agree."""
        tables = ((self._items, log.items, log.item), (self._users, log.users, log.user))
        for things, table, of_rows in tables:
            things.add(log, table, of_rows) if rows is None else things.see(rows, self.schema.time)
        self._events = _summed(self._events, _counts(log), self.schema.item)
        for field in self.schema.of("context"):
            self.context[field.name] = _together(field, self.context[field.name], log.context[field.name])
        self.rows += len(log)
        self.labels = log.labels if self.labels is None or log.labels is None else self.labels + log.labels
        self.clocks |= {CLOCKS[number] for number in np.unique(clocks_of(log))}
        first, last = int(log.time.min()), int(log.time.max())
        self.first = first if self.first is None else min(self.first, first)
        self.last = last if self.last is None else max(self.last, last)

    def require_both_answers(self) -> None:
        """Raises DataError where no event or every event is a click: there is nothing to learn from."""
        require_both(self.rows, int(self.clicks.sum()), self.schema)

    @property
    def items(self) -> Table:
        """The items that occur, with the fields that the schema names."""
        return self._items.table(self.rows, self.schema.disagreeing)

    @property
    def users(self) -> Table:
        return self._users.table(self.rows, self.schema.disagreeing)

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
    """Items, or users: every combination of one and its fields' values that has occurred; see `agreement`."""

    def __init__(self, owner: str, fields: Sequence[Field]) -> None:
        self.owner, self.fields = owner, fields
        types = {field.name: _type(field) for field in fields}
        self.frame = pl.DataFrame(schema={owner: pl.String(), **types, **SEEN})
        self._settled: tuple[pl.DataFrame, pl.DataFrame] | None = None

    def add(self, log: Log, table: Table, of_rows: NDArray[np.int32]) -> None:
        """Rows of a log, in which the rows of one item or user agree."""
        order = np.lexsort((log.row, log.ticks, log.time, of_rows))
        present, begins, counts = np.unique(of_rows[order], return_index=True, return_counts=True)
        latest = order[begins + counts - 1]
        first = np.minimum.reduceat(log.row[order], begins)
        found = self._frame(table.take(present)).with_columns(
            pl.Series(COUNT, counts, dtype=pl.Int64),
            pl.Series(TIME, log.time[latest], dtype=pl.Int64),
            pl.Series(FRACTION, log.ticks[latest], dtype=pl.Float64),
            pl.Series(FIRST, first, dtype=pl.Int64),
            pl.Series(LATEST, log.row[latest], dtype=pl.Int64),
        )
        self._take(found)

    def see(self, rows: pl.DataFrame, time: str) -> None:
        """Rows that need not agree."""
        self._take(combinations(rows, self.owner, self.fields, time, ROW).select(self.frame.columns))

    def settled(self, rows: int, share: float) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Each once, and those of them whose rows disagree; of `rows` rows this share may."""
        if self._settled is None:
            once = agreed(self.frame, self.owner, self.fields, rows, share)
            of = self.frame[self.owner]
            twice = self.frame.filter(of.is_duplicated() & (of != NOBODY)).select(self.owner).unique()
            self._settled = once, once.join(twice, on=self.owner, how="semi")
        return self._settled

    def table(self, rows: int, share: float) -> Table:
        return _table(self.settled(rows, share)[0], self.owner, self.fields, "log", repeated=True)

    def _take(self, found: pl.DataFrame) -> None:
        there = self.frame.join(found.select(self.owner), on=self.owner, how="semi")
        if len(there):
            found = together([there, found], self.owner, self.fields).select(self.frame.columns)
        self.frame, self._settled = (
            self.frame.join(found.select(self.owner), on=self.owner, how="anti").vstack(found),
            None,
        )

    def _frame(self, table: Table) -> pl.DataFrame:
        fields = [decoded(table.columns[field.name], field.name) for field in self.fields]
        return pl.DataFrame([pl.Series(self.owner, table.ids, dtype=pl.String), *fields])


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
