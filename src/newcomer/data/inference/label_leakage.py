"""Columns that give a label away: what is known only after the answer."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.inference.value_types import given

ERRORS = 0.05
"""A column that leaves no more than this share of the errors that one would make without it tells the label."""

LEAST = 5
"""Values with fewer rows than this tell nothing."""


def tells(values: pl.Series, clicks: NDArray[np.bool_]) -> bool:
    """Whether the column's values, or only whether there is one or it is 0, decide the label nearly always.

    >>> clicks = np.array([True, False, False] * 20)
    >>> tells(pl.Series([12.5, None, None] * 20), clicks), tells(pl.Series(["home", "list", "home", "list"] * 15), clicks)
    (True, False)
    """
    nothing = values.is_null()
    if values.dtype.is_numeric():
        nothing = nothing | (values == 0)
    if values.dtype == pl.String:
        nothing = nothing | values.is_in(["", "0", "0.0"])
    if values.dtype.is_nested() or not len(given(values)):
        return _errors(nothing, clicks) <= ERRORS
    return min(_errors(nothing, clicks), _errors(values.cast(pl.String), clicks)) <= ERRORS


def _errors(values: pl.Series, clicks: NDArray[np.bool_]) -> float:
    """Errors of the majority in each value's rows as a share of the errors of the majority in all."""
    counted = pl.DataFrame({"value": values, "click": clicks}).group_by("value").agg(pl.len(), pl.col("click").sum())
    rate = clicks.mean()
    rows, clicked = counted["len"].to_numpy(), counted["click"].to_numpy()
    wrong = np.where(rows >= LEAST, np.minimum(clicked, rows - clicked), rows * min(rate, 1 - rate))
    return float(wrong.sum() / max(1e-12, len(clicks) * min(rate, 1 - rate)))
