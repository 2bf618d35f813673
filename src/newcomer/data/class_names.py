"""Normalization of class labels: different spellings and number types of a label give one class name."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

from newcomer.data.canonical import BLANK
from newcomer.data.containers import as_list, is_missing, to_python
from newcomer.errors import DataError

WHOLE = re.compile(r"-?(0|[1-9][0-9]*)\.0+")
"""Whole number as a float column writes it, such as a spreadsheet's with a gap."""

EXACT_INTEGERS = 2**53
"""From here on a float64 does not represent every whole number."""


def class_name(value: Any) -> str:
    """Class name of a label: text in NFC without surrounding whitespace, numbers in their shortest form, booleans in lower case.

    >>> [class_name(label) for label in (" card ", 3, 3.0, Decimal("3.00"), 0.5, True)]
    ['card', '3', '3', '3', '0.5', 'true']

    Raises DataError for a missing label, and one that is neither text nor number.
    """
    value = to_python(value)
    if is_missing(value):
        raise DataError("a label is missing; give every example a label, or remove the example")
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, (float, Decimal)):
        return _of_number(value)
    raise DataError(f"a label of type {type(value).__name__}; give texts or whole numbers")


def class_names(labels: Any, what: str = "labels") -> list[str]:
    """Class names of the labels of a list, Series, array, tensor or generator, in order.

    >>> class_names(["card", "card "])
    ['card', 'card']

    Raises DataError with the index of the invalid label: see `class_name`.
    """
    found: list[str] = []
    known: dict[str, str] = {}
    for index, label in enumerate(as_list(labels, what)):
        if type(label) is str and label in known:
            found.append(known[label])
            continue
        try:
            found.append(class_name(label))
        except DataError as error:
            raise DataError(f"{what}[{index}]: {error}") from None
        if type(label) is str:
            known[label] = found[-1]
    return found


def known_names(names: Iterable[str]) -> list[str]:
    """Normalize class names from a store, unless two of them would become equal.

    >>> known_names(["card ", "cash"]), known_names(["card ", "card"])
    (['card', 'cash'], ['card ', 'card'])
    """
    names = list(names)
    found = [name if is_missing(name) else _of_text(name) for name in names]
    return found if len(set(found)) == len(found) else names


def matching(pattern: str, known: Sequence[str], named: Collection[str] = ()) -> list[str]:
    """The class of this name; else the classes that match it as a pattern (`*`, `?`, `[…]`), without those `named` otherwise.

    >>> matching("n01*", ["n0144", "n0151", "n0200"]), matching("a*", ["a*", "ab"]), matching("n01*", ["n0144", "n0151"], ["n0151"])
    (['n0144', 'n0151'], ['a*'], ['n0144'])
    """
    if pattern in known:
        return [pattern]
    return [name for name in known if name not in named and fnmatchcase(name, pattern)]


def _of_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{text!a} is not UTF-8; write the class name as text") from None
    found = unicodedata.normalize("NFC", text).strip(BLANK)
    if found.lower() in ("true", "false"):  # a table's column of texts and one of booleans are the same labels
        return found.lower()
    return found.rstrip("0").rstrip(".") if WHOLE.fullmatch(found) else found


def _of_number(number: float | Decimal) -> str:
    if isinstance(number, Decimal) and number.is_nan():
        raise DataError("a label is missing; give every example a label, or remove the example")
    if number in (float("inf"), float("-inf")):
        raise DataError(f"{number} is not a label; give texts or whole numbers")
    if isinstance(number, float) and abs(number) >= EXACT_INTEGERS:
        raise DataError(f"{number!r} is a float that has lost digits; give labels of this size as text or integers")
    if number == int(number):
        return str(int(number))
    return repr(float(number)) if isinstance(number, float) else format(number.normalize(), "f")
