"""Cleaning of a log for inference: simple dtypes, and markers of missing values."""

from collections.abc import Sequence

import polars as pl

from newcomer.data.io.column_parsing import to_simple_dtype
from newcomer.errors import DataError

UNAMBIGUOUS = {"NULL", "\\N", "<NA>", "#N/A"}
MISSING_MARKERS = [*sorted(UNAMBIGUOUS), "NA", "N/A", "n/a", "null", "None", "NaN", "nan", "-"]
"""Markers of missing values; the unambiguous ones are not words that a log would contain otherwise."""


def missing_values(frame: pl.DataFrame) -> tuple[str, ...]:
    r"""Markers of missing values in this log: among numbers, or unambiguous ones.

    >>> missing_values(pl.DataFrame({"price": ["1.5", "NA", "2"], "land": ["DE", "NA", "NL"], "shop": ["a", r"\N", "b"]}))
    ('NA', '\\N')
    """
    found: set[str] = set()
    for column in frame.columns:
        if frame[column].dtype != pl.String:
            continue
        values = frame[column].unique().drop_nulls().str.strip_chars()
        markers = values.filter(values.is_in(MISSING_MARKERS))
        others = values.filter(~values.is_in([*MISSING_MARKERS, ""]))
        numbers = len(others) and others.cast(pl.Float64, strict=False).is_not_null().mean() > 0.5  # type: ignore[operator]
        found |= set(markers) if numbers else set(markers) & UNAMBIGUOUS
    return tuple(sorted(found))


def readable(frame: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, str]]:
    """Columns of supported dtypes, and for the others the reason why they are left out."""
    columns, reasons = [], dict[str, str]()
    for column in frame.get_columns():
        try:
            values = to_simple_dtype(column, "log")
        except DataError:
            reasons[column.name] = "left out: holds bytes that are not UTF-8"
            continue
        inner = values.dtype.inner if isinstance(values.dtype, pl.List) else values.dtype
        if inner.is_nested() or inner in (pl.Duration, pl.Object, pl.Binary):
            reasons[column.name] = f"left out: holds {str(values.dtype).lower()}; split it into scalar columns"
        elif inner in (pl.Categorical, pl.Enum):
            columns.append(values.cast(pl.List(pl.String)))
        else:
            columns.append(values.cast(pl.Float64) if values.dtype.is_decimal() else values)
    return pl.DataFrame(columns), reasons


def without_missing(frame: pl.DataFrame, missing: Sequence[str]) -> pl.DataFrame:
    """Set markers of missing values to null."""
    if not missing:
        return frame
    texts = [name for name in frame.columns if frame[name].dtype == pl.String]
    listed = list(missing)
    return frame.with_columns(
        pl.when(pl.col(name).str.strip_chars().is_in(listed)).then(None).otherwise(pl.col(name)).alias(name)
        for name in texts
    )
