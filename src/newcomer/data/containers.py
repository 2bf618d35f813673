"""What a Python caller hands over, as plain lists and plain values: pandas, polars, numpy, torch, tuples and generators alike.

Order counts and nothing else: the index of a pandas Series is never looked at.
"""

from collections.abc import Iterable, Mapping, Set
from pathlib import PurePath
from typing import Any

from PIL.Image import Image

from newcomer.errors import DataError

SINGLE = (str, bytes, bytearray, memoryview, PurePath, Image)
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
        return value.item()
    return value


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
    for name in ("to_list", "tolist", "to_pylist"):
        if hasattr(values, name):
            values = getattr(values, name)()
            break
    if isinstance(values, (*SINGLE, Mapping, Set)) or not isinstance(values, Iterable):
        raise DataError(expected)
    return list(values)
