"""What a Python caller hands over, as plain lists and plain values: pandas, polars, numpy, torch, tuples and generators alike.

Order counts and nothing else: the index of a pandas Series is never looked at.
"""

import io
from collections.abc import Iterable, Mapping, Set
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL.Image import Image

from newcomer.errors import DataError

SINGLE = (str, bytes, bytearray, memoryview, PurePath, Image, io.IOBase)
"""What can be iterated over, or looks like it, and yet is one value."""

NOT_THERE = {"NAType", "NaTType", "MaskedConstant"}
"""Types of pandas' NA and NaT, and of numpy's masked value, which need no import to be known."""


def is_missing(value: object) -> bool:
    """Whether it is None, NaN, pandas' NA or NaT, numpy's masked value or NaT, or text of nothing but whitespace.

    >>> [is_missing(value) for value in (None, float("nan"), " ", 0, "NA")]
    [True, True, True, False, False]
    """
    if value is None or type(value).__name__ in NOT_THERE:
        return True
    if isinstance(value, str):
        return not value.strip()
    return isinstance(value, float) and value != value


def plain(value: Any) -> Any:
    """A scalar of numpy, torch or the like as Python's own; everything else as it is."""
    if isinstance(value, str):
        return str.__str__(value)  # numpy's text and members of an enumeration are text, too
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item") and type(value).__name__ not in NOT_THERE:
        return _shortest(value) if _is_short_float(value) else value.item()
    return value


def _is_short_float(values: Any) -> bool:
    return str(getattr(values, "dtype", "")).lower().removeprefix("torch.") in ("float16", "float32")


def _shortest(value: Any) -> float:
    """The number that was written: 0.1 in 32 bits is 0.1 in 64, not 0.10000000149."""
    return float(str(np.asarray(value)[()]))


def as_list(values: Any, what: str) -> list[Any]:
    """The values of a list, tuple, Series, array, tensor or generator in their order; `what` begins the message.

    >>> as_list((number for number in range(3)), "labels")
    [0, 1, 2]
    >>> as_list("card", "labels")
    Traceback (most recent call last):
    newcomer.errors.DataError: labels: one str, where a list was expected; give a value for each example

    Raises DataError for a single value, and for what has no order or is a table.
    """
    expected = f"{what}: one {type(values).__name__}, where a list was expected; give a value for each example"
    if values is None or isinstance(values, (*SINGLE, Mapping, Set)):
        raise DataError(expected)
    if hasattr(values, "columns") or hasattr(values, "column_names"):
        raise DataError(f"{what}: a table ({type(values).__name__}); give one of its columns")
    if _is_short_float(values) and getattr(values, "ndim", 1) == 1:
        return [_shortest(value) for value in np.asarray(values)]
    for name in ("to_list", "tolist", "to_pylist"):
        if hasattr(values, name):
            values = getattr(values, name)()
            break
    if isinstance(values, (*SINGLE, Mapping, Set)) or not isinstance(values, Iterable):
        raise DataError(expected)
    return list(values)
