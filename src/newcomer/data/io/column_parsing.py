"""A column of a click log as its schema says: text, lists of text, numbers, vectors; or an error that names the row."""

from collections.abc import Collection, Mapping

import polars as pl

from newcomer.data.canonical import BLANK, by_value, canonical_name, decoded_bytes, digits_lost, lost, names, texts
from newcomer.data.io.frames import odd_one, series_of
from newcomer.data.schema import Field
from newcomer.data.tokenization import words_of
from newcomer.errors import DataError

ROW = "row "
"""Beside a schema's columns: where a row stood in what was read, from 0; no name in a schema should end in a blank."""

MARK = "set missing = 'mark' in the schema"
"""What makes an empty value of most fields none."""

ANSWERS = {"true": 1.0, "false": 0.0}


def column(
    frame: pl.DataFrame, field: Field, where: str, missing: Collection[str] = (), advice: str = MARK
) -> pl.Series:
    """The values of a field, ids and categories as `canonical` spells them; what is empty, or in `missing`, is no value.

    Raises DataError, with file and row, for what is missing where that is an error (`advice`: what else to do), and for what cannot
    be read.
    """
    given = plain(frame[field.name], where, frame)
    if given.dtype.is_nested() and not (given.dtype == pl.List and field.kind in ("multi", "vector")):
        row = row_of(frame, given.is_not_null()) if given.null_count() < len(given) else 1
        raise DataError(
            f"{where}: row {row}, column '{field.name}' is {field.kind}, but holds {str(given.dtype).lower()}; "
            "set kind = 'multi' or 'vector' for lists, or make plain columns of it"
        )
    if field.is_numeric:
        numbers = _numbers(frame, given, where, missing, advice if field.missing == "error" else None)
        return numbers.alias(field.name)
    if field.kind == "vector":
        found = _vectors(frame, given, where, missing)
    elif field.is_multi:
        found = by_value(given, lambda values: _several(frame, values, field, where, missing))
    elif field.kind == "text":
        found = without(texts(given, where), missing)
    else:
        found = without(_named(frame, given, where), missing)
    if field.missing == "error" and found.null_count():
        row = row_of(frame, found.is_null())
        raise DataError(f"{where}: row {row}, column '{field.name}' is empty; fill it, or {advice}")
    return found.alias(field.name)


def plain(given: pl.Series, where: str, frame: pl.DataFrame | None = None) -> pl.Series:
    """A column in a type to compute with: bytes and categories as text, arrays as lists, Python's own objects as what they are.

    Raises DataError, with the row in `frame`, for an object or a list among single values.
    """
    if given.dtype == pl.Binary:
        return decoded_bytes(given, where)
    if given.dtype == pl.Object:
        values = list(given)
        if (at := odd_one(values)) is not None:
            rows = frame[ROW] if frame is not None and ROW in frame.columns else range(len(values))
            kind = "an object" if isinstance(values[at], Mapping) else "a list"
            raise DataError(
                f"{where}: row {rows[at] + 1}, column '{given.name}' holds {kind} where others hold one value; write one value"
            )
        return series_of(given.name, values, where)
    if given.dtype in (pl.Categorical, pl.Enum):
        return given.cast(pl.String)
    return given.arr.to_list() if given.dtype == pl.Array else given


def row_of(frame: pl.DataFrame, wrong: pl.Series) -> int:
    """The first row where this holds, counted from 1 in what was read."""
    at = int(wrong.fill_null(False).arg_true()[0])
    return int(frame[ROW][at] if ROW in frame.columns else at) + 1


def without(found: pl.Series, missing: Collection[str]) -> pl.Series:
    """The texts, nothing in the place of those that say so."""
    if not missing:
        return found
    return _dropped(found, found.is_in([*missing, *(name for name in map(canonical_name, missing) if name)]))


def numbers_of(given: pl.Series) -> pl.Series:
    """As numbers, white space around them taken off; true is 1, false is 0, null what is none."""
    if given.dtype != pl.String:
        return given.cast(pl.Float64, strict=False)
    found = given.str.strip_chars(BLANK)
    numbers = found.cast(pl.Float64, strict=False)
    if numbers.null_count() == given.null_count():
        return numbers
    return numbers.fill_null(found.str.to_lowercase().replace_strict(ANSWERS, default=None, return_dtype=pl.Float64))


def _named(frame: pl.DataFrame, given: pl.Series, where: str) -> pl.Series:
    if (at := lost(given)) is not None:
        row = int(frame[ROW][at] if ROW in frame.columns else at) + 1
        raise DataError(f"{where}: row {row}, column '{given.name}' {digits_lost(given[at])}")
    return by_value(given, lambda values: names(values, where))


def _several(frame: pl.DataFrame, given: pl.Series, field: Field, where: str, missing: Collection[str]) -> pl.Series:
    """The first `most` distinct values or words of each; rows are the frame's, unless only different ones are given."""
    if given.dtype != pl.List:
        found = texts(given, where) if given.dtype == pl.String else _named(frame, given, where)
        found = _filled(without(found, missing), given, missing)
        parts = words_of(found) if field.kind == "text" else found.str.split(field.separator)
    else:
        parts = given
    if field.kind == "multi":
        parts = _each_named(frame, parts, where, missing)
    return parts.list.unique(maintain_order=True).list.head(field.most)


def _filled(found: pl.Series, given: pl.Series, missing: Collection[str]) -> pl.Series:
    """An empty text where one was given: no values rather than none known. What is said to be missing stays so."""
    if given.dtype != pl.String:
        return found
    empty = given.str.strip_chars(BLANK) == ""
    kept = found.is_null() & empty if "" not in missing else pl.Series([False])
    return pl.select(pl.when(kept).then(pl.lit("")).otherwise(found).alias(found.name)).to_series()


def _each_named(frame: pl.DataFrame, lists: pl.Series, where: str, missing: Collection[str]) -> pl.Series:
    """Lists of canonical names, without the elements that are none."""
    inner = lists.dtype.inner if isinstance(lists.dtype, pl.List) else pl.Null()
    if inner == pl.Null():
        return lists.cast(pl.List(pl.String)).list.drop_nulls()
    known = plain(lists.explode(), where).drop_nulls().unique()
    if known.dtype.is_nested():
        raise DataError(f"{where}: column '{lists.name}' holds lists of {str(inner).lower()}; write a list of values")
    if (at := lost(known)) is not None:
        row = row_of(frame, lists.list.contains(known[at]))
        raise DataError(f"{where}: row {row}, column '{lists.name}' holds a number that {digits_lost(known[at])}")
    spelled = without(names(known, where), missing)
    if known.dtype == pl.String:
        lists = lists.cast(pl.List(pl.String))
        if (spelled == known).all() and not spelled.null_count():
            return lists.list.drop_nulls()
    element = pl.element().replace_strict(known, spelled, default=None, return_dtype=pl.String)
    return lists.list.eval(element).list.drop_nulls()


def _amount(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _numbers(
    frame: pl.DataFrame, given: pl.Series, where: str, missing: Collection[str], advice: str | None
) -> pl.Series:
    """`advice` is what to do about a missing number; None where it may be missing."""
    if given.dtype == pl.String and missing:
        given = _dropped(given, given.str.strip_chars(BLANK).is_in(list(missing)))
    if given.dtype.is_temporal():
        raise DataError(
            f"{where}: column '{given.name}' holds {str(given.dtype).lower()}, no numbers; make a number of it"
        )
    if amounts := [amount for word in missing if (amount := _amount(word)) is not None]:  # -1 and "-1" are one number
        given = _dropped(given, numbers_of(given).is_in(amounts).fill_null(False))
    numbers = numbers_of(given)
    wrong = numbers.is_null() & given.is_not_null()
    if given.dtype == pl.String:
        wrong &= given.str.strip_chars(BLANK) != ""
    if wrong.any():
        at = int(wrong.arg_true()[0])
        raise DataError(f"{where}: row {row_of(frame, wrong)}, column '{given.name}': {given[at]!r} is not a number")
    numbers = numbers.fill_null(float("nan"))
    if numbers.is_infinite().any():
        raise DataError(
            f"{where}: row {row_of(frame, numbers.is_infinite())}, column '{given.name}' is infinite; write a finite number"
        )
    if advice is not None and numbers.is_nan().any():
        row = row_of(frame, numbers.is_nan())
        raise DataError(f"{where}: row {row}, column '{given.name}' is nan; fill it, or {advice}")
    return numbers


def _vectors(frame: pl.DataFrame, given: pl.Series, where: str, missing: Collection[str]) -> pl.Series:
    """Lists of numbers of one length; of an empty list there is none.

    A list that holds what is no finite number, or is longer or shorter than the first, is an error.
    """
    if given.dtype != pl.List:
        inner = without(given.cast(pl.String).str.strip_chars(BLANK), missing).str.strip_chars("[] ")
        given = _dropped(inner, inner == "").str.split(",")
    numbers = given.list.eval(
        (pl.element().str.strip_chars() if given.dtype == pl.List(pl.String) else pl.element()).cast(
            pl.Float32, strict=False
        )
    )
    lengths = numbers.list.len()
    numbers, size = _dropped(numbers, lengths == 0), lengths.filter(lengths > 0).first() or 0
    finite = numbers.list.eval(pl.element().is_finite().fill_null(False)).list.all()
    wrong = numbers.is_not_null() & ~(finite & (lengths == size))
    if wrong.any():
        found: list[object] = given[int(wrong.arg_true()[0])].to_list()
        raise DataError(
            f"{where}: row {row_of(frame, wrong)}, column '{given.name}' is {found[:3]} and so on, {len(found)} in all; "
            f"write a list of {size!r} finite numbers, as in the first row that has one"
        )
    return numbers


def _dropped(series: pl.Series, where: pl.Series) -> pl.Series:
    """The series, nothing where this holds."""
    return pl.select(pl.when(where).then(None).otherwise(series).alias(series.name)).to_series()
