"""Answers to requests: a click probability each, or why there is none."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.click_log import Log
from newcomer.errors import DataError, LearnerError, NewcomerError, StoreError
from newcomer.items.encoding.unseen_values import Unseen, unseen_by_row, unseen_of_clicks
from newcomer.items.inference import scored
from newcomer.items.learner import ItemLearner
from newcomer.items.serving.item_cache import Known

ANSWER = {
    "score": pl.Float64,
    "model": pl.String,
    "phase": pl.String,
    "events": pl.Int64,
    "unseen": pl.Int64,
    "error": pl.String,
}
"""The columns of an answer, one row a request.

`unseen`: how many of the request's values, its user among them, the model has never seen. `error`: why there is no score; None
where there is one.
"""

Wrong = dict[int, NewcomerError]
"""What is wrong with rows, by their number from 0."""


def wrong_items(
    log: Log, known: Known, damaged: Mapping[str, StoreError], where: str, but: frozenset[str] = frozenset()
) -> Wrong:
    """By row of the log what is wrong with its item: it is not known, damaged, or its state is no number. `but`: not with these."""
    found = {number: name for number, name in enumerate(log.items.ids) if _is_wrong(name, known, damaged, but)}
    rows = np.flatnonzero(np.isin(log.item, list(found)))
    return {int(row): _wrong(log, int(row), found[int(log.item[row])], known, damaged, where) for row in rows}


def _is_wrong(name: str, known: Known, damaged: Mapping[str, StoreError], but: frozenset[str]) -> bool:
    return name in damaged or name not in known.numbers or (name in known.unsound and name not in but)


def _wrong(log: Log, row: int, name: str, known: Known, damaged: Mapping[str, StoreError], where: str) -> NewcomerError:
    if name in damaged:
        return damaged[name]
    told = f"{where}: row {log.row[row] + 1}, column '{log.schema.item}': item '{name}'"
    if name in known.numbers:
        return StoreError(
            f"{told} has a state that is no number; `newcomer warm STORE --heal` makes it anew from its events"
        )
    return DataError(f"{told} is not known; add it first")


def numbers_of(log: Log, known: Known) -> NDArray[np.int64]:
    """The number of every row's item, as it is known."""
    numbers: NDArray[np.int64] = np.array([known.numbers.get(name, -1) for name in log.items.ids], dtype=np.int64)[
        log.item
    ]
    return numbers


def answered(
    learner: ItemLearner, model: str, known: Known, log: Log, wrong: Wrong, where: str
) -> tuple[pl.DataFrame, Unseen]:
    """The columns of `ANSWER` of these requests, and how much of them was never seen.

    What is `wrong` with rows is said there; to it is added where a score would be no number.
    """
    right = np.setdiff1d(np.arange(len(log)), list(wrong))
    if not len(right):
        errors = {row: str(error) for row, error in wrong.items()}
        return with_errors(pl.DataFrame(schema=ANSWER), right, len(log), errors, model), Unseen()
    asked = log.take(right)
    numbers = numbers_of(asked, known)
    clicks = learner.encoder.clicks(asked, numbers).to(learner.device)
    scores = scored(learner.network, known.state, known.own, clicks, learner.prepared)
    for place in np.flatnonzero(~np.isfinite(scores)):
        row = int(right[place])
        wrong[row] = LearnerError(
            f"{where}: row {log.row[row] + 1}: the score of item '{log.items.ids[log.item[row]]}' is no number; look for what is "
            "far out in the request, or teach the model anew at a lower rate"
        )
    heads = [known.heads[number] for number in numbers]
    answers = pl.DataFrame(
        {
            "score": pl.Series(scores, dtype=pl.Float64).fill_nan(None),
            "model": [model] * len(asked),
            "phase": [head.phase for head in heads],
            "events": [head.events for head in heads],
            "unseen": unseen_by_row(learner.encoder, clicks).cpu().numpy(),
            "error": [None] * len(asked),
        },
        schema=ANSWER,
    )
    unseen = unseen_of_clicks(learner.encoder, clicks)
    return (
        with_errors(answers, right, len(log), {row: str(e) for row, e in wrong.items()}, model) if wrong else answers
    ), unseen


def with_errors(
    answers: pl.DataFrame, rows: NDArray[np.int64], count: int, errors: Mapping[int, str], model: str
) -> pl.DataFrame:
    """Answers to these rows out of so many, in their order, and beside them what is wrong with others."""
    place = np.full(count, -1)
    place[rows] = np.arange(len(rows))
    every = (
        answers[np.maximum(place, 0)]
        if len(answers)
        else pl.DataFrame({n: [None] * count for n in ANSWER}, schema=ANSWER)
    )
    there = pl.Series("there", place >= 0)
    said = pl.Series("error", [errors.get(row) for row in range(count)], dtype=pl.String)
    return every.with_columns(
        *(
            pl.when(there).then(pl.col(name)).otherwise(None).alias(name)
            for name in ("score", "phase", "events", "unseen")
        ),
        model=pl.lit(model, dtype=pl.String),
        error=pl.when(said.is_not_null()).then(said).otherwise(pl.when(there).then(pl.col("error"))),
    ).select(*ANSWER)
