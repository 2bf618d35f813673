"""Scoring: click probabilities of requests, or the error of each."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from newcomer.data.click_log import ClickLog
from newcomer.errors import DataError, LearnerError, NewcomerError, StoreError
from newcomer.items.encoding.unseen_values import Unseen, unseen_by_row, unseen_of_clicks
from newcomer.items.inference import predict
from newcomer.items.learner import ItemLearner
from newcomer.items.serving.item_cache import ItemCache

SCORE_COLUMNS = {
    "score": pl.Float64,
    "model": pl.String,
    "phase": pl.String,
    "events": pl.Int64,
    "unseen": pl.Int64,
    "error": pl.String,
}
"""Columns of a scoring result, one row a request.

`unseen`: number of the request's values, user included, that were unseen in training. `error`: why there is no score, or None.
"""

Wrong = dict[int, NewcomerError]
"""Errors by row number, from 0."""


def item_errors(
    log: ClickLog, known: ItemCache, damaged: Mapping[str, StoreError], where: str, but: frozenset[str] = frozenset()
) -> Wrong:
    """Errors by row of the log: unknown or damaged items, and non-finite states except for items in `but`."""
    found = {number: name for number, name in enumerate(log.items.ids) if _is_wrong(name, known, damaged, but)}
    rows = np.flatnonzero(np.isin(log.item, list(found)))
    return {int(row): _wrong(log, int(row), found[int(log.item[row])], known, damaged, where) for row in rows}


def _is_wrong(name: str, known: ItemCache, damaged: Mapping[str, StoreError], but: frozenset[str]) -> bool:
    return name in damaged or name not in known.numbers or (name in known.non_finite and name not in but)


def _wrong(
    log: ClickLog, row: int, name: str, known: ItemCache, damaged: Mapping[str, StoreError], where: str
) -> NewcomerError:
    if name in damaged:
        return damaged[name]
    prefix = f"{where}: row {log.row[row] + 1}, column '{log.schema.item}': item '{name}'"
    if name in known.numbers:
        return StoreError(
            f"{prefix} has a state that is no number; `newcomer warm STORE --repair` recomputes it from its events"
        )
    return DataError(f"{prefix} is not known; add it first")


def numbers_of(log: ClickLog, known: ItemCache) -> NDArray[np.int64]:
    """Cache index of every row's item; -1 if unknown."""
    numbers: NDArray[np.int64] = np.array([known.numbers.get(name, -1) for name in log.items.ids], dtype=np.int64)[
        log.item
    ]
    return numbers


def score_requests(
    learner: ItemLearner, model: str, known: ItemCache, log: ClickLog, wrong: Wrong, where: str
) -> tuple[pl.DataFrame, Unseen]:
    """`SCORE_COLUMNS` of these requests, and counts of unseen values.

    `wrong` are the errors of rows; non-finite scores are added to it.
    """
    right = np.setdiff1d(np.arange(len(log)), list(wrong))
    if not len(right):
        errors = {row: str(error) for row, error in wrong.items()}
        return merge_errors(pl.DataFrame(schema=SCORE_COLUMNS), right, len(log), errors, model), Unseen()
    asked = log.take(right)
    numbers = numbers_of(asked, known)
    clicks = learner.encoder.clicks(asked, numbers).to(learner.device)
    scores = predict(learner.network, known.state, known.item_features, clicks, learner.graph_cache)
    for position in np.flatnonzero(~np.isfinite(scores)):
        row = int(right[position])
        wrong[row] = LearnerError(
            f"{where}: row {log.row[row] + 1}: the score of item '{log.items.ids[log.item[row]]}' is no number; look for what is "
            "far out in the request, or train the model again at a lower rate"
        )
    headers = [known.headers[number] for number in numbers]
    answers = pl.DataFrame(
        {
            "score": pl.Series(scores, dtype=pl.Float64).fill_nan(None),
            "model": [model] * len(asked),
            "phase": [header.phase for header in headers],
            "events": [header.events for header in headers],
            "unseen": unseen_by_row(learner.encoder, clicks).cpu().numpy(),
            "error": [None] * len(asked),
        },
        schema=SCORE_COLUMNS,
    )
    unseen = unseen_of_clicks(learner.encoder, clicks)
    return (
        merge_errors(answers, right, len(log), {row: str(e) for row, e in wrong.items()}, model) if wrong else answers
    ), unseen


def merge_errors(
    answers: pl.DataFrame, rows: NDArray[np.int64], count: int, errors: Mapping[int, str], model: str
) -> pl.DataFrame:
    """A table of `count` rows: results of these rows, and errors of the others."""
    position = np.full(count, -1)
    position[rows] = np.arange(len(rows))
    every = (
        answers[np.maximum(position, 0)]
        if len(answers)
        else pl.DataFrame({n: [None] * count for n in SCORE_COLUMNS}, schema=SCORE_COLUMNS)
    )
    valid = pl.Series("valid", position >= 0)
    errors_ = pl.Series("error", [errors.get(row) for row in range(count)], dtype=pl.String)
    return every.with_columns(
        *(
            pl.when(valid).then(pl.col(name)).otherwise(None).alias(name)
            for name in ("score", "phase", "events", "unseen")
        ),
        model=pl.lit(model, dtype=pl.String),
        error=pl.when(errors_.is_not_null()).then(errors_).otherwise(pl.when(valid).then(pl.col("error"))),
    ).select(*SCORE_COLUMNS)
