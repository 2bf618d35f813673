"""Label leakage: columns that are known only after the outcome."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.inference.value_types import non_missing

MAX_ERROR_RATIO = 0.05
"""A column leaks the label if predicting from it leaves at most this share of the errors made without it."""

MIN_ROWS = 5
"""Values with fewer rows are ignored."""


def leaks_label(values: pl.Series, clicks: NDArray[np.bool_]) -> bool:
    """Whether the column's values, or only their presence or being 0, nearly always determine the label.

    >>> clicks = np.array([True, False, False] * 20)
    >>> leaks_label(pl.Series([12.5, None, None] * 20), clicks)
    True
    >>> leaks_label(pl.Series(["home", "list", "home", "list"] * 15), clicks)
    False
    """
    is_empty = values.is_null()
    if values.dtype.is_numeric():
        is_empty = is_empty | (values == 0)
    if values.dtype == pl.String:
        is_empty = is_empty | values.is_in(["", "0", "0.0"])
    if values.dtype.is_nested() or not len(non_missing(values)):
        return _error_ratio(is_empty, clicks) <= MAX_ERROR_RATIO
    return min(_error_ratio(is_empty, clicks), _error_ratio(values.cast(pl.String), clicks)) <= MAX_ERROR_RATIO


def _error_ratio(values: pl.Series, clicks: NDArray[np.bool_]) -> float:
    """Errors of the majority class per value, divided by the errors of the majority class overall."""
    counted = pl.DataFrame({"value": values, "click": clicks}).group_by("value").agg(pl.len(), pl.col("click").sum())
    rate = clicks.mean()
    rows, clicked = counted["len"].to_numpy(), counted["click"].to_numpy()
    wrong = np.where(rows >= MIN_ROWS, np.minimum(clicked, rows - clicked), rows * min(rate, 1 - rate))
    return float(wrong.sum() / max(1e-12, len(clicks) * min(rate, 1 - rate)))
