"""Inference of field kinds from values: categorical, multi, numeric, text, vector."""

import math
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from newcomer.data.canonical import BLANK
from newcomer.data.inference.column_names import CODE_WORDS, QUANTITY_WORDS, words
from newcomer.data.schema import Kind
from newcomer.data.tokenization import tokenize

MAX_CATEGORIES = 20
"""Integers with at most this many distinct values are categories."""

LONG_TAIL = 50
"""With at least this many distinct values, values that occur once may be left out."""


MAX_SMOOTHED = 500
"""Categories that are smoothed at most: each gradient step takes the mean of all of them for each."""

MIN_DECIMAL_SHARE = 0.8
"""Minimum share of values with one comma in a column of whole and decimal numbers."""


@dataclass(frozen=True)
class KindGuess:
    """Inferred kind with its settings and the reason."""

    kind: Kind
    reason: str
    separator: str = "|"
    min_count: int = 1
    bandwidth: float | None = None
    """Of categories that are numbers but for a few, and most of which several things share."""


def infer_kind(values: pl.Series) -> KindGuess:
    """Kind of these values, one per item, user or event.

    >>> infer_kind(pl.Series("genres", ["War|Drama", "Drama", "War|Comedy"] * 9)).kind
    'multi'
    >>> infer_kind(pl.Series("price", ["1.99", "12.50", ""])).kind
    'numeric'
    """
    if isinstance(values.dtype, (pl.List, pl.Array)):
        return _lists(values)
    known = non_missing(values)
    if known.dtype != pl.String:
        return _numbers(known, values.name) if known.dtype.is_numeric() else _category(known, "")
    known = known.str.strip_chars(BLANK)
    numbers = known.cast(pl.Float64, strict=False)
    if len(known) and not numbers.null_count() and numbers.is_finite().all():
        zeros = known.str.contains(r"^0\d").any()
        return _category(known, "numbers that begin with 0 are codes; ") if zeros else _numbers(numbers, values.name)
    return _vector_text(known) or _multi(known) or _text(known) or _mixed(known, numbers)


def decimal_comma(values: pl.Series) -> str | None:
    """A value of a column whose numbers have decimal commas, which a list of several numbers would look like; else None.

    >>> decimal_comma(pl.Series(["3,25", "12", "0,5", "7,0", "6,5"])), decimal_comma(pl.Series(["3,25", "12,7,4", "3", "3,4"]))
    ('3,25', None)
    """
    if values.dtype != pl.String:
        return None
    known = non_missing(values).str.strip_chars(BLANK)
    with_comma = known.filter(known.str.contains(r"^[+-]?\d+,\d+$"))
    if len(with_comma) < MIN_DECIMAL_SHARE * len(known) or not known.str.contains(r"^[+-]?\d+(,\d+)?$").all():
        return None
    return str(with_comma[0]) if len(with_comma) else None


def silverman_bandwidth(numbers: pl.Series) -> float:
    """1.06 · std · n^(−1/5): Silverman 1986, equation 3.28.

    >>> round(silverman_bandwidth(pl.Series([1990.0, 1992.0, 1994.0, 1996.0] * 8)), 2)
    1.2
    """
    std: Any = numbers.std()
    return 1.06 * float(std or 0) * math.pow(len(numbers), -0.2)


def non_missing(values: pl.Series) -> pl.Series:
    """Values that are not null, blank or NaN."""
    known = values.drop_nulls()
    if known.dtype == pl.String:
        return known.filter(known.str.strip_chars(BLANK) != "")
    return known.drop_nans() if known.dtype.is_float() else known


def is_whole(values: pl.Series) -> bool:
    """Whether all values are whole numbers, possibly written as text."""
    numbers = non_missing(values).cast(pl.Float64, strict=False)
    return bool(len(numbers)) and not numbers.null_count() and bool((numbers == numbers.round()).all())


def _lists(values: pl.Series) -> KindGuess:
    lists = values.arr.to_list() if isinstance(values.dtype, pl.Array) else values
    lengths = lists.list.len().drop_nulls()
    lengths = lengths.filter(lengths > 0)
    inner = lists.explode(empty_as_null=True)
    if inner.dtype.is_float() and lengths.n_unique() == 1 and lengths[0] > 1:
        return KindGuess("vector", f"lists of {lengths[0]} numbers")
    return KindGuess("multi", "lists", min_count=_min_count(inner.cast(pl.String).drop_nulls()))


def _vector_text(known: pl.Series) -> KindGuess | None:
    if not known.str.contains(r"^\s*\[[-+.,\deE\s]+\]\s*$").all() or not known.str.contains(r"\.").any():
        return None
    lengths = known.str.count_matches(",", literal=True) + 1
    return KindGuess("vector", f"lists of {lengths[0]} numbers") if lengths.n_unique() == 1 and lengths[0] > 1 else None


def _multi(known: pl.Series) -> KindGuess | None:
    for separator, least in (("|", 0.2), (";", 0.3), (",", 0.6)):
        parts = known.str.split(separator)
        share = float((parts.list.len() > 1).mean() or 0)  # type: ignore[arg-type]
        flat = parts.explode().str.strip_chars()
        if share >= least and flat.n_unique() < 0.5 * len(flat) and _words(flat) <= 2.5:
            why = f"{share:.0%} hold several values around '{separator}'"
            return KindGuess("multi", why, separator, _min_count(flat))
    return None


def _text(known: pl.Series) -> KindGuess | None:
    count = _words(known.unique())
    distinct = known.n_unique()
    if distinct <= 8 or count < 2 or (count < 2.5 and distinct < LONG_TAIL):
        return None
    return KindGuess(
        "text", f"{count:.1f} words on average", min_count=_min_count(tokenize(known).explode().drop_nulls())
    )


def _numbers(numbers: pl.Series, name: str) -> KindGuess:
    distinct = numbers.n_unique()
    ordered = numbers.cast(pl.Float64).sort()
    value_range = f"{ordered[0]:g} to {ordered[-1]:g}"
    if not is_whole(numbers):
        return KindGuess("numeric", f"numbers, {value_range}")
    if words(name).intersection(CODE_WORDS):
        return _category(numbers, "whole numbers, by its name a code; ")
    dense = ordered[0] in (0, 1) and ordered[-1] - ordered[0] < 1.2 * distinct and distinct <= LONG_TAIL
    if distinct <= MAX_CATEGORIES or (dense and not words(name).intersection(QUANTITY_WORDS)):
        return _category(numbers, "whole numbers, ")
    return KindGuess("numeric", f"whole numbers, {value_range}, of {distinct} values")


def _category(known: pl.Series, why: str) -> KindGuess:
    texts = known.cast(pl.String)
    least = _min_count(texts)
    tail = ", most of which occur once" if least > 1 else ""
    return KindGuess("categorical", f"{why}{texts.n_unique()} values{tail}", min_count=least)


def _min_count(values: pl.Series) -> int:
    """2 if there are many values and most occur once, else 1: from a single occurrence nothing can be learned."""
    counted = values.alias("value").value_counts()["count"]
    return 2 if len(counted) >= LONG_TAIL and (counted == 1).sum() > len(counted) / 2 else 1


def _words(texts: pl.Series) -> float:
    """Mean number of words per text that begin with a letter."""
    counted = tokenize(texts).list.eval(pl.element().filter(pl.element().str.contains(r"^\p{L}"))).list.len().mean()
    return float(counted) if isinstance(counted, (int, float)) else 0.0


def _mixed(known: pl.Series, numbers: pl.Series) -> KindGuess:
    """Categories; with a remark on a few values among numbers that are none, which alone make the column categorical."""
    others, finite = known.filter(numbers.is_null()), numbers.filter(numbers.is_finite())
    if not 0 < len(others) < len(known) / 10:
        return _category(known, "")
    guess = _category(known, f"numbers but for {len(others):,} of {len(known):,} values, such as '{others[0]}'; ")
    distinct = finite.n_unique()
    is_code = known.str.contains(r"^0\d").any() or bool(words(known.name).intersection(CODE_WORDS))
    is_shared = MAX_CATEGORIES < distinct <= min(MAX_SMOOTHED, len(finite) / 2) and guess.min_count == 1
    bandwidth = silverman_bandwidth(finite) if is_shared and not is_code else math.inf
    return replace(guess, bandwidth=bandwidth) if math.isfinite(bandwidth) else guess
