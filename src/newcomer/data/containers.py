"""Conversion of Python containers and scalars: pandas, polars, numpy, torch, tuples and generators become lists of plain values.

Only the order matters; a pandas index is ignored.
"""

import io
from collections.abc import Iterable, Mapping, Set
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL.Image import Image

from newcomer.errors import DataError

SCALAR_TYPES = (str, bytes, bytearray, memoryview, PurePath, Image, io.IOBase)
"""Iterable types that are single values."""

MISSING_TYPES = {"NAType", "NaTType", "MaskedConstant"}
"""Names of the types of pandas' NA and NaT and of numpy's masked value, to be recognised without an import."""


def is_missing(value: object) -> bool:
    """Whether the value is None, NaN, pandas' NA or NaT, numpy's masked value or NaT, or blank text.

    >>> [is_missing(value) for value in (None, float("nan"), " ", 0, "NA")]
    [True, True, True, False, False]
    """
    if value is None or type(value).__name__ in MISSING_TYPES:
        return True
    if isinstance(value, str):
        return not value.strip()
    return isinstance(value, float) and value != value


def to_python(value: Any) -> Any:
    """Convert a numpy, torch or similar scalar to Python; other values are returned as they are."""
    if isinstance(value, str):
        return str.__str__(value)  # numpy strings and enum members are strings, too
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item") and type(value).__name__ not in MISSING_TYPES:
        return _shortest_decimal(value) if _is_short_float(value) else value.item()
    return value


def _is_short_float(values: Any) -> bool:
    return str(getattr(values, "dtype", "")).lower().removeprefix("torch.") in ("float16", "float32")


def _shortest_decimal(value: Any) -> float:
    """Float64 with the shortest decimal that rounds to the float32: 0.1, not 0.10000000149."""
    return float(str(np.asarray(value)[()]))


def as_list(values: Any, what: str) -> list[Any]:
    """Elements of a list, tuple, Series, array, tensor or generator, in order; `what` begins the error message.

    >>> as_list((number for number in range(3)), "labels")
    [0, 1, 2]
    >>> as_list("card", "labels")
    Traceback (most recent call last):
    newcomer.errors.DataError: labels: one str, where a list was expected; give a value for each example

    Raises DataError for a single value, an unordered collection, and a table.
    """
    expected = f"{what}: one {type(values).__name__}, where a list was expected; give a value for each example"
    if values is None or isinstance(values, (*SCALAR_TYPES, Mapping, Set)):
        raise DataError(expected)
    if hasattr(values, "columns") or hasattr(values, "column_names"):
        raise DataError(f"{what}: a table ({type(values).__name__}); give one of its columns")
    if _is_short_float(values) and getattr(values, "ndim", 1) == 1:
        return [_shortest_decimal(value) for value in np.asarray(values)]
    for name in ("to_list", "tolist", "to_pylist"):
        if hasattr(values, name):
            values = getattr(values, name)()
            break
    if isinstance(values, (*SCALAR_TYPES, Mapping, Set)) or not isinstance(values, Iterable):
        raise DataError(expected)
    return list(values)
