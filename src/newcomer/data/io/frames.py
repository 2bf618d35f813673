"""Tables that a caller has in memory, as frames with one type a column, whatever library they come from."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.canonical import EXACT, canonical_name
from newcomer.errors import DataError


def frame_of(table: Any, where: str = "table") -> pl.DataFrame:
    """A polars or pandas frame, a mapping of columns, or a list of rows by name, as a polars frame.

    >>> frame_of([{"film": "Alien", "price": 2}, {"film": 7}]).rows()
    [('Alien', 2), ('7', None)]

    Raises DataError for anything else, and for columns of different lengths.
    """
    if isinstance(table, pl.DataFrame):
        return table
    if isinstance(table, pl.LazyFrame):
        return table.collect()
    if hasattr(table, "to_dict") and hasattr(table, "columns"):  # pandas
        columns = {str(name): table[name] for name in table.columns}
        if len(columns) != len(table.columns):
            raise DataError(f"{where}: two columns have one name; give each a name of its own")
    elif isinstance(table, Mapping):
        single = [name for name, values in table.items() if _is_single(values)]
        if len(single) == len(table):
            return frame_of_rows([table], where)
        if single:
            raise DataError(
                f"{where}: column '{single[0]}' is one value beside columns; give a list of values for each"
            )
        columns = dict(table)
    elif isinstance(table, Sequence) and not isinstance(table, str) and all(isinstance(row, Mapping) for row in table):
        return frame_of_rows(table, where)
    else:
        raise DataError(
            f"{where}: a {type(table).__name__} is no table; give a frame, columns by name or a list of rows"
        )
    made = {name: _loose(name, values, where) for name, values in columns.items()}
    if len({len(series) for series in made.values()}) > 1:
        raise DataError(
            f"{where}: columns have {', '.join(f'{len(s)} ({n})' for n, s in made.items())} rows; give all as many"
        )
    return pl.DataFrame(list(made.values()))


def frame_of_rows(rows: Iterable[Mapping[str, Any]], where: str) -> pl.DataFrame:
    """A frame of rows by name; what a row does not name is missing there."""
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame({name: _loose(name, [row.get(name) for row in rows], where) for name in names})


def _loose(name: str, values: Any, where: str) -> pl.Series:
    """A column of these values, or of Python's own objects where they have no common type: an error only where it is read."""
    try:
        return series_of(name, values, where)
    except DataError:
        return pl.Series(name, list(values), dtype=pl.Object)


def odd_one(values: Sequence[Any]) -> int | None:
    """The first value that keeps these from being one column: a mapping, a nested list, or a list among single values."""
    single = any(value is not None and not isinstance(value, (list, tuple, Mapping)) for value in values)
    for n, value in enumerate(values):
        is_list = isinstance(value, (list, tuple))
        if isinstance(value, Mapping) or (
            is_list and (single or any(isinstance(v, (list, tuple, Mapping)) for v in value))
        ):
            return n
    return None


def series_of(name: str, values: Any, where: str) -> pl.Series:
    """A column of these values. Values of several types become text, each by itself: no value is read by what stands beside it.

    >>> series_of("page", [True, "home", 3.0, None], "table").to_list()
    ['true', 'home', '3', None]

    Raises DataError for lists beside single values.
    """
    if isinstance(values, pl.Series):
        return values.alias(name)
    if isinstance(values, np.ma.MaskedArray):
        values = values.tolist()  # what is masked is None
    if isinstance(getattr(values, "dtype", None), np.dtype) and values.dtype.kind in "biufmM" and values.ndim == 1:
        return pl.Series(name, _of_known_width(np.asarray(values)))
    given = [_python(value) for value in values]
    lists = [value for value in given if isinstance(value, (list, tuple))]
    if not lists:
        return _single(name, given, where)
    if any(value is not None and not isinstance(value, (list, tuple)) for value in given):
        raise DataError(f"{where}: column '{name}' holds lists and single values; write one of the two")
    flat = _single(name, [_python(part) for value in lists for part in value], where)
    parts, begin, found = flat.to_list(), 0, list[list[object] | None]()
    for value in given:
        found.append(None if value is None else parts[begin : begin + len(value)])
        begin += 0 if value is None else len(value)
    return pl.Series(name, found, dtype=pl.List(flat.dtype))


def _is_single(values: Any) -> bool:
    """Whether this is one value and no column."""
    return values is None or isinstance(values, (str, bytes, int, float, Decimal, date)) or np.ndim(values) == 0


def _of_known_width(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers and times of a width that frames have."""
    if values.dtype.kind in "mM" and np.datetime_data(values.dtype)[0] not in ("ns", "us", "ms", "D"):
        return values.astype(f"{values.dtype.kind}8[ms]")
    return values.astype(np.float64) if values.dtype.kind == "f" and values.dtype.itemsize > 8 else values


def _single(name: str, values: list[Any], where: str) -> pl.Series:
    """A column of values none of which is a list."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float} and all(abs(value) <= 2**53 for value in values if isinstance(value, int)):
        return pl.Series(name, values, dtype=pl.Float64, strict=False)
    if len(kinds) <= 1:
        try:
            made = pl.Series(name, values)
        except (TypeError, OverflowError, pl.exceptions.PolarsError):
            made = None
        if made is not None and made.dtype != pl.Object:
            return made
        if not kinds <= {int, Decimal}:
            kind = kinds.pop().__name__
            raise DataError(f"{where}: column '{name}' holds values of type {kind}, which cannot be read")
    if any(issubclass(kind, (list, tuple, dict)) for kind in kinds):
        raise DataError(
            f"{where}: column '{name}' holds lists or objects in lists or beside values; make plain columns of it"
        )
    try:
        return pl.Series(name, [_text(value) for value in values], dtype=pl.String)
    except DataError as error:
        raise DataError(f"{where}: column '{name}': {error}") from None


def _text(value: Any) -> str | None:
    """A value among others of another type: as an id is spelled, a number that is too large for one as Python writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and abs(value) >= EXACT["Float64"]:
        return str(value)
    return canonical_name(value)


def _python(value: Any) -> Any:
    """A scalar of numpy, torch or pandas as the Python value that it is; what is no value as None."""
    if type(value) in (str, int, float, bool, list, dict, type(None)):
        return value
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, np.datetime64):
        coarse = value.astype("M8[us]") if np.datetime_data(value.dtype)[0] == "ns" else value
        return None if np.isnat(value) else coarse.tolist() if coarse == value else str(value).replace("T", " ")
    if hasattr(value, "to_pydatetime"):  # nanoseconds, which no datetime of Python holds, stay in the text
        return value.isoformat(sep=" ") if value.nanosecond else value.to_pydatetime()
    if hasattr(value, "tolist") and hasattr(value, "shape"):  # numpy and torch, single values and lists
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    if isinstance(value, Decimal) and value.is_nan():
        return None
    return value if isinstance(value, (str, bytes, bool, Decimal, date, datetime, tuple, Mapping)) else _known(value)


def _known(value: Any) -> Any:
    return str(value) if type(value).__module__ in ("uuid", "enum") else value
