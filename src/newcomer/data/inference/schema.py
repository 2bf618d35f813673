"""Schema inference for click logs from column names and a sample of values.

The role of a field follows from functional dependencies; see `functional_dependencies`.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from newcomer.data.canonical import canonical_names, first_inexact
from newcomer.data.inference.column_names import EVENT_WORDS, HISTORY_WORDS, OUTCOME_WORDS, WEIGHT, normalized, words
from newcomer.data.inference.column_roles import ColumnRole, MainRole, find_columns, is_weight
from newcomer.data.inference.functional_dependencies import count_violations, dependency_evidence, is_functional
from newcomer.data.inference.label_leakage import leaks_label
from newcomer.data.inference.missing_values import missing_values, readable, without_missing
from newcomer.data.inference.regularization import propose_regularization
from newcomer.data.inference.sampling import count_values, sample
from newcomer.data.inference.schema_toml import Proposal, read_schema, write_schema
from newcomer.data.inference.stream import propose_stream, training_share
from newcomer.data.inference.value_types import decimal_comma, infer_kind, non_missing
from newcomer.data.io.log_files import Source, matching_files
from newcomer.data.io.timestamps import are_dates
from newcomer.data.schema import INTERNAL_COLUMNS, Field, Role, Schema
from newcomer.data.value_conflicts import COUNT
from newcomer.errors import DataWarning

__all__ = ["Proposal", "propose", "propose_stream", "read_schema", "write_schema"]

MIN_EVIDENCE = math.log(1e6)
"""−log probability below which a dependency is not chance: 1 in 10⁶."""

MIN_DISTINCT = 50
"""With at least this many rows or ids, all distinct values are not a coincidence."""


@dataclass(frozen=True)
class _Log:
    """A sample with its four main columns, and all columns as text for comparisons."""

    frame: pl.DataFrame
    texts: pl.DataFrame
    item: ColumnRole
    user: ColumnRole
    label: ColumnRole
    time: ColumnRole
    weight: ColumnRole | None = None

    @property
    def roles(self) -> tuple[ColumnRole, ...]:
        """The main columns."""
        return (self.item, self.user, self.label, self.time, *(() if self.weight is None else (self.weight,)))

    def owner(self, role: Role) -> str:
        return self.item.column if role == "item" else self.user.column


def propose(
    source: Source,
    *,
    item: str | None = None,
    user: str | None = None,
    label: str | None = None,
    time: str | None = None,
    weight: str | None = None,
) -> Proposal:
    """Infer the schema of a log with a reason per column, and a stream that gives old and new items.

    `item`, `user`, `label`, `time`: names of these columns; by default they are recognized by the names in `column_names`.
    `weight`: name of the column of weights; by default there is none, and one that is called so is left out, with that reason.

    With settings of EmerG for such fields (`regularization`). Uses about 100,000 rows from positions spread over the files and, for
    logs up to 1 GiB, one full column.

    Raises DataError for unreadable files, and with the candidates if no column can be the item, user, label or time. DataWarning
    for numbers with decimal commas, which are left out.
    """
    given: dict[MainRole, str | None] = {"item": item, "user": user, "label": label, "time": time, "weight": weight}
    files = matching_files(source)
    taken = sample(files)
    unnamed = [column for column in taken.frame.columns if not column.strip()]  # such as an exported pandas index
    internal = [column for column in taken.frame.columns if column in INTERNAL_COLUMNS]
    frame, reasons = readable(taken.frame.drop(unnamed, internal))
    reasons |= {name: f"left out: an internal column name; rename it to '{name.strip()}'" for name in internal}
    missing = missing_values(frame)
    where = ", ".join(map(str, files[:3]))
    named = {role: name for role, name in given.items() if name is not None}
    log = _log(without_missing(frame, missing), where, named, {str(file): part for file, part in taken.parts.items()})
    reasons |= {column_role.column: column_role.reason for column_role in log.roles}
    fields, bandwidths = [], dict[str, float]()
    for column in log.frame.columns:
        if column not in reasons:
            why_not = _reason_to_leave_out(log, column)
            field, why, bandwidth = (None, why_not, None) if why_not else _field(log, column)
            reasons[column] = why
            fields += [field] if field else []
            bandwidths |= {column: bandwidth} if bandwidth else {}
    has_unknown_user = (log.texts[log.user.column] == "").any()
    schema = Schema(
        log.item.column,
        log.user.column,
        log.label.column,
        log.time.column,
        tuple(fields),
        log.label.clicked_from,
        user_missing="mark" if has_unknown_user else "error",
        missing_values=missing,
        time_order=log.time.order,
        weight=None if log.weight is None else log.weight.column,
    )
    counted = count_values(files, log.item.column)
    rows = taken.rows if counted is None else int(counted.sum())
    events = _estimate_events(log, rows) if counted is None else counted.to_numpy()
    stream = propose_stream(events)
    return Proposal(
        schema,
        {column: reasons[column] for column in taken.frame.columns if column not in unnamed},
        rows,
        {column: _example_values(log.texts[column]) for column in log.frame.columns},
        stream,
        [str(source)] if isinstance(source, (str, Path)) else [str(part) for part in source],
        training_share(events, stream["min_old_events"]),
        propose_regularization(schema, bandwidths),
    )


def columns_of(source: Source) -> list[str]:
    """The columns of a log, from a few rows."""
    return sample(matching_files(source), rows=100, megabytes=1).frame.columns


def _log(frame: pl.DataFrame, where: str, named: Mapping[MainRole, str], parts: Mapping[str, pl.DataFrame]) -> _Log:
    texts = pl.DataFrame([_text(frame[column]) for column in frame.columns])

    def owned_by(owner: str, column: str) -> bool:
        return dependency_evidence(texts, owner, column) > MIN_EVIDENCE

    return _Log(frame, texts, **find_columns(frame, where, named, owned_by, parts))


def _field(log: _Log, column: str) -> tuple[Field | None, str, float | None]:
    """The field, the reason, and the bandwidth by which its embeddings may be smoothed."""
    role, why = _role(log, column)
    values = log.frame[column]
    if role != "context":
        values = log.frame.unique(log.owner(role), keep="first", maintain_order=True)[column]
    if values.dtype.is_temporal() or are_dates(values):
        return None, f"left out: {why}, a date; derive a year, weekday or hour column from it", None
    if decimal := decimal_comma(values):
        reason = f"left out: numbers with decimal commas, such as {decimal}; write them with decimal points"
        warnings.warn(f"column '{column}' is {reason}", DataWarning, stacklevel=3)
        return None, reason, None
    guess = infer_kind(values)
    missing = len(non_missing(log.frame[column])) < len(log.frame)
    field = Field(
        column, role, guess.kind, "mark" if missing else "error", min_count=guess.min_count, separator=guess.separator
    )
    # A sample of rows may hold few of a context's values.
    bandwidth = None if role == "context" else guess.bandwidth
    return field, f"{why}; {guess.reason}{', with missing values' if missing else ''}", bandwidth


def _role(log: _Log, column: str) -> tuple[Role, str]:
    id_columns: tuple[tuple[Role, str], ...] = (("item", log.item.column), ("user", log.user.column))
    found = {role: dependency_evidence(log.texts, owner, column) for role, owner in id_columns}
    for role, owner in sorted(id_columns, key=lambda pair: -found[pair[0]]):
        if found[role] > MIN_EVIDENCE:
            violations = count_violations(log.texts, owner, column)
            rows = f"all but {violations:,} of {len(log.texts):,} rows" if violations else "all rows"
            of = "an item" if role == "item" else "a user"
            return role, f"one value in {rows} of {of}" + ("" if violations else f" ('{owner}')")
    if max(found.values()) >= 0:
        return "context", "too few rows of one item or user to tell its role"
    return "context", "changes from row to row of one item and of one user"


def _reason_to_leave_out(log: _Log, column: str) -> str | None:
    """Reason why a column is not a field; None if it is."""
    texts, rows = log.texts, len(log.texts)
    distinct = texts[column].n_unique()
    if not len(non_missing(log.frame[column])):
        return "left out: empty in all rows"
    if distinct == 1:
        return f"left out: the same value in all rows, {_example_values(texts[column])[0]!r}"
    for column_role in log.roles:
        if why := _duplicate_of(log, column, column_role, distinct):
            return f"left out: {why}"
    if distinct == rows >= MIN_DISTINCT and _is_identifier(log.frame[column]):
        return "left out: another value in every row, such as an event id or row number"
    context = _role(log, column)[0] == "context"
    if context and log.weight is None and normalized(column) in WEIGHT and is_weight(log.frame[column]):
        return f"left out: by its name weights of rows; set weight = {column!r} (--column weight={column}) if it is, or add a field"
    if context and distinct > rows / 10 and words(column).intersection(EVENT_WORDS):
        return f"left out: {distinct} values in {rows} rows, by its name an event or session id"
    if context and words(column).intersection(OUTCOME_WORDS) and not words(column).intersection(HISTORY_WORDS):
        return "left out: by its name an outcome, known only after the impression (label leakage)"
    if context and leaks_label(log.frame[column], log.label.clicks(log.frame)):
        return f"left out: nearly always determines '{log.label.column}' (label leakage); add it if it is known before"
    return None


def _duplicate_of(log: _Log, column: str, column_role: ColumnRole, distinct: int) -> str | None:
    texts, of = log.texts, column_role.column
    if texts[column].equals(texts[of]):
        return f"the same as '{of}'"
    one_to_one = distinct == texts[of].n_unique() and is_functional(texts, of, column)
    if one_to_one and column_role is log.label:
        return f"'{of}' in other values"
    if one_to_one and distinct >= MIN_DISTINCT and column_role is not log.time and _is_identifier(log.frame[column]):
        return f"one-to-one with '{of}'"
    if column_role is log.time and distinct > 2 and column_role.runs_with(log.frame, column):
        return f"another time, like '{of}'"
    return None


def _is_identifier(values: pl.Series) -> bool:
    """Whether values are identifiers rather than quantities or text."""
    guess = infer_kind(values)
    known = non_missing(values).cast(pl.String, strict=False) if not values.dtype.is_nested() else None
    ordered = known is not None and guess.kind == "numeric" and _is_row_number(known)
    return guess.kind == "categorical" or ordered


def _is_row_number(known: pl.Series) -> bool:
    """Whether integers mostly increase by one from row to row."""
    steps = known.cast(pl.Float64, strict=False).diff().drop_nulls()
    return bool(len(steps)) and float((steps == 1).cast(pl.Float64).sum()) / len(steps) > 0.9


def _text(values: pl.Series) -> pl.Series:
    """Canonical text of each value; '' if missing."""
    if isinstance(values.dtype, pl.Array):
        values = values.arr.to_list()
    if isinstance(values.dtype, pl.List):
        joined = values.list.eval(pl.element().cast(pl.String)).list.join(", ", ignore_nulls=True)
        return (pl.select(pl.lit("[") + joined + pl.lit("]")).to_series().alias(values.name)).fill_null("")
    found = values.cast(pl.String) if first_inexact(values) is not None else canonical_names(values, "")
    return found.fill_null("").alias(values.name)


def _example_values(texts: pl.Series) -> Sequence[str]:
    return [
        text if len(text) <= 60 else text[:59] + "…"
        for text in texts.filter(texts != "").unique(maintain_order=True)[:5]
    ]


def _estimate_events(log: _Log, rows: int | None) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Events per item in the sample, scaled to all rows if their number is known."""
    found = (
        log.texts.filter(pl.col(log.item.column) != "")
        .group_by(log.item.column)
        .len(COUNT)[COUNT]
        .to_numpy()
        .astype(np.float64)
    )
    return np.round(found * ((rows or len(log.texts)) / len(log.texts))).astype(np.int64)
