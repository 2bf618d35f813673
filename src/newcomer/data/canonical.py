"""Canonical text form of ids and categories, independent of type and file format.

Text is Unicode NFC without surrounding whitespace; a whole number is its digits, also if a spreadsheet wrote `3.0` (`01` stays
`01`); booleans are lower case; dates are ISO 8601. Null, NaN and blank text are missing. A float of 2⁵³ or more, or a number in
scientific notation, has lost digits and is rejected as an id.
"""

import math
import re
import unicodedata
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

from newcomer.errors import DataError

BLANK = "".join(c for c in map(chr, range(0x3001)) if c.isspace()) + "\u200b\ufeff"
"""Whitespace including zero-width characters, stripped from both ends."""

ZERO_FRACTION = r"^(-?)(0|[1-9][0-9]*)\.0+$"
SCIENTIFIC = r"^-?[0-9]+(?:\.[0-9]+)?[eE]\+[0-9]{2,}$"
BOOLEAN = r"(?i)^(?:true|false)$"
DATETIME = r"^([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.0+)?$"

HALF = re.compile("[\ud800-\udfff]")
"""Half of a character, which no encoding of texts can hold."""

_MAY_CHANGE = re.compile(
    rf"^[\s\u200b\ufeff]|[\s\u200b\ufeff]$|\.0+$|^-0$|[0-9]:[0-9]{{2}}:|^(?:true|false)$|{HALF.pattern}", re.IGNORECASE
)
"""What no canonical text has, besides characters that NFC changes, and some that canonical texts may have."""

FEW = 100
"""Texts up to this number are looked at one by one first: faster than the general way if they are canonical already."""

EXACT_INTEGERS = {"Float64": 2.0**53, "Float32": 2.0**24, "Float16": 2.0**11}
"""From here on a float of this type does not represent every whole number."""


def canonical(values: pl.Series, where: str) -> pl.Series:
    """Canonical texts of ids or categories; null if missing.

    >>> canonical(pl.Series("user", [1.0, None, 2.5]), "a.parquet").to_list()
    ['1', None, '2.5']
    >>> canonical(pl.Series("user", [" Ann", "3.0", "03", "", "TRUE"]), "a.csv").to_list()
    ['Ann', '3', '03', None, 'true']

    Raises DataError, with the row, for numbers that have lost digits, invalid UTF-8, and lists.
    """
    if (row := first_inexact(values)) is not None:
        raise DataError(f"{where}: row {row + 1}, column '{values.name}' {inexact_message(values[row])}")
    return canonical_names(values, where)


def inexact_message(value: object) -> str:
    """End of the message for such a number."""
    return f"is {value!r}, a number that has lost digits; write ids and categories as text or as whole numbers"


def first_inexact(values: pl.Series) -> int | None:
    """First row whose number has lost digits; None if there is none."""
    if values.dtype.is_float():
        wrong = (values.abs() >= EXACT_INTEGERS[str(values.dtype)]) & ~values.is_nan()
    elif values.dtype == pl.String:
        if not values.str.contains(r"[eE]\+").any():
            return None
        wrong = values.str.strip_chars(BLANK).str.contains(SCIENTIFIC)
    elif values.dtype in (pl.Categorical, pl.Enum):
        return first_inexact(values.cast(pl.String))
    else:
        return None
    wrong = wrong.fill_null(False)
    return int(wrong.arg_true()[0]) if wrong.any() else None


def canonical_names(values: pl.Series, where: str) -> pl.Series:
    """Like `canonical`, for columns without inexact numbers."""
    kind = values.dtype
    if kind == pl.String and len(values) <= FEW and all(name is None or plain_name(name) for name in values.to_list()):
        return values
    if kind == pl.String or kind in (pl.Categorical, pl.Enum):
        return _canonical_texts(normalized_texts(values, where))
    if kind == pl.Object:
        return pl.Series(values.name, [canonical_name(value) for value in values], dtype=pl.String)
    if kind == pl.Binary:
        return _canonical_texts(normalized_texts(values, where))
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
        raise DataError(f"{where}: column '{values.name}' holds {str(kind).lower()}; write one value per row")
    return values.cast(pl.String)


def map_distinct(values: pl.Series, read: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """Apply `read` to the distinct values of a text column; nulls stay null.

    Raises DataError as `read` on the whole column does.
    """
    known = values.drop_nulls().unique()
    if values.dtype != pl.String or 2 * len(known) > len(values):
        return read(values)
    try:
        made = read(known)
    except DataError:
        return read(values)
    if made.dtype == pl.String and not made.null_count() and (made == known).all():
        return values
    pairs = pl.DataFrame([known.alias("text"), made.alias("made")])
    return values.to_frame("text").join(pairs, on="text", how="left", maintain_order="left")["made"].alias(values.name)


def normalized_texts(values: pl.Series, where: str) -> pl.Series:
    """Texts in NFC without surrounding whitespace; empty ones are null.

    Raises DataError for invalid UTF-8.
    """
    found = decoded_bytes(values, where) if values.dtype == pl.Binary else values.cast(pl.String)
    found = found.str.strip_chars(BLANK)
    if found.str.contains(r"[^\x00-\x7f]").any():
        found = found.str.normalize("NFC")
    return _where(found != "", found, pl.Series([None], dtype=pl.String))


def decoded_bytes(values: pl.Series, where: str) -> pl.Series:
    """Decode bytes as UTF-8. Raises DataError with the row of invalid bytes."""
    found: list[str | None] = []
    for row, value in enumerate(values):
        try:
            found.append(None if value is None else value.decode("utf-8"))
        except UnicodeDecodeError:
            raise DataError(
                f"{where}: row {row + 1}, column '{values.name}' holds bytes that are not UTF-8; write text, or remove the column"
            ) from None
    return pl.Series(values.name, found, dtype=pl.String)


def canonical_name(value: Any) -> str | None:
    """Canonical text of one value.

    >>> [canonical_name(value) for value in (3, 3.0, "3.0", True, Decimal("2.50"), None, float("nan"))]
    ['3', '3', '3', 'true', '2.5', None, None]

    Raises DataError for a number that has lost digits, half of a character, and a value that is not a scalar.
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
        return _canonical_text(value)
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value)).lower()
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return _float(value)
    if isinstance(value, Decimal):
        return None if value.is_nan() else _trim_zeros(format(value, "f"))
    if isinstance(value, datetime):
        return None if value != value else _canonical_text(_trim_fraction(value.isoformat(" ")))
    if isinstance(value, (date, time, timedelta)):
        return str(value)
    raise DataError(f"a {type(value).__name__} is not an id or category; give text, a number, true or false")


def may_change(name: str) -> bool:
    """Fast check: False only if the text is already canonical."""
    return _MAY_CHANGE.search(name) is not None or not (name.isascii() or unicodedata.is_normalized("NFC", name))


def plain_name(value: Any) -> str | None:
    """`canonical_name` of a text, number or boolean, if no rule but that of whole numbers applies to it; else None.

    >>> [plain_name(value) for value in ("Ann", 3, 3.0, 2.5, True, " Ann", "3.0", 2.0**53)]
    ['Ann', '3', '3', '2.5', 'true', None, None, None]
    """
    kind = type(value)
    if kind is str:
        return None if not value or "+" in value or may_change(value) else value
    if kind is bool:
        return str(value).lower()
    if kind in (int, float) and abs(value) < EXACT_INTEGERS["Float64"]:
        return str(int(value)) if value == int(value) else str(value)
    return None


def canonical_or_same(name: str) -> str:
    """Canonical form of a name from an older store; unchanged if it has none.

    >>> canonical_or_same(" Love"), canonical_or_same("3.0"), canonical_or_same("1e+20")
    ('Love', '3', '1e+20')
    """
    try:
        return canonical_name(name) or name
    except DataError:
        return name


def _float(value: Any) -> str | None:
    if math.isnan(value):
        return None
    if not abs(value) < EXACT_INTEGERS.get(
        f"Float{value.dtype.itemsize * 8}" if isinstance(value, np.floating) else "", 2.0**53
    ):
        raise DataError(f"the id or category {inexact_message(float(value))}")
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


def _canonical_texts(found: pl.Series) -> pl.Series:
    """Canonical numbers, booleans and dates in stripped NFC texts."""
    found = found.str.replace(ZERO_FRACTION, "$1$2").str.replace("^-0$", "0")
    found = _where(found.str.contains(BOOLEAN), found.str.to_lowercase(), found)
    return _midnight(found)


def _canonical_text(text: str) -> str | None:
    if not text.isascii() and HALF.search(text):
        raise DataError(
            f"the id or category {text!r} has half of a character (a lone surrogate); write whole characters"
        )
    found = unicodedata.normalize("NFC", text.strip(BLANK))
    if re.search(SCIENTIFIC, found):
        raise DataError(f"the id or category {inexact_message(found)}")
    if not found:
        return None
    found = re.sub(r"^-0$", "0", re.sub(ZERO_FRACTION, r"\1\2", found))
    found = found.lower() if re.search(BOOLEAN, found) else found
    return re.sub(r"^([0-9-]{10}) 00:00:00$", r"\1", re.sub(DATETIME, r"\1 \2", found))


def _midnight(found: pl.Series) -> pl.Series:
    """Datetimes with a blank between date and time; at midnight the date alone."""
    if not found.str.contains(DATETIME).any():
        return found
    return found.str.replace(DATETIME, "$1 $2").str.replace("^([0-9]{4}-[0-9]{2}-[0-9]{2}) 00:00:00$", "$1")


def _trim_zeros(digits: str) -> str:
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _trim_fraction(text: str) -> str:
    return re.sub(r"\.([+-]|$)", r"\1", re.sub(r"(\.\d*?)0+([+-]|$)", r"\1\2", text))


def _where(condition: pl.Series, yes: pl.Series, no: pl.Series) -> pl.Series:
    """`yes` where the condition holds, else `no`; named like the first that has a name."""
    return pl.select(pl.when(condition).then(yes).otherwise(no)).to_series().alias(yes.name or no.name)
