"""The one spelling of a class: what is written in several ways, or comes as a number, is one class."""

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from newcomer.data.containers import as_list, is_missing, plain
from newcomer.errors import DataError

WHOLE = re.compile(r"-?(0|[1-9][0-9]*)\.0+")
"""A whole number as a column of floats writes it, such as a spreadsheet's with a gap."""

EXACT = 2**53
"""From here on a float no longer holds every whole number."""


def class_name(value: Any) -> str:
    """The class that a label stands for: its text in Unicode's NFC without whitespace around it; a number in its shortest form.

    >>> [class_name(label) for label in (" card ", 3, 3.0, Decimal("3.00"), 0.5, True)]
    ['card', '3', '3', '3', '0.5', 'True']

    Raises DataError for a label that is missing, and for what is neither text nor a number.
    """
    value = plain(value)
    if is_missing(value):
        raise DataError("a label is missing; give every example a class, or leave the example out")
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, (float, Decimal)):
        return _of_number(value)
    raise DataError(f"of type {type(value).__name__}, which is no label; give texts or whole numbers")


def class_names(labels: Any, what: str = "labels") -> list[str]:
    """The class of each label of a list, Series, array, tensor or generator, in order.

    >>> class_names(["card", "card "])
    ['card', 'card']

    Raises DataError that says which label is none: see `class_name`.
    """
    found: list[str] = []
    known: dict[str, str] = {}
    for place, label in enumerate(as_list(labels, what)):
        if type(label) is str and label in known:
            found.append(known[label])
            continue
        try:
            found.append(class_name(label))
        except DataError as error:
            raise DataError(f"{what}[{place}]: {error}") from None
        if type(label) is str:
            known[label] = found[-1]
    return found


def known_names(names: Iterable[str]) -> list[str]:
    """Names that were stored, each in its one spelling; as they are where two of them would become the same.

    >>> known_names(["card ", "cash"]), known_names(["card ", "card"])
    (['card', 'cash'], ['card ', 'card'])
    """
    names = list(names)
    found = [name if is_missing(name) else _of_text(name) for name in names]
    return found if len(set(found)) == len(found) else names


def _of_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{text!a} is not UTF-8; write the name of the class as text") from None
    found = unicodedata.normalize("NFC", text).strip()
    return found.rstrip("0").rstrip(".") if WHOLE.fullmatch(found) else found


def _of_number(number: float | Decimal) -> str:
    if isinstance(number, Decimal) and number.is_nan():
        raise DataError("a label is missing; give every example a class, or leave the example out")
    if number in (float("inf"), float("-inf")):
        raise DataError(f"{number} is no label; give texts or whole numbers")
    if isinstance(number, float) and abs(number) >= EXACT:
        raise DataError(
            f"{number!r} is a float that has lost digits; give labels of this size as text or whole numbers"
        )
    if number == int(number):
        return str(int(number))
    return repr(float(number)) if isinstance(number, float) else format(number.normalize(), "f")
