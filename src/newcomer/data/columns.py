"""A column of a click log as its schema says: text, lists of text, numbers, vectors; or an error that names the row."""

import polars as pl

from newcomer.data.schema import Field, Schema
from newcomer.errors import DataError

WORD = r"[\p{L}\p{N}][\p{L}\p{N}']*"
ANSWERS = {"true": 1.0, "false": 0.0}


def column(frame: pl.DataFrame, field: Field, where: str) -> pl.Series:
    """The values of a field; an empty text counts as missing, in a list of values as no value.

    Raises DataError, with file and row, for what is missing where that is an error, and for what cannot be read.
    """
    given = frame[field.name]
    if given.dtype == pl.Array:
        given = given.arr.to_list()
    if given.dtype.is_nested() and not (given.dtype == pl.List and field.kind in ("multi", "vector")):
        raise DataError(
            f"{where}: column '{field.name}' is {field.kind}, but holds {str(given.dtype).lower()}; "
            "set kind = 'multi' or 'vector' for lists, or make plain columns of it"
        )
    if field.is_numeric:
        return _numbers(given, where, needed=field.missing == "error")
    if field.kind == "vector":
        found = _vectors(given, where)
    elif given.dtype == pl.List:
        found = given.list.eval(pl.element().cast(pl.String))
    else:
        found = given.cast(pl.String)
        if not field.is_multi:
            found = _without(found, found == "")
    if field.missing == "error" and found.null_count():
        row = int(found.is_null().arg_true()[0])
        raise DataError(
            f"{where}: row {row + 1}, column '{field.name}' is empty; fill it, or set missing = 'mark' in the schema"
        )
    return _several(found, field) if field.is_multi else found


def labels(frame: pl.DataFrame, schema: Schema, where: str) -> pl.Series:
    """1 for a click and 0 for none: what is so already, true and false, or where the schema has a threshold what reaches it.

    Raises DataError, with file and row, for another label.
    """
    given = frame[schema.label]
    if given.dtype.is_nested():
        raise DataError(f"{where}: label '{given.name}' holds {str(given.dtype).lower()}; write one number a row")
    numbers, threshold = grades(given), schema.clicked_from
    wanted = "write 1 for a click and 0 for none, or set clicked_from" if threshold is None else "write a number"
    right = numbers.is_in([0.0, 1.0]) if threshold is None else numbers.is_finite()
    if not right.fill_null(False).all():
        row = int((~right.fill_null(False)).arg_true()[0])
        raise DataError(f"{where}: row {row + 1}, label '{schema.label}' is {given[row]!r}; {wanted}")
    return (numbers if threshold is None else numbers >= threshold).cast(pl.Float32)


def grades(given: pl.Series) -> pl.Series:
    """Labels as numbers: true is 1, false is 0, null what is none."""
    numbers = given.cast(pl.Float64, strict=False)
    if given.dtype != pl.String:
        return numbers
    return numbers.fill_null(given.str.to_lowercase().replace_strict(ANSWERS, default=None, return_dtype=pl.Float64))


def _several(given: pl.Series, field: Field) -> pl.Series:
    """The first `most` distinct values or words of each."""
    if field.kind == "text":
        parts = given.str.to_lowercase().str.extract_all(WORD)
    else:
        parts = given if given.dtype == pl.List else given.str.split(field.separator)
        parts = parts.list.eval(pl.element().filter(pl.element() != ""))
    return parts.list.unique(maintain_order=True).list.head(field.most)


def _numbers(given: pl.Series, where: str, needed: bool) -> pl.Series:
    numbers = given.cast(pl.Float64, strict=False)
    wrong = numbers.is_null() & given.is_not_null() & (given.cast(pl.String) != "")
    if wrong.any():
        row = int(wrong.arg_true()[0])
        raise DataError(f"{where}: row {row + 1}, column '{given.name}': '{given[row]}' is not a number")
    numbers = numbers.fill_null(float("nan"))
    unusable = ~numbers.is_finite() if needed else numbers.is_infinite()
    if unusable.any():
        row = int(unusable.arg_true()[0])
        found = numbers[row]
        raise DataError(
            f"{where}: row {row + 1}, column '{given.name}' is {found}; fill it, or set missing = 'mark' in the schema"
        )
    return numbers


def _vectors(given: pl.Series, where: str) -> pl.Series:
    """Lists of numbers of one length; of an empty list there is none.

    A list that holds what is no finite number, or is longer or shorter than the first, is an error.
    """
    if given.dtype != pl.List:
        inner = given.cast(pl.String).str.strip_chars("[] ")
        given = _without(inner, inner == "").str.split(",")
    numbers = given.list.eval(
        (pl.element().str.strip_chars() if given.dtype == pl.List(pl.String) else pl.element()).cast(
            pl.Float32, strict=False
        )
    )
    lengths = numbers.list.len()
    numbers, size = _without(numbers, lengths == 0), lengths.filter(lengths > 0).first() or 0
    finite = numbers.list.eval(pl.element().is_finite().fill_null(False)).list.all()
    wrong = numbers.is_not_null() & ~(finite & (lengths == size))
    if wrong.any():
        row = int(wrong.arg_true()[0])
        found: list[object] = given[row].to_list()
        raise DataError(
            f"{where}: row {row + 1}, column '{given.name}' is {found[:3]} and so on, {len(found)} in all; "
            f"write a list of {size!r} finite numbers, as in the first row that has one"
        )
    return numbers


def _without(series: pl.Series, where: pl.Series) -> pl.Series:
    """The series, nothing where this holds."""
    return pl.select(pl.when(where).then(None).otherwise(series).alias(series.name)).to_series()
