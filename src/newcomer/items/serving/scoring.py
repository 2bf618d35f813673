"""Scoring: click probabilities of requests, or the error of each."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from newcomer.data.click_log import ClickLog, Column
from newcomer.data.vocabulary import UNSEEN
from newcomer.errors import DataError, LearnerError, NewcomerError, StoreError
from newcomer.items.encoding.encoder import Clicks
from newcomer.items.encoding.unseen_values import Unseen, unseen_by_row, unseen_of_clicks
from newcomer.items.inference import predict_logits, select, sigmoid
from newcomer.items.serving.cached_items import CachedItems
from newcomer.items.serving.event_batch import item_names, user_names
from newcomer.items.serving.item_cache import ItemCache

SCORE_COLUMNS = {
    "score": pl.Float64,
    "logit": pl.Float64,
    "logit_std": pl.Float64,
    "model": pl.String,
    "phase": pl.String,
    "events": pl.Int64,
    "unseen": pl.Int64,
    "error": pl.String,
}
"""Columns of a scoring result, one row a request.

`logit_std`: posterior std of the logit given the item's events, if it was asked for and the item has a posterior.
`unseen`: number of the request's values, user included, that were unseen in training. `error`: why there is no score, or None.
"""

Wrong = dict[int, NewcomerError]
"""Errors by row number, from 0."""


def item_errors(
    log: ClickLog, known: ItemCache, damaged: Mapping[str, StoreError], where: str, but: frozenset[str] = frozenset()
) -> Wrong:
    """Errors by row of the log: unknown or damaged items, and non-finite states except for items in `but`."""
    is_wrong = damaged.keys() | (known.non_finite - but)
    found = {n: name for n, name in enumerate(log.items.ids) if name in is_wrong or name not in known.numbers}
    if not found:
        return {}
    rows = np.flatnonzero(np.isin(log.item, list(found)))
    return {int(row): _wrong(log, int(row), found[int(log.item[row])], known, damaged, where) for row in rows}


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
    served: CachedItems, known: ItemCache, log: ClickLog, wrong: Wrong, where: str, uncertainty: bool
) -> tuple[pl.DataFrame, Unseen]:
    """`SCORE_COLUMNS` of these requests, and counts of unseen values.

    `wrong` are the errors of rows; non-finite scores are added to it.
    """
    learner, model = served.learner, served.model
    right = np.setdiff1d(np.arange(len(log)), list(wrong)) if wrong else np.arange(len(log))
    if not len(right):
        errors = {row: str(error) for row, error in wrong.items()}
        return merge_errors(pl.DataFrame(schema=SCORE_COLUMNS), right, len(log), errors, model), Unseen()
    asked = _with_unseen(served, log.take(right) if wrong else log)
    numbers = numbers_of(asked, known)
    clicks = learner.encoder.clicks(asked, numbers).to(learner.device)
    headers = [known.headers[number] for number in numbers.tolist()]
    events = [header.events for header in headers]
    logits, stds = _logits(served, known, item_names(asked), clicks, uncertainty)
    logits, stds = learner.calibration(logits, events), learner.calibration.slope(logits, events) * stds
    scores = sigmoid(logits)
    for position in np.flatnonzero(~np.isfinite(scores)):
        row = int(right[position])
        wrong[row] = LearnerError(
            f"{where}: row {log.row[row] + 1}: the score of item '{log.items.ids[log.item[row]]}' is no number; look for what is "
            "far out in the request, or train the model again at a lower rate"
        )
    answers = pl.DataFrame(
        [
            _finite("score", scores),
            _finite("logit", logits),
            _finite("logit_std", stds),
            pl.Series("model", [model], dtype=pl.String).new_from_index(0, len(asked)),
            pl.Series("phase", [header.phase for header in headers], dtype=pl.String),
            pl.Series("events", events, dtype=pl.Int64),
            pl.Series("unseen", unseen_by_row(learner.encoder, clicks).cpu().numpy()),
            pl.Series("error", [None] * len(asked), dtype=pl.String),
        ]
    )
    unseen = unseen_of_clicks(learner.encoder, clicks)
    return (
        merge_errors(answers, right, len(log), {row: str(e) for row, e in wrong.items()}, model) if wrong else answers
    ), unseen


def _with_unseen(served: CachedItems, log: ClickLog) -> ClickLog:
    """The requests with other names for forgotten users, which no training has seen."""
    coding = served.learner.encoder.codings[log.schema.user]
    names = user_names(log)
    is_known = coding.encode(Column(tuple(names), np.arange(len(names)))) > UNSEEN
    gone = served.forgotten_users([name for name, known in zip(names, is_known, strict=True) if known], served.max_age)
    if not gone:
        return log
    ids = tuple(f"\0{name}" if name in gone else name for name in log.users.ids)
    return replace(log, users=replace(log.users, ids=ids))


def _finite(name: str, numbers: NDArray[np.float64]) -> pl.Series:
    """A column of these numbers; null where they are not finite."""
    return pl.Series(name, np.where(np.isfinite(numbers), numbers, np.nan), dtype=pl.Float64, nan_to_null=True)


def _logits(
    served: CachedItems, known: ItemCache, names: Sequence[str], clicks: Clicks, uncertainty: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logits and their stds; NaN where there is no std, or it was not asked for. `names`: of the items in `clicks`."""
    learner = served.learner
    if not (uncertainty and learner.lifecycle.has_posterior):
        logits = predict_logits(learner.network, {**known.state, **known.precomputed}, known.item_features, clicks)
        return logits, np.full(len(logits), np.nan)
    items, at = torch.unique(clicks.item, return_inverse=True)
    item_features, state = [values[items] for values in known.item_features], select(known.state, items)
    factors = served.factors(sorted(names, key=known.numbers.__getitem__), known)
    return learner.lifecycle.predict_with_std(state, item_features, replace(clicks, item=at), factors)


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
            for name in ("score", "logit", "logit_std", "phase", "events", "unseen")
        ),
        model=pl.lit(model, dtype=pl.String),
        error=pl.when(errors_.is_not_null()).then(errors_).otherwise(pl.when(valid).then(pl.col("error"))),
    ).select(*SCORE_COLUMNS)
