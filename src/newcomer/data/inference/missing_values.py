"""A log as it comes, in columns that can be looked at: of plain types, and without what only says that there is no value."""

from collections.abc import Sequence

import polars as pl

from newcomer.data.io.column_parsing import plain
from newcomer.errors import DataError

UNSPOKEN = {"NULL", "\\N", "<NA>", "#N/A"}
NOTHING = [*sorted(UNSPOKEN), "NA", "N/A", "n/a", "null", "None", "NaN", "nan", "-"]
"""How programs write that there is no value; the first are no words that a log would hold otherwise."""


def missing_values(frame: pl.DataFrame) -> tuple[str, ...]:
    r"""Texts by which programs say 'no value', where this log holds them beside numbers, or as no word of a language.

    >>> missing_values(pl.DataFrame({"price": ["1.5", "NA", "2"], "land": ["DE", "NA", "NL"], "shop": ["a", r"\N", "b"]}))
    ('NA', '\\N')
    """
    found: set[str] = set()
    for column in frame.columns:
        if frame[column].dtype != pl.String:
            continue
        said = frame[column].unique().drop_nulls().str.strip_chars()
        spoken = said.filter(said.is_in(NOTHING))
        others = said.filter(~said.is_in([*NOTHING, ""]))
        numbers = len(others) and others.cast(pl.Float64, strict=False).is_not_null().mean() > 0.5  # type: ignore[operator]
        found |= set(spoken) if numbers else set(spoken) & UNSPOKEN
    return tuple(sorted(found))


def readable(frame: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, str]]:
    """The columns that a log can have, in plain types, and of the others why they are left out."""
    kept, reasons = [], dict[str, str]()
    for column in frame.get_columns():
        try:
            values = plain(column, "log")
        except DataError:
            reasons[column.name] = "left out: holds bytes that are no UTF-8"
            continue
        inner = values.dtype.inner if isinstance(values.dtype, pl.List) else values.dtype
        if inner.is_nested() or inner in (pl.Duration, pl.Object, pl.Binary):
            reasons[column.name] = f"left out: holds {str(values.dtype).lower()}; make plain columns of it"
        elif inner in (pl.Categorical, pl.Enum):
            kept.append(values.cast(pl.List(pl.String)))
        else:
            kept.append(values.cast(pl.Float64) if values.dtype.is_decimal() else values)
    return pl.DataFrame(kept), reasons


def without_missing(frame: pl.DataFrame, missing: Sequence[str]) -> pl.DataFrame:
    """Nothing in the place of texts that say so."""
    if not missing:
        return frame
    texts = [name for name in frame.columns if frame[name].dtype == pl.String]
    said = list(missing)
    return frame.with_columns(
        pl.when(pl.col(name).str.strip_chars().is_in(said)).then(None).otherwise(pl.col(name)).alias(name)
        for name in texts
    )
