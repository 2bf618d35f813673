"""Ids that programs write for an unknown user or item."""

import polars as pl

WORDS = {
    "null",
    "none",
    "nan",
    "na",
    "n/a",
    "nil",
    "undefined",
    "unknown",
    "missing",
    "anonymous",
    "guest",
    r"\n",
    "<na>",
    "-",
}
NUMBERS = {"-1", "0", "-999", "9999", "999999", "00000000-0000-0000-0000-000000000000"}

MIN_SHARE = 0.02
"""Minimum share of rows."""

TIMES_MEAN = 10.0
"""A number, which may be the id of one, must also have this many times the rows of a mean id."""


def placeholder_ids(ids: pl.Series, rows: pl.Series) -> list[tuple[str, int]]:
    """Ids that may stand for a missing one, with their number of rows.

    >>> placeholder_ids(pl.Series(["a", "b", "NULL"]), pl.Series([40, 40, 20]))
    [('NULL', 20)]
    >>> placeholder_ids(pl.Series(["0", "1", "2"]), pl.Series([40, 40, 20]))
    []
    """
    total, mean = int(rows.sum()), float(rows.mean() or 0)  # type: ignore[arg-type]
    return [
        (name, count)
        for name, count in zip(ids.to_list(), rows.to_list(), strict=True)
        if (name.lower() in WORDS or (name in NUMBERS and count >= TIMES_MEAN * mean)) and count >= MIN_SHARE * total
    ]
