"""What the columns of a click log seem to mean, proposed from their names and from a sample of their values.

Whose a field is follows from its values; see `ownership`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from newcomer.data.canonical import lost, names
from newcomer.data.inference.column_names import BEFORE, EVENTS, LEAKS, words
from newcomer.data.inference.column_roles import Meaning, item_of, label_of, time_of, user_of
from newcomer.data.inference.field_ownership import disagreeing, evidence, holds
from newcomer.data.inference.label_leakage import tells
from newcomer.data.inference.missing_values import missing_values, readable, without_missing
from newcomer.data.inference.sampling import counts, sample
from newcomer.data.inference.schema_toml import Proposal, read_schema, write_schema
from newcomer.data.inference.stream import learned_share, stream_for
from newcomer.data.inference.value_types import given, kind_of
from newcomer.data.io.log_reader import Source, _paths
from newcomer.data.io.timestamps import are_dates
from newcomer.data.schema import Field, Role, Schema

__all__ = ["Proposal", "propose", "read_schema", "stream_for", "write_schema"]

SURE = math.log(1e6)
"""A dependency that would hold by chance once in so many columns is one."""

MANY = 50
"""From so many rows or owners on, a value of its own for each is no coincidence."""


@dataclass(frozen=True)
class _Log:
    """A sample with the four columns that every log has, and all columns as texts, whose equality is all that counts."""

    frame: pl.DataFrame
    texts: pl.DataFrame
    item: Meaning
    user: Meaning
    label: Meaning
    time: Meaning

    def owner(self, role: Role) -> str:
        return self.item.column if role == "item" else self.user.column


def propose(source: Source) -> Proposal:
    """The schema that this log seems to have, with a reason for every column, and a stream that gives old and new items.

    About 100,000 rows are looked at, from places spread over the files, and of a log up to 1 GiB one column in full.

    Raises DataError where files cannot be read, or no column can be the item, the user, the label or the time.
    """
    files = _paths(source)
    taken = sample(files)
    unnamed = [
        column for column in taken.frame.columns if not column.strip()
    ]  # such as a frame's index that was written along
    frame, reasons = readable(taken.frame.drop(unnamed))
    missing = missing_values(frame)
    log = _log(without_missing(frame, missing), ", ".join(map(str, files[:3])))
    reasons |= {meaning.column: meaning.why for meaning in (log.item, log.user, log.label, log.time)}
    fields = []
    for column in log.frame.columns:
        if column not in reasons:
            why_not = _no_field(log, column)
            field, why = (None, why_not) if why_not else _field(log, column)
            reasons[column] = why
            fields += [field] if field else []
    nobody = (log.texts[log.user.column] == "").any()
    schema = Schema(
        log.item.column,
        log.user.column,
        log.label.column,
        log.time.column,
        tuple(fields),
        log.label.clicked_from,
        user_missing="mark" if nobody else "error",
        missing_values=missing,
        time_order=log.time.order,
    )
    counted = counts(files, log.item.column)
    rows = taken.rows if counted is None else int(counted.sum())
    events = _estimated(log, rows) if counted is None else counted.to_numpy()
    stream = stream_for(events)
    return Proposal(
        schema,
        {column: reasons[column] for column in taken.frame.columns if column not in unnamed},
        rows,
        {column: _shown(log.texts[column]) for column in log.frame.columns},
        stream,
        [str(source)] if isinstance(source, (str, Path)) else [str(part) for part in source],
        learned_share(events, stream["old_above"]),
    )


def _log(frame: pl.DataFrame, where: str) -> _Log:
    texts = pl.DataFrame([_text(frame[column]) for column in frame.columns])
    item = item_of(frame, (), where)
    user = user_of(frame, (item.column,), where)
    owners = (item.column, user.column)
    owned = [c for c in frame.columns if c not in owners and max(evidence(texts, owner, c) for owner in owners) > SURE]
    label = label_of(frame, (*owners, *owned), where)
    time = time_of(frame, (*owners, *owned, label.column), where)
    return _Log(frame, texts, item, user, label, time)


def _field(log: _Log, column: str) -> tuple[Field | None, str]:
    role, why = _role(log, column)
    values = log.frame[column]
    if role != "context":
        values = log.frame.unique(log.owner(role), keep="first", maintain_order=True)[column]
    if values.dtype.is_temporal() or are_dates(values):
        return None, f"left out: {why}, a date; make the year, the weekday or the hour of it a column"
    guess = kind_of(values)
    missing = len(given(log.frame[column])) < len(log.frame)
    field = Field(
        column, role, guess.kind, "mark" if missing else "error", min_count=guess.min_count, separator=guess.separator
    )
    return field, f"{why}; {guess.why}{', missing in places' if missing else ''}"


def _role(log: _Log, column: str) -> tuple[Role, str]:
    own: tuple[tuple[Role, str], ...] = (("item", log.item.column), ("user", log.user.column))
    found = {role: evidence(log.texts, owner, column) for role, owner in own}
    for role, owner in sorted(own, key=lambda pair: -found[pair[0]]):
        if found[role] > SURE:
            few = disagreeing(log.texts, owner, column)
            rows = f"all but {few:,} of {len(log.texts):,} rows" if few else "all rows"
            of = "an item" if role == "item" else "a user"
            return role, f"one value in {rows} of {of}" + ("" if few else f" ('{owner}')")
    if max(found.values()) >= 0:
        return "context", "too few rows of one item or user to tell whose it is"
    return "context", "changes from row to row of one item and of one user"


def _no_field(log: _Log, column: str) -> str | None:
    """Why a column is no field of a model; None where it may be one."""
    texts, rows = log.texts, len(log.texts)
    distinct = texts[column].n_unique()
    if not len(given(log.frame[column])):
        return "left out: empty in all rows"
    if distinct == 1:
        return f"left out: the same value in all rows, {_shown(texts[column])[0]!r}"
    for meaning in (log.item, log.user, log.label, log.time):
        if why := _copy(log, column, meaning, distinct):
            return f"left out: {why}"
    if distinct == rows >= MANY and _is_a_name(log.frame[column]):
        return "left out: another value in every row, like an event's or a row's id"
    context = _role(log, column)[0] == "context"
    if context and distinct > rows / 10 and words(column).intersection(EVENTS):
        return f"left out: {distinct} values in {rows} rows, by its name an event's or a session's id"
    if context and words(column).intersection(LEAKS) and not words(column).intersection(BEFORE):
        return "left out: by its name an outcome, known only after the item was shown; it would give the label away"
    if context and tells(log.frame[column], log.label.clicks(log.frame)):
        return f"left out: tells '{log.label.column}' nearly always, as an outcome does; add it if it is known before"
    return None


def _copy(log: _Log, column: str, meaning: Meaning, distinct: int) -> str | None:
    texts, of = log.texts, meaning.column
    if texts[column].equals(texts[of]):
        return f"the same as '{of}'"
    one_to_one = distinct == texts[of].n_unique() and holds(texts, of, column)
    if one_to_one and meaning is log.label:
        return f"'{of}' in other words"
    if one_to_one and distinct >= MANY and meaning is not log.time and _is_a_name(log.frame[column]):
        return f"another name of '{of}', one for each"
    if meaning is log.time and distinct > 2 and meaning.runs_with(log.frame, column):
        return f"the time once more, as '{of}'"
    return None


def _is_a_name(values: pl.Series) -> bool:
    """Whether values are told apart rather than measured or read: no text of words, no numbers but those called a code."""
    guess = kind_of(values)
    known = given(values).cast(pl.String, strict=False) if not values.dtype.is_nested() else None
    ordered = known is not None and guess.kind == "numeric" and _rises(known)
    return guess.kind == "categorical" or ordered


def _rises(known: pl.Series) -> bool:
    """Whether whole numbers go up by one from row to row, mostly."""
    steps = known.cast(pl.Float64, strict=False).diff().drop_nulls()
    return bool(len(steps)) and float((steps == 1).cast(pl.Float64).sum()) / len(steps) > 0.9


def _text(values: pl.Series) -> pl.Series:
    """Each value as a text, missing ones as ''."""
    if isinstance(values.dtype, pl.Array):
        values = values.arr.to_list()
    if isinstance(values.dtype, pl.List):
        joined = values.list.eval(pl.element().cast(pl.String)).list.join(", ", ignore_nulls=True)
        return (pl.select(pl.lit("[") + joined + pl.lit("]")).to_series().alias(values.name)).fill_null("")
    found = values.cast(pl.String) if lost(values) is not None else names(values, "")
    return found.fill_null("").alias(values.name)


def _shown(texts: pl.Series) -> Sequence[str]:
    return [
        text if len(text) <= 60 else text[:59] + "…"
        for text in texts.filter(texts != "").unique(maintain_order=True)[:5]
    ]


def _estimated(log: _Log, rows: int | None) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Events of the items in the sample, in proportion for all rows where their number is known."""
    found = (
        log.texts.filter(pl.col(log.item.column) != "")
        .group_by(log.item.column)
        .len()["len"]
        .to_numpy()
        .astype(np.float64)
    )
    return np.round(found * ((rows or len(log.texts)) / len(log.texts))).astype(np.int64)
