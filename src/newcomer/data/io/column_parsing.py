"""Parsing of click log columns by the type of their field; errors name the row."""

from collections.abc import Collection
from dataclasses import replace

import polars as pl

from newcomer.data.canonical import (
    BLANK,
    canonical_name,
    canonical_names,
    decoded_bytes,
    first_inexact,
    inexact_message,
    map_distinct,
    normalized_texts,
)
from newcomer.data.io.frames import as_series, is_list, value_dtype
from newcomer.data.schema import Field
from newcomer.data.tokenization import tokenize
from newcomer.errors import DataError

ROW = "row "
"""Added column: row number in the source, from 0; see `INTERNAL_COLUMNS` of `data.schema`."""

MARK = "set missing = 'mark' in the schema"
"""Advice for missing values of most fields."""

BOOLEANS = {"true": 1.0, "false": 0.0}


def parse_column(
    frame: pl.DataFrame, field: Field, where: str, missing: Collection[str] = (), advice: str = MARK
) -> pl.Series:
    """Parsed values of a field; ids and categories in canonical form; empty values and those in `missing` are null.

    Raises DataError, with file and row, for missing values where they are an error (`advice` completes the message) and for
    invalid ones.
    """
    lists = field.kind in ("multi", "vector")
    if lists and frame[field.name].dtype == pl.Object and any(map(is_list, frame[field.name])):
        return _parse_mixed(frame, field, where, missing, advice)
    given = scalar_values(frame, field.name, where)
    if given.dtype.is_nested() and not (given.dtype == pl.List and lists):
        row = row_number(frame, given.is_not_null()) if given.null_count() < len(given) else 1
        raise DataError(
            f"{where}: row {row}, column '{field.name}' is {field.kind}, but holds {str(given.dtype).lower()}; "
            "set kind = 'multi' or 'vector' for lists, or split it into scalar columns"
        )
    if field.is_numeric:
        numbers = _numbers(frame, given, where, missing, advice if field.missing == "error" else None)
        return numbers.alias(field.name)
    if field.kind == "vector":
        found = _vectors(frame, given, where, missing)
    elif field.is_multi:
        found = map_distinct(given, lambda values: _lists_of_names(frame, values, field, where, missing))
    elif field.kind == "text":
        found = null_out(normalized_texts(given, where), missing)
    else:
        found = null_out(_canonical_column(frame, given, where), missing)
    return _require_present(frame, field, found, where, advice)


def to_simple_dtype(given: pl.Series, where: str) -> pl.Series:
    """Convert bytes and categoricals to text, arrays to lists, and Python objects to a common dtype."""
    if given.dtype == pl.Binary:
        return decoded_bytes(given, where)
    if given.dtype == pl.Object:
        return as_series(given.name, list(given), where)
    if given.dtype in (pl.Categorical, pl.Enum):
        return given.cast(pl.String)
    return given.arr.to_list() if given.dtype == pl.Array else given


def scalar_values(frame: pl.DataFrame, name: str, where: str, what: str = "column") -> pl.Series:
    """Column of scalars in a simple dtype: see `to_simple_dtype`. A column of lists only is returned as such.

    Raises DataError, with the row, for an object, and for a list among scalars.
    """
    if frame[name].dtype == pl.Object:
        _require_supported(frame, name, where, what, lists=False)
    return to_simple_dtype(frame[name], where)


def row_number(frame: pl.DataFrame, wrong: pl.Series) -> int:
    """First row where the mask is true, counted from 1 in the source."""
    at = int(wrong.fill_null(False).arg_true()[0])
    return int(frame[ROW][at] if ROW in frame.columns else at) + 1


def null_out(found: pl.Series, missing: Collection[str]) -> pl.Series:
    """Set the texts in `missing` to null."""
    if not missing:
        return found
    return _set_null(found, found.is_in([*missing, *(name for name in map(canonical_name, missing) if name)]))


def to_numbers(given: pl.Series) -> pl.Series:
    """Convert to numbers, stripping whitespace; true is 1, false is 0, null if not numeric."""
    if given.dtype != pl.String:
        return given.cast(pl.Float64, strict=False)
    found = given.str.strip_chars(BLANK)
    numbers = found.cast(pl.Float64, strict=False)
    if numbers.null_count() == given.null_count():
        return numbers
    return numbers.fill_null(found.str.to_lowercase().replace_strict(BOOLEANS, default=None, return_dtype=pl.Float64))


def _require_supported(frame: pl.DataFrame, name: str, where: str, what: str, *, lists: bool) -> None:
    """Raises DataError for the first Python object that is neither a scalar nor, if `lists`, a list of scalars."""
    for at, value in enumerate(frame[name]):
        dtype = value_dtype(name, value, where)
        if dtype is not None and dtype.is_nested():
            inner = dtype.inner if isinstance(dtype, pl.List) else dtype
            supported = lists and not inner.is_nested()
        else:
            supported = dtype is not None
        if not supported:
            row = int(frame[ROW][at] if ROW in frame.columns else at) + 1
            raise DataError(
                f"{where}: row {row}, {what} '{name}' holds {repr(value)[:60]} of type {type(value).__name__}; "
                f"write {'a scalar or a list of scalars' if lists else 'a scalar'}"
            )


def _parse_mixed(frame: pl.DataFrame, field: Field, where: str, missing: Collection[str], advice: str) -> pl.Series:
    """Parse a field with lists in some rows and text in others, each row as if it were alone."""
    _require_supported(frame, field.name, where, "column", lists=True)
    values = frame[field.name].to_list()
    listed = pl.Series([is_list(value) for value in values])
    parts = (
        as_series(field.name, [value if kind == is_list(value) else None for value in values], where)
        for kind in (True, False)
    )
    optional = replace(field, missing="mark")
    lists, others = (parse_column(frame.with_columns(part), optional, where, missing) for part in parts)
    found = pl.select(pl.when(listed).then(lists).otherwise(others).alias(field.name)).to_series()
    return _require_present(frame, field, found, where, advice)


def _require_present(frame: pl.DataFrame, field: Field, found: pl.Series, where: str, advice: str) -> pl.Series:
    """Raises DataError, with the row, for a missing value where it is an error."""
    if field.missing == "error" and found.null_count():
        row = row_number(frame, found.is_null())
        raise DataError(f"{where}: row {row}, column '{field.name}' is empty; fill it, or {advice}")
    return found.alias(field.name)


def _canonical_column(frame: pl.DataFrame, given: pl.Series, where: str) -> pl.Series:
    if (at := first_inexact(given)) is not None:
        row = int(frame[ROW][at] if ROW in frame.columns else at) + 1
        raise DataError(f"{where}: row {row}, column '{given.name}' {inexact_message(given[at])}")
    return map_distinct(given, lambda values: canonical_names(values, where))


def _lists_of_names(
    frame: pl.DataFrame, given: pl.Series, field: Field, where: str, missing: Collection[str]
) -> pl.Series:
    """First `max_values` distinct values or words of each row; `frame` gives row numbers for errors."""
    if given.dtype != pl.List:
        found = normalized_texts(given, where) if given.dtype == pl.String else _canonical_column(frame, given, where)
        found = _keep_empty(null_out(found, missing), given, missing)
        parts = tokenize(found) if field.kind == "text" else found.str.split(field.separator)
    else:
        parts = given
    if field.kind == "multi":
        parts = _canonical_lists(frame, parts, where, missing)
    return parts.list.unique(maintain_order=True).list.head(field.max_values)


def _keep_empty(found: pl.Series, given: pl.Series, missing: Collection[str]) -> pl.Series:
    """Keep an empty text as a list without values instead of missing, unless '' is in `missing`."""
    if given.dtype != pl.String:
        return found
    empty = given.str.strip_chars(BLANK) == ""
    kept = found.is_null() & empty if "" not in missing else pl.Series([False])
    return pl.select(pl.when(kept).then(pl.lit("")).otherwise(found).alias(found.name)).to_series()


def _canonical_lists(frame: pl.DataFrame, lists: pl.Series, where: str, missing: Collection[str]) -> pl.Series:
    """Canonicalize list elements and drop missing ones."""
    inner = lists.dtype.inner if isinstance(lists.dtype, pl.List) else pl.Null()
    if inner == pl.Null():
        return lists.cast(pl.List(pl.String)).list.drop_nulls()
    known = to_simple_dtype(lists.explode(), where).drop_nulls().unique()
    if known.dtype.is_nested():
        raise DataError(f"{where}: column '{lists.name}' holds lists of {str(inner).lower()}; write a list of values")
    if (at := first_inexact(known)) is not None:
        row = row_number(frame, lists.list.contains(known[at]))
        raise DataError(f"{where}: row {row}, column '{lists.name}' holds a number that {inexact_message(known[at])}")
    spelled = null_out(canonical_names(known, where), missing)
    if known.dtype == pl.String:
        lists = lists.cast(pl.List(pl.String))
        if (spelled == known).all() and not spelled.null_count():
            return lists.list.drop_nulls()
    element = pl.element().replace_strict(known, spelled, default=None, return_dtype=pl.String)
    return lists.list.eval(element).list.drop_nulls()


def _float_or_none(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _numbers(
    frame: pl.DataFrame, given: pl.Series, where: str, missing: Collection[str], advice: str | None
) -> pl.Series:
    """`advice`: what to do about missing numbers; None if they are allowed."""
    if given.dtype == pl.String and missing:
        given = _set_null(given, given.str.strip_chars(BLANK).is_in(list(missing)))
    if given.dtype.is_temporal():
        raise DataError(f"{where}: column '{given.name}' holds {str(given.dtype).lower()}, not numbers; convert it")
    if null_numbers := [
        number for word in missing if (number := _float_or_none(word)) is not None
    ]:  # -1 and "-1" are one number
        given = _set_null(given, to_numbers(given).is_in(null_numbers).fill_null(False))
    numbers = to_numbers(given)
    wrong = numbers.is_null() & given.is_not_null()
    if given.dtype == pl.String:
        wrong &= given.str.strip_chars(BLANK) != ""
    if wrong.any():
        at = int(wrong.arg_true()[0])
        raise DataError(
            f"{where}: row {row_number(frame, wrong)}, column '{given.name}': {given[at]!r} is not a number"
        )
    numbers = numbers.fill_null(float("nan"))
    if numbers.is_infinite().any():
        raise DataError(
            f"{where}: row {row_number(frame, numbers.is_infinite())}, column '{given.name}' is infinite; write a finite number"
        )
    if advice is not None and numbers.is_nan().any():
        row = row_number(frame, numbers.is_nan())
        raise DataError(f"{where}: row {row}, column '{given.name}' is empty; fill it, or {advice}")
    return numbers


def _vectors(frame: pl.DataFrame, given: pl.Series, where: str, missing: Collection[str]) -> pl.Series:
    """Lists of finite numbers of one length; an empty list is missing.

    Raises DataError for other elements and for lists of another length than the first.
    """
    if given.dtype != pl.List:
        inner = null_out(given.cast(pl.String).str.strip_chars(BLANK), missing).str.strip_chars("[] ")
        given = _set_null(inner, inner == "").str.split(",")
    numbers = given.list.eval(
        (pl.element().str.strip_chars() if given.dtype == pl.List(pl.String) else pl.element()).cast(
            pl.Float32, strict=False
        )
    )
    lengths = numbers.list.len()
    numbers, size = _set_null(numbers, lengths == 0), lengths.filter(lengths > 0).first() or 0
    finite = numbers.list.eval(pl.element().is_finite().fill_null(False)).list.all()
    wrong = numbers.is_not_null() & ~(finite & (lengths == size))
    if wrong.any():
        found: list[object] = given[int(wrong.arg_true()[0])].to_list()
        raise DataError(
            f"{where}: row {row_number(frame, wrong)}, column '{given.name}' starts with {found[:3]}, {len(found)} in all; "
            f"write {size!r} finite numbers, as in the first row"
        )
    return numbers


def _set_null(series: pl.Series, where: pl.Series) -> pl.Series:
    """Set to null where the mask is true."""
    return pl.select(pl.when(where).then(None).otherwise(series).alias(series.name)).to_series()
