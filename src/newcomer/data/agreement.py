"""One value for each field of an item or a user, whose rows may disagree in a small share.

An item's field has the same value in all rows of the item. Where a few rows of a log show another one, the latest value counts, by
the time of its event, and it is said how many rows are read so. More than a share of all rows is no mistake of a few: an error.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.io.timestamps import FRACTION
from newcomer.data.schema import Field
from newcomer.errors import DataError, DataWarning

COUNT, TIME, FIRST, LATEST = "count ", "time ", "first ", "latest "
"""Columns of `combinations` beside an owner and its fields: rows, latest time, and numbers of the first and of the latest row."""

KEPT = "kept "
"""Name of the value of a field that counts."""


def combinations(frame: pl.DataFrame, owner: str, fields: Sequence[Field], time: str, row: str) -> pl.DataFrame:
    """Every combination of an owner and values of its fields, with how often and when it occurs.

    Of `time`, `FRACTION` and `row`, which the frame has beside, the latest counts.
    """
    names = [owner, *(field.name for field in fields)]
    by_time = frame.select(*names, pl.col(time).alias(TIME), FRACTION, pl.col(row).alias(LATEST)).sort(
        TIME, FRACTION, LATEST
    )
    return by_time.group_by(names, maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias(COUNT),
        pl.col(TIME).last(),
        pl.col(FRACTION).last(),
        pl.col(LATEST).min().alias(FIRST),
        pl.col(LATEST).last(),
    )


def together(parts: Sequence[pl.DataFrame], owner: str, fields: Sequence[Field]) -> pl.DataFrame:
    """The combinations of all parts, each once."""
    names = [owner, *(field.name for field in fields)]
    by_time = pl.concat(parts).sort(TIME, FRACTION, LATEST)
    return by_time.group_by(names, maintain_order=True).agg(
        pl.col(COUNT).sum(), pl.col(TIME).last(), pl.col(FRACTION).last(), pl.col(FIRST).min(), pl.col(LATEST).last()
    )


def agreed(
    found: pl.DataFrame, owner: str, fields: Sequence[Field], rows: int, share: float, *, say: bool = True
) -> pl.DataFrame:
    """Each owner once, with the value of each field that counts; as a warning, how many rows show others.

    `found` are `combinations` of `rows` rows. A field's value is the latest that is known. Owners without an id are no single
    owner: all their combinations stay.

    Raises DataError where, for some field, more than this share of all rows differs from the most frequent value of its owner.
    """
    names = [owner, *(field.name for field in fields)]
    twice = found.filter(pl.col(owner).is_duplicated() & (pl.col(owner) != ""))
    if not len(twice):
        return found.select(names)
    settled = _latest(twice, owner, fields)
    for field in fields:
        shown = _values(twice, settled, owner, field)
        _require_few(shown, owner, field.name, share * rows)
        if say:
            _say(shown, owner, field.name, rows)
    kept = found.select(names).join(twice.select(owner).unique(), on=owner, how="anti")
    return pl.concat([kept, settled.select(names)])


def too_many(found: pl.DataFrame, owner: str, fields: Sequence[Field], rows: int, share: float) -> bool:
    """Whether there are so many combinations that some field must disagree in more than this share of all rows."""
    extra = len(found) - found[owner].n_unique() - int((found[owner] == "").sum())
    return extra > max(1, len(fields)) * share * rows


def two_values(owner: str, thing: str, field: str, row: int, other: int) -> DataError:
    """What to say of an item or user that shows two values of one field; rows count from 0."""
    return DataError(
        f"'{thing}' of column '{owner}' has two values of '{field}', in rows {row + 1} and {other + 1}; "
        f"make '{field}' a context field, or correct the rows"
    )


def owned(frame: pl.DataFrame, owner: str, fields: Sequence[Field]) -> tuple[pl.DataFrame, NDArray[np.int32]]:
    """Every combination of an owner and its values once, in the order of owners, and which of them each row shows."""
    names = [owner, *(field.name for field in fields)]
    groups = frame.select(names).with_row_index("place ").group_by(names, maintain_order=True).agg("place ")
    groups = groups.sort(owner, maintain_order=True)
    place = np.empty(len(frame), dtype=np.int32)
    numbers = np.repeat(np.arange(len(groups), dtype=np.int32), groups["place "].list.len().to_numpy())
    place[groups["place "].explode().to_numpy()] = numbers
    return groups.select(names), place


def _values(twice: pl.DataFrame, settled: pl.DataFrame, owner: str, field: Field) -> pl.DataFrame:
    """Each owner's values of this field, several of them sorted, and as `KEPT` the one that counts.

    Where it may be missing, without the rows that show none and come before one that does.
    """
    theirs = settled.select(owner, pl.col(field.name).alias(KEPT))
    shown = twice.sort(TIME, FRACTION, LATEST).join(theirs, on=owner, maintain_order="left")
    if field.is_multi:
        shown = shown.with_columns(pl.col(field.name, KEPT).list.sort())
    if field.missing != "mark":
        return shown
    last = pl.when(_known(field)).then("at ").max().over(owner)
    return shown.with_row_index("at ").filter(_known(field) | (pl.col("at ") > last).fill_null(True)).drop("at ")


def _require_few(shown: pl.DataFrame, owner: str, field: str, most: float) -> None:
    """The rows to be corrected are those that do not show their owner's most frequent value."""
    counted = shown.group_by(owner, field).agg(pl.col(COUNT).sum(), pl.col(FIRST).min())
    each = counted.group_by(owner).agg(pl.col(COUNT).sum() - pl.col(COUNT).max(), pl.len())
    if int(each[COUNT].sum()) <= most:
        return
    wrong = counted.join(each.filter(pl.col("len") > 1).select(owner), on=owner, how="semi").sort(FIRST)
    thing = wrong[owner][0]
    one, other = wrong.filter(pl.col(owner) == thing)[FIRST][:2]
    raise two_values(owner, thing, field, one, other)


def _latest(twice: pl.DataFrame, owner: str, fields: Sequence[Field]) -> pl.DataFrame:
    by_time = twice.sort(TIME, FRACTION, LATEST)
    return (
        by_time.group_by(owner, maintain_order=True)
        .agg(
            pl.col(field.name).filter(_known(field)).last() if field.missing == "mark" else pl.col(field.name).last()
            for field in fields
        )
        .with_columns(_filled(field) for field in fields)
    )


def _known(field: Field) -> pl.Expr:
    if field.is_numeric:
        return pl.col(field.name).is_not_nan()
    known = pl.col(field.name).is_not_null()
    return known & (pl.col(field.name).list.len() > 0) if field.is_multi else known


def _filled(field: Field) -> pl.Expr:
    return pl.col(field.name).fill_null(float("nan")) if field.is_numeric else pl.col(field.name)


def _say(shown: pl.DataFrame, owner: str, field: str, rows: int) -> None:
    differ = shown.filter(pl.col(field).ne_missing(pl.col(KEPT)))
    if not len(differ):
        return
    one = differ.sort(FIRST).row(0, named=True)
    count, things = int(differ[COUNT].sum()), differ[owner].n_unique()
    warnings.warn(
        f"column '{field}': {count:,} of {rows:,} rows show another value than the latest of the same '{owner}', which counts; "
        f"{things:,} {'has' if things == 1 else 'have'} such rows, like '{one[owner]}' in row {one[FIRST] + 1}: "
        f"{_shown(one[field])}, where {_shown(one[KEPT])} counts",
        DataWarning,
        stacklevel=2,
    )


def _shown(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
