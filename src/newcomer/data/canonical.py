"""One spelling of every id and category, whatever type or program it comes from: the same value is the same text.

Text is Unicode NFC without the white space around it; a whole number is its digits, also where a spreadsheet made `3.0` of it
(`01` stays `01`); true and false are lower case; a date has the form of ISO 8601. What is no value (null, NaN, nothing but white
space) is missing. A float of 2⁵³ or more, or a number in scientific notation, has lost digits of what it was and names nothing.
"""

import math
import re
import unicodedata
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

from newcomer.errors import DataError

BLANK = "".join(c for c in map(chr, range(0x3001)) if c.isspace()) + "\u200b\ufeff"
"""White space, that of width 0 included: what is stripped from both ends."""

ZERO_FRACTION = r"^(-?)(0|[1-9][0-9]*)\.0+$"
SCIENTIFIC = r"^-?[0-9]+(?:\.[0-9]+)?[eE]\+[0-9]{2,}$"
ANSWER = r"(?i)^(?:true|false)$"
MOMENT = r"^([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.0+)?$"

_DOUBTFUL = re.compile(r"^\s|\s$|[^\x00-\x7f]|\.0+$|^-0$|:|^(?:true|false)$", re.IGNORECASE)

EXACT = {"Float64": 2.0**53, "Float32": 2.0**24, "Float16": 2.0**11}
"""From here on a float of this type skips whole numbers."""


def canonical(values: pl.Series, where: str) -> pl.Series:
    """Ids or categories as texts; null where there is none.

    >>> canonical(pl.Series("user", [1.0, None, 2.5]), "a.parquet").to_list()
    ['1', None, '2.5']
    >>> canonical(pl.Series("user", [" Ann", "3.0", "03", "", "TRUE"]), "a.csv").to_list()
    ['Ann', '3', '03', None, 'true']

    Raises DataError, with the row, for numbers that have lost digits, bytes that are no UTF-8, and lists.
    """
    if (row := lost(values)) is not None:
        raise DataError(f"{where}: row {row + 1}, column '{values.name}' {digits_lost(values[row])}")
    return names(values, where)


def digits_lost(value: object) -> str:
    """The end of a message about an id that is such a number."""
    return f"is {value!r}, a number that has lost digits; write ids and categories as text or as whole numbers"


def lost(values: pl.Series) -> int | None:
    """The first row whose number has lost digits; None where no row has."""
    if values.dtype.is_float():
        wrong = (values.abs() >= EXACT[str(values.dtype)]) & ~values.is_nan()
    elif values.dtype == pl.String:
        wrong = values.str.strip_chars(BLANK).str.contains(SCIENTIFIC)
    elif values.dtype in (pl.Categorical, pl.Enum):
        return lost(values.cast(pl.String))
    else:
        return None
    wrong = wrong.fill_null(False)
    return int(wrong.arg_true()[0]) if wrong.any() else None


def names(values: pl.Series, where: str) -> pl.Series:
    """As `canonical`, of numbers that have all their digits."""
    kind = values.dtype
    if kind == pl.String or kind in (pl.Categorical, pl.Enum):
        return _spelled(texts(values, where))
    if kind == pl.Object:
        return pl.Series(values.name, [canonical_name(value) for value in values], dtype=pl.String)
    if kind == pl.Binary:
        return _spelled(texts(values, where))
    if kind.is_float():
        return _floats(values)
    if kind.is_decimal():
        found = values.cast(pl.String)
        whole = found.str.contains(".", literal=True)
        return _where(whole, found.str.strip_chars_end("0").str.strip_chars_end("."), found)
    if kind == pl.Datetime:
        found = values.cast(pl.String).str.replace(r"(\.\d*?)0+([+-]|$)", "$1$2").str.replace(r"\.([+-]|$)", "$1")
        return _midnight(found)
    if kind.is_nested():
        raise DataError(f"{where}: column '{values.name}' holds {str(kind).lower()}; write one value a row")
    return values.cast(pl.String)


def texts(values: pl.Series, where: str) -> pl.Series:
    """Texts in NFC without white space around them; an empty one is missing.

    Raises DataError for bytes that are no UTF-8.
    """
    found = decoded_bytes(values, where) if values.dtype == pl.Binary else values.cast(pl.String)
    found = found.str.strip_chars(BLANK)
    if found.str.contains(r"[^\x00-\x7f]").any():
        found = found.str.normalize("NFC")
    return _where(found != "", found, pl.Series([None], dtype=pl.String))


def decoded_bytes(values: pl.Series, where: str) -> pl.Series:
    """Bytes as the text that they are in UTF-8. Raises DataError, with the row, where they are none."""
    found: list[str | None] = []
    for row, value in enumerate(values):
        try:
            found.append(None if value is None else value.decode("utf-8"))
        except UnicodeDecodeError:
            raise DataError(
                f"{where}: row {row + 1}, column '{values.name}' holds bytes that are no UTF-8; write text, or leave it out"
            ) from None
    return pl.Series(values.name, found, dtype=pl.String)


def canonical_name(value: Any) -> str | None:
    """One value as `canonical` spells it.

    >>> [canonical_name(value) for value in (3, 3.0, "3.0", True, Decimal("2.50"), None, float("nan"))]
    ['3', '3', '3', 'true', '2.5', None, None]

    Raises DataError for a number that has lost digits, and for what is no single value.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if hasattr(value, "item") and getattr(value, "shape", None) == () and not isinstance(value, np.floating):
        value = value.item()
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, bytes):
        value = decoded_bytes(pl.Series("value", [value]), "value")[0]
    if isinstance(value, str):
        return _spelled_one(value)
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value)).lower()
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return _float(value)
    if isinstance(value, Decimal):
        return None if value.is_nan() else _plain(format(value, "f"))
    if isinstance(value, datetime):
        return None if value != value else _spelled_one(_plain_time(value.isoformat(" ")))
    if isinstance(value, (date, time, timedelta)):
        return str(value)
    raise DataError(f"a {type(value).__name__} is no id or category; give text, a number, true or false")


def maybe_respelled(name: str) -> bool:
    """False for a text that is certainly spelled as it should be; quick, for very many names."""
    return _DOUBTFUL.search(name) is not None


def respelled(name: str) -> str:
    """The canonical spelling of a name that was kept by an older version; itself where there is none.

    >>> respelled(" Love"), respelled("3.0"), respelled("1e+20")
    ('Love', '3', '1e+20')
    """
    try:
        return canonical_name(name) or name
    except DataError:
        return name


def _float(value: Any) -> str | None:
    if math.isnan(value):
        return None
    if not abs(value) < EXACT.get(
        f"Float{value.dtype.itemsize * 8}" if isinstance(value, np.floating) else "", 2.0**53
    ):
        raise DataError(f"the id or category {digits_lost(float(value))}")
    return str(int(value)) if value == int(value) else str(value)


def _floats(values: pl.Series) -> pl.Series:
    found = values.fill_nan(None)
    whole = found == found.round()
    digits = _where(whole, found, pl.Series([None], dtype=found.dtype)).cast(pl.Int64).cast(pl.String)
    other = found.filter(~whole.fill_null(True)).unique()
    if not len(other):
        return digits
    as_python = np.float64 if values.dtype == pl.Float64 else np.float32
    spelled = [str(as_python(value)) for value in other]
    rest = found.replace_strict(other, pl.Series(spelled, dtype=pl.String), default=None, return_dtype=pl.String)
    return digits.fill_null(rest).alias(values.name)


def _spelled(found: pl.Series) -> pl.Series:
    """The rules of numbers, answers and dates for texts that are stripped and normal."""
    found = found.str.replace(ZERO_FRACTION, "$1$2").str.replace("^-0$", "0")
    found = _where(found.str.contains(ANSWER), found.str.to_lowercase(), found)
    return _midnight(found)


def _spelled_one(text: str) -> str | None:
    found = unicodedata.normalize("NFC", text.strip(BLANK))
    if re.search(SCIENTIFIC, found):
        raise DataError(f"the id or category {digits_lost(found)}")
    if not found:
        return None
    found = re.sub(r"^-0$", "0", re.sub(ZERO_FRACTION, r"\1\2", found))
    found = found.lower() if re.search(ANSWER, found) else found
    return re.sub(r"^([0-9-]{10}) 00:00:00$", r"\1", re.sub(MOMENT, r"\1 \2", found))


def _midnight(found: pl.Series) -> pl.Series:
    """A date and time with a blank between them, a date alone where the time is midnight."""
    if not found.str.contains(MOMENT).any():
        return found
    return found.str.replace(MOMENT, "$1 $2").str.replace("^([0-9]{4}-[0-9]{2}-[0-9]{2}) 00:00:00$", "$1")


def _plain(digits: str) -> str:
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _plain_time(text: str) -> str:
    return re.sub(r"\.([+-]|$)", r"\1", re.sub(r"(\.\d*?)0+([+-]|$)", r"\1\2", text))


def _where(condition: pl.Series, yes: pl.Series, no: pl.Series) -> pl.Series:
    """`yes` where the condition holds, `no` elsewhere, under the name of the first that has one."""
    return pl.select(pl.when(condition).then(yes).otherwise(no)).to_series().alias(yes.name or no.name)
