"""Reader of small tables of plain Python values, built once for a schema: the click logs of `log_reader`, many times as fast.

It reads what nearly all requests hold: canonical text, whole and decimal numbers, booleans, lists of these, times as numbers or in
ISO 8601. For anything else, errors and warnings included, it returns None: the table is then read by `log_reader`. What it reads
is equal to what `log_reader` makes of it (`tests/test_plain_tables.py`).
"""

import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.canonical import BLANK, EXACT_INTEGERS, canonical_name, plain_name
from newcomer.data.click_log import ClickLog, Column, EntityTable
from newcomer.data.io.timestamps import DAY, HOUR, MINUTE
from newcomer.data.labels import EPOCHS, LabelStatistics
from newcomer.data.schema import NOBODY, Field, Schema
from newcomer.data.tokenization import ascii_words
from newcomer.data.weights import GREATEST, LEAST

MOST = 10_000
"""Rows up to which tables are read here; beyond, polars is as fast."""

PLAIN = (str, int, float, bool)
"""Types of scalars that are read here."""

DTYPES = (
    *(pl.String, pl.Boolean, pl.Float64, pl.Null),
    *(pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32),
)
"""Dtypes of columns whose values are those in Python."""

ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[T ]([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9])(?:\.([0-9]{1,9}))?"
    r"(?:Z|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))?"
)
"""The usual spelling of a date and time; see `timestamps` for all others."""

DECIMAL = re.compile(r"([0-9]+)\.([0-9]+)")

Cells = list[Any]
"""Values of a column, row by row."""


@dataclass(frozen=True)
class PlainTable:
    """A table that was read: its rows as a click log, and event ids if there are any."""

    log: ClickLog
    ids: list[str] | None = None


class PlainReader:
    """Reads requests and events of known items for a schema; thread-safe."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._nodes = [node for node in schema.nodes if node.role != "item" or node.name == schema.item]
        self._item_fields = {field.name for field in schema.of("item")}
        self._columns = {node.name: _column_reader(node, schema.missing_values) for node in self._nodes}
        self._read_weights = _column_reader(Field("weight", "context", "numeric"), schema.missing_values)

    def requests(self, table: Any) -> ClickLog | None:
        """The log that `log_from_frame` makes of this table (items=False, labels=False)."""
        read = self._read(table, labels=False)
        return None if read is None else read.log

    def events(self, table: Any, id_column: Callable[[Sequence[str]], str | None]) -> PlainTable | None:
        """The log that `log_from_frame` makes of this table (items=False), and the ids of `event_ids.read_ids`.

        `id_column`: the column of event ids, if there is one, among columns of these names.
        """
        return self._read(table, labels=True, id_column=id_column)

    def _read(
        self, table: Any, labels: bool, id_column: Callable[[Sequence[str]], str | None] = lambda _: None
    ) -> PlainTable | None:
        opened = _open(table)
        if opened is None:
            return None
        names, count, cells = opened
        schema, given = self.schema, set(names)
        required = set(schema.event_columns if labels else ())
        if not required <= given or given & self._item_fields or any(name.endswith("_duplicated_0") for name in names):
            return None
        fixed = {} if labels else schema.at_serving
        absent = tuple(node.name for node in self._nodes if node.name not in given and node.name not in fixed)
        if absent and not self._may_be_absent(absent, tuple(names)):
            return None
        columns = dict[str, Column]()
        for name, read in self._columns.items():
            values = [fixed.get(name)] * count if name in fixed or name in absent else cells(name)
            column = None if values is None else read(values)
            if column is None:
                return None
            columns[name] = column
        time = label = weight = None
        if labels and schema.weight is not None:
            given_weights = cells(schema.weight)
            weight = None if given_weights is None else self._weights(given_weights)
            if weight is None:
                return None
        if labels:
            times, grades = cells(schema.time), cells(schema.label)
            time = None if times is None else _times(times)
            label = None if grades is None else _labels(grades, schema.clicked_from)
            if time is None or label is None:
                return None
        ids = None
        if (column_of_ids := id_column(names)) is not None:
            ids = _ids(cells(column_of_ids))
            if ids is None:
                return None
        return PlainTable(self._log(columns, count, time, label, weight), ids)

    def _weights(self, cells: Cells) -> NDArray[np.float64] | None:
        """See `weights.parse_weights`."""
        found = self._read_weights(cells)
        is_valid = found is not None and ((found.values >= LEAST) & (found.values <= GREATEST)).all()
        return found.values if found is not None and is_valid else None

    def _may_be_absent(self, absent: tuple[str, ...], names: tuple[str, ...]) -> bool:
        """Whether these columns are optional, and no other column looks like a misspelled one of them."""
        known = {node.name: node for node in self._nodes}
        if any(known[name].missing != "mark" for name in absent):
            return False
        return not any(_is_like(name, names, frozenset(known)) for name in absent)

    def _log(
        self,
        columns: Mapping[str, Column],
        count: int,
        time: "tuple[NDArray[np.int64], NDArray[np.float64] | None, bool] | None",
        label: "tuple[NDArray[np.float32], LabelStatistics | None] | None",
        weight: NDArray[np.float64] | None,
    ) -> ClickLog:
        schema, item = self.schema, columns[self.schema.item]
        users, user = _users(columns[schema.user], {field.name: columns[field.name] for field in schema.of("user")})
        times, fraction, has_dates = time or (np.zeros(count, dtype=np.int64), None, False)
        clicks, grades = label or (np.zeros(count, dtype=np.float32), None)
        return ClickLog(
            schema,
            EntityTable(item.names, {}),
            users,
            {field.name: columns[field.name] for field in schema.of("context")},
            item=item.values,
            user=user,
            label=clicks,
            time=times,
            row=np.arange(count, dtype=np.int64),
            fraction=fraction,
            labels=grades,
            has_dates=has_dates,
            weight=weight,
        )


def _open(table: Any) -> tuple[list[str], int, Callable[[str], Cells | None]] | None:
    """Names of the columns, number of rows, and the values of a column by its name; None for another kind of table."""
    if isinstance(table, pl.DataFrame):
        if not 0 < len(table) <= MOST:
            return None

        def column(name: str) -> Cells | None:
            series = table.get_column(name)
            dtype = series.dtype.inner if isinstance(series.dtype, pl.List) else series.dtype
            return series.to_list() if dtype in DTYPES else None

        return table.columns, len(table), column
    if type(table) is dict:
        values = list(table.values())
        if any(type(value) is not list for value in values):
            return _open([table]) if all(value is None or type(value) in PLAIN for value in values) else None
        lengths = set(map(len, values))
        if len(lengths) != 1 or not 0 < (count := lengths.pop()) <= MOST or not _are_texts(table):
            return None
        return list(table), count, table.__getitem__
    if type(table) is not list or not 0 < len(table) <= MOST or set(map(type, table)) != {dict}:
        return None
    first = table[0].keys()
    names = list(first if all(row.keys() == first for row in table) else dict.fromkeys(chain.from_iterable(table)))
    if not _are_texts(names):
        return None
    return names, len(table), lambda name: [row.get(name) for row in table]


def _are_texts(names: Collection[object]) -> bool:
    return set(map(type, names)) == {str}


@cache
def _is_like(name: str, names: tuple[str, ...], known: frozenset[str]) -> bool:
    """Whether a column that the schema does not know may be this one; see `log_reader`."""
    spare = [other for other in names if other not in known]
    alike = any(other.casefold() == name.casefold() for other in spare)
    return alike or bool(difflib.get_close_matches(name, spare, n=1, cutoff=0.8))


def _column_reader(field: Field, missing: Sequence[str]) -> Callable[[Cells], Column | None]:
    """Reader of this field's column, and whether missing values are accepted."""
    words = frozenset((*missing, *(name for name in map(canonical_name, missing) if name)))
    is_optional = field.missing == "mark"
    if field.is_numeric:
        numbers = [number for word in missing if (number := _float_or_none(word)) is not None]
        return lambda cells: _numbers(cells, is_optional, numbers)
    if field.kind == "vector":
        return lambda cells: None if missing else _vectors(cells, is_optional)
    if field.kind == "text" and field.encoder is not None:
        return lambda _: None
    if field.is_multi:
        return lambda cells: _several(cells, field, words)
    return lambda cells: _names(cells, is_optional, words)


def _float_or_none(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _coded(cells: Cells, read: Callable[[Any], Any]) -> tuple[list[Any], NDArray[np.int64]] | None:
    """What `read` makes of each distinct value, and the index of every row's; None if it makes None of one that is there."""
    first = cells[0]
    if cells.count(first) == len(cells) and len(set(map(type, cells))) == 1:
        distinct, codes = [first], np.zeros(len(cells), dtype=np.int64)
    else:
        keys = cells if len(set(map(type, cells)) - {type(None)}) <= 1 else [(type(cell), cell) for cell in cells]
        index: dict[Any, int] = {}
        codes = np.array([index.setdefault(key, len(index)) for key in keys], dtype=np.int64)
        distinct = list(index) if keys is cells else [value for _, value in index]
    found = [None if value is None else read(value) for value in distinct]
    if any(new is None and value is not None for new, value in zip(found, distinct, strict=True)):
        return None
    return found, codes


def _names(cells: Cells, is_optional: bool, missing: Collection[str]) -> Column | None:
    """A categorical column."""
    if not set(map(type, cells)) <= {*PLAIN, type(None)}:
        return None
    coded = _coded(cells, plain_name)
    if coded is None:
        return None
    found = [None if name in missing else name for name in coded[0]]
    return _column(found, coded[1]) if is_optional or None not in found else None


def _column(found: Sequence[str | None], codes: NDArray[np.int64]) -> Column:
    names = sorted({name for name in found if name is not None})
    index = {name: n for n, name in enumerate(names)}
    table = np.array([-1 if name is None else index[name] for name in found], dtype=np.int32)
    return Column(tuple(names), table[codes])


def _several(cells: Cells, field: Field, missing: Collection[str]) -> Column | None:
    """A column of several values, or words, a row."""
    if missing:
        cells = [None if type(cell) is str and cell.strip(BLANK) in missing else cell for cell in cells]
    kinds = set(map(type, cells)) - {type(None)}
    if kinds == {list}:
        if field.kind == "text" or not {type(part) for cell in cells for part in cell or ()} <= {*PLAIN, type(None)}:
            return None
        keys: Cells = [None if cell is None else tuple((type(part), part) for part in cell) for cell in cells]
        coded = _coded(keys, lambda key: _parts([value for _, value in key], field, missing))
    elif kinds <= {str}:
        coded = _coded(cells, lambda text: _split(text, field, missing))
    else:
        return None
    if coded is None or (field.missing == "error" and None in coded[0]):
        return None
    rows = [parts or () for parts in coded[0]]
    names = sorted(set(chain.from_iterable(rows)))
    index = {name: n for n, name in enumerate(names)}
    table = np.full((len(rows), max(1, *map(len, rows))), -1, dtype=np.int32)
    for n, parts in enumerate(rows):
        table[n, : len(parts)] = [index[part] for part in parts]
    return Column(tuple(names), table[coded[1]])


def _split(text: str, field: Field, missing: Collection[str]) -> tuple[str, ...] | None:
    """Values or words of a text; None if it is not plain."""
    if not text.isascii():
        return None
    if field.kind == "text":
        return _first(ascii_words(text), field)
    if not text or not field.separator:
        return None
    return _parts([part or None for part in text.split(field.separator)], field, missing)


def _parts(values: Sequence[Any], field: Field, missing: Collection[str]) -> tuple[str, ...] | None:
    """Distinct names of a row; None if one is not plain."""
    names = [plain_name(value) for value in values if value is not None]
    return (
        None if None in names else _first([name for name in names if name is not None and name not in missing], field)
    )


def _first(names: Sequence[str], field: Field) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))[: field.max_values]


def _as_floats(cells: Cells) -> NDArray[np.float64] | None:
    """Numbers of a column, NaN where there is none; None unless polars would read exactly these."""
    kinds = set(map(type, cells)) - {type(None)}
    exact = 2**53 if float in kinds else 2**63 - 1
    if not (len(kinds) <= 1 or kinds == {int, float}) or not kinds <= {int, float, bool}:
        return None
    if int in kinds and any(type(cell) is int and not -exact <= cell <= exact for cell in cells):
        return None
    return np.array(cells, dtype=np.float64)  # None becomes NaN


def _numbers(cells: Cells, is_optional: bool, missing: Collection[float]) -> Column | None:
    numbers = _as_floats(cells)
    if numbers is None or np.isinf(numbers).any():
        return None
    if missing:
        numbers[np.isin(numbers, list(missing))] = np.nan
    return Column((), numbers) if is_optional or not np.isnan(numbers).any() else None


def _vectors(cells: Cells, is_optional: bool) -> Column | None:
    """Lists of finite numbers of one length."""
    given = [cell for cell in cells if cell is not None]
    lengths = {len(cell) if type(cell) is list else 0 for cell in given}
    if 0 in lengths or len(lengths) > 1 or (len(given) < len(cells) and not is_optional):
        return None
    kinds = {type(number) for cell in given for number in cell}
    if not kinds <= {int, float} or any(
        not abs(number) <= EXACT_INTEGERS["Float32"] and not (type(number) is float and math.isfinite(number))
        for cell in given
        for number in cell
    ):
        return None
    vectors = np.full((len(cells), lengths.pop() if lengths else 0), np.nan, dtype=np.float32)
    if given:
        with np.errstate(over="ignore"):
            vectors[[n for n, cell in enumerate(cells) if cell is not None]] = np.array(given, dtype=np.float64)
        if np.isinf(vectors).any():
            return None
    return Column((), vectors)


def _users(ids: Column, fields: Mapping[str, Column]) -> tuple[EntityTable, NDArray[np.int32]]:
    """Distinct combinations of a user and its fields, sorted by id, and the index of every row's."""
    columns, count = [ids, *fields.values()], len(ids.values)
    if all(_is_constant(column.values) for column in columns):
        order, user = np.zeros(1, dtype=np.int64), np.zeros(count, dtype=np.int32)
    else:
        index: dict[Any, int] = {}
        rows = zip(*map(_keys, columns), strict=True)
        numbers = np.array([index.setdefault(key, len(index)) for key in rows], dtype=np.int64)
        first = np.unique(numbers, return_index=True)[1]
        by_name = np.argsort(ids.values[first], kind="stable")  # names are sorted; -1, nobody, comes first as "" does
        order = first[by_name]
        position = np.empty(len(first), dtype=np.int32)
        position[by_name] = np.arange(len(first), dtype=np.int32)
        user = position[numbers]
    names = (*ids.names, NOBODY)  # -1 is the last one
    table = {name: column.take(order) for name, column in fields.items()}
    return EntityTable(tuple(names[n] for n in ids.values[order].tolist()), table), user


def _is_constant(values: NDArray[Any]) -> bool:
    return len(values) == 1 or bool(((values == values[:1]) | ((values != values) & (values[:1] != values[:1]))).all())


def _keys(column: Column) -> Sequence[Any]:
    """What tells the rows of a column apart."""
    values = column.values.tolist()
    if column.values.ndim > 1:
        return [tuple(None if part != part else part for part in row) for row in values]
    return [None if value != value else value for value in values] if column.values.dtype.kind == "f" else values


def _times(cells: Cells) -> tuple[NDArray[np.int64], NDArray[np.float64] | None, bool] | None:
    """Times, their fractions if there are any, and whether they were dates; see `timestamps.parse_time_column`."""
    kinds = set(map(type, cells))
    if kinds == {int} and all(-(2**63) <= cell < 2**63 for cell in cells):
        return np.array(cells, dtype=np.int64), None, False
    read = _decimal if kinds == {float} else _date if kinds == {str} else None
    if read is None:
        return None
    found = [read(cell) for cell in cells]
    if None in found:
        return None
    whole, part = zip(*(pair for pair in found if pair is not None), strict=True)
    fraction = np.array(part, dtype=np.float64)
    return np.array(whole, dtype=np.int64), fraction if fraction.any() else None, kinds == {str}


def _decimal(value: float) -> tuple[int, float] | None:
    """A decimal number as its digits say: the whole part, and the rest."""
    digits = DECIMAL.fullmatch(repr(value)) if value < EXACT_INTEGERS["Float64"] else None
    return None if digits is None else (int(digits[1]), float(f"0.{digits[2]}"))


def _date(text: str) -> tuple[int, float] | None:
    """Milliseconds since 1970 of a date and time, and the rest."""
    parts = ISO.fullmatch(text)
    if parts is None:
        return None
    try:
        days = date(int(parts[1]), int(parts[2]), int(parts[3])).toordinal() - _EPOCH
    except ValueError:
        return None
    digits = (parts[7] or "").ljust(3, "0")
    ahead = 0
    if parts[8]:
        ahead = (int(parts[9]) * HOUR + int(parts[10]) * MINUTE) * (-1 if parts[8] == "-" else 1)
    time = days * DAY + int(parts[4]) * HOUR + int(parts[5]) * MINUTE + int(parts[6]) * 1000 + int(digits[:3]) - ahead
    return time, float(f"0.{digits[3:]}0")


_EPOCH = date(1970, 1, 1).toordinal()


def _labels(cells: Cells, threshold: float | None) -> tuple[NDArray[np.float32], LabelStatistics | None] | None:
    """Clicks, and statistics of the labels if a threshold makes clicks of them; see `labels.parse_labels`."""
    numbers = _as_floats(cells)
    if numbers is None or not np.isfinite(numbers).all():
        return None
    if threshold is None:
        return (numbers.astype(np.float32), None) if np.isin(numbers, (0.0, 1.0)).all() else None
    if (not 0 < threshold <= 1 and bool in map(type, cells)) or numbers.max() >= EPOCHS[0][0]:
        return None
    return (numbers >= threshold).astype(np.float32), LabelStatistics.of(pl.Series(numbers))


def _ids(cells: Cells | None) -> list[str] | None:
    """Ids of events; None if one is not plain, too long, or has a NUL."""
    if cells is None or not set(map(type, cells)) <= set(PLAIN):
        return None
    names = [name for cell in cells if (name := plain_name(cell)) is not None]
    return names if len(names) == len(cells) and all(len(name) <= 255 and "\0" not in name for name in names) else None
