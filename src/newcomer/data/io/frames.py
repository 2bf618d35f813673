"""Conversion of in-memory tables of other libraries to polars frames."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.canonical import EXACT_INTEGERS, canonical_name
from newcomer.errors import DataError


def as_frame(table: Any, where: str = "table") -> pl.DataFrame:
    """Convert a polars or pandas frame, a mapping of columns, or a list of row mappings to a polars frame.

    >>> as_frame([{"film": "Alien", "price": 2}, {"film": 7}]).rows()
    [('Alien', 2), ('7', None)]

    A column whose values have no common type, such as lists and scalars, has dtype Object; `column_parsing` raises an error
    with the row if such a column is used.

    Raises DataError for anything else, and for columns of different lengths.
    """
    if isinstance(table, pl.DataFrame):
        return table
    if isinstance(table, pl.LazyFrame):
        return table.collect()
    if hasattr(table, "to_dict") and hasattr(table, "columns"):  # pandas
        columns = {str(name): table[name] for name in table.columns}
        if len(columns) != len(table.columns):
            raise DataError(f"{where}: two columns have the same name; rename one of them")
    elif isinstance(table, Mapping):
        single = [name for name, values in table.items() if _is_single(values)]
        if len(single) == len(table):
            return frame_from_rows([table], where)
        if single:
            raise DataError(f"{where}: column '{single[0]}' is a scalar beside lists; give a list for every column")
        columns = dict(table)
    elif isinstance(table, Sequence) and not isinstance(table, str) and all(isinstance(row, Mapping) for row in table):
        return frame_from_rows(table, where)
    else:
        raise DataError(
            f"{where}: a {type(table).__name__} is not a table; give a frame, a mapping of columns or a list of rows"
        )
    made = {name: _lenient_series(name, values, where) for name, values in columns.items()}
    if len({len(series) for series in made.values()}) > 1:
        raise DataError(
            f"{where}: columns have {', '.join(f'{len(s)} ({n})' for n, s in made.items())} rows; they must be equally long"
        )
    return pl.DataFrame(list(made.values()))


def frame_from_rows(rows: Iterable[Mapping[str, Any]], where: str) -> pl.DataFrame:
    """Frame of row mappings; missing keys are null."""
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame({name: _lenient_series(name, [row.get(name) for row in rows], where) for name in names})


def _lenient_series(name: str, values: Any, where: str) -> pl.Series:
    """Series of these values, or of Python objects if they have no common type: an error only if the column is used."""
    try:
        return as_series(name, values, where)
    except DataError:
        return pl.Series(name, [_to_python(value) for value in values], dtype=pl.Object)


def value_dtype(name: str, value: Any, where: str) -> pl.DataType | None:
    """Dtype of a column with this value alone; None for an unsupported value, such as an object or a list of objects."""
    try:
        return as_series(name, [value], where).dtype
    except DataError:
        return None


def is_list(value: Any) -> bool:
    """Whether a value is a list, tuple, set or array."""
    return isinstance(_to_python(value), (list, tuple))


def as_series(name: str, values: Any, where: str) -> pl.Series:
    """Series of these values. If their types differ, each is converted to text on its own, independent of the other rows.

    >>> as_series("page", [True, "home", 3.0, None], "table").to_list()
    ['true', 'home', '3', None]

    Raises DataError for a mix of lists and scalars.
    """
    if isinstance(values, pl.Series):
        return values.alias(name)
    if isinstance(values, np.ma.MaskedArray):
        values = values.tolist()  # masked values become None
    if isinstance(getattr(values, "dtype", None), np.dtype) and values.dtype.kind in "biufmM" and values.ndim == 1:
        return pl.Series(name, _supported_dtype(np.asarray(values)))
    given = [_to_python(value) for value in values]
    lists = [value for value in given if isinstance(value, (list, tuple))]
    if not lists:
        return _single(name, given, where)
    if any(value is not None and not isinstance(value, (list, tuple)) for value in given):
        raise DataError(f"{where}: column '{name}' holds lists and scalars; write one of the two")
    flat = _single(name, [_to_python(part) for value in lists for part in value], where)
    parts, begin, found = flat.to_list(), 0, list[list[object] | None]()
    for value in given:
        found.append(None if value is None else parts[begin : begin + len(value)])
        begin += 0 if value is None else len(value)
    return pl.Series(name, found, dtype=pl.List(flat.dtype))


def _is_single(values: Any) -> bool:
    """Whether this is a scalar, not a column."""
    return values is None or isinstance(values, (str, bytes, int, float, Decimal, date)) or np.ndim(values) == 0


def _supported_dtype(values: NDArray[Any]) -> NDArray[Any]:
    """Convert dtypes that polars lacks."""
    if values.dtype.kind in "mM" and np.datetime_data(values.dtype)[0] not in ("ns", "us", "ms", "D"):
        return values.astype(f"{values.dtype.kind}8[ms]")
    return values.astype(np.float64) if values.dtype.kind == "f" and values.dtype.itemsize > 8 else values


def _single(name: str, values: list[Any], where: str) -> pl.Series:
    """Series of scalars."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float} and all(abs(value) <= 2**53 for value in values if isinstance(value, int)):
        return pl.Series(name, values, dtype=pl.Float64, strict=False)
    if len(kinds) <= 1:
        try:
            made = pl.Series(name, values)
        except (TypeError, OverflowError, UnicodeEncodeError, pl.exceptions.PolarsError):
            made = None
        if made is not None and made.dtype != pl.Object:
            return made
        if kinds == {str}:
            raise DataError(f"{where}: column '{name}' holds text that is not Unicode (a lone surrogate)")
        if not kinds <= {int, Decimal}:
            kind = kinds.pop().__name__
            raise DataError(f"{where}: column '{name}' holds values of type {kind}, which is not supported")
    if any(issubclass(kind, (list, tuple, dict)) for kind in kinds):
        raise DataError(f"{where}: column '{name}' holds nested lists or objects; split it into scalar columns")
    try:
        return pl.Series(name, [_text(value) for value in values], dtype=pl.String)
    except (DataError, UnicodeEncodeError) as error:
        raise DataError(f"{where}: column '{name}': {error}") from None


def _text(value: Any) -> str | None:
    """Text of a scalar in a column of mixed types: canonical, but numbers too large for an id as in Python."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and abs(value) >= EXACT_INTEGERS["Float64"]:
        return str(value)
    return canonical_name(value)


def _to_python(value: Any) -> Any:
    """Convert a numpy, torch or pandas scalar to Python; missing values to None."""
    if type(value) in (str, int, float, bool, list, dict, type(None)):
        return value
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, np.datetime64):
        coarse = value.astype("M8[us]") if np.datetime_data(value.dtype)[0] == "ns" else value
        return None if np.isnat(value) else coarse.tolist() if coarse == value else str(value).replace("T", " ")
    if hasattr(value, "to_pydatetime"):  # datetime has no nanoseconds; text keeps them
        return value.isoformat(sep=" ") if value.nanosecond else value.to_pydatetime()
    if hasattr(value, "tolist") and hasattr(value, "shape"):  # numpy and torch, single values and lists
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    if isinstance(value, Decimal) and value.is_nan():
        return None
    return (
        value
        if isinstance(value, (str, bytes, bool, Decimal, date, datetime, tuple, Mapping))
        else _uuid_or_enum_text(value)
    )


def _uuid_or_enum_text(value: Any) -> Any:
    return str(value) if type(value).__module__ in ("uuid", "enum") else value
