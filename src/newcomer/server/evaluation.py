"""Comparison of two versions on events that neither was trained on, as the service would have met them."""

import math
import warnings
from pathlib import Path

import polars as pl

from newcomer.errors import DataError, DataWarning
from newcomer.items.serving.service import ItemService
from newcomer.metrics.calibration import logloss
from newcomer.metrics.ranking import auc
from newcomer.server.event_rows import event_id_column
from newcomer.server.history import History, replay
from newcomer.server.logged_events import NUMBER
from newcomer.server.preparation import open_version
from newcomer.settings import Json
from newcomer.store.sql import sqlite_url

ROUNDS = 200
"""Rounds of scoring and counting, at most."""


def progressive_scores(folder: Path, states: Path, before: History, events: pl.DataFrame) -> pl.Series:
    """Scores of these events by the version in `folder`: each part is scored, then counted, then the next one.

    `before`: what the version meets first. `states`: a new file for its states. Events that have no score are null.
    """
    size, scores = max(1, math.ceil(len(events) / ROUNDS)), list[pl.Series]()
    with open_version(folder, sqlite_url(states)) as service:
        replay(service, before)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            for part in events.drop(NUMBER).iter_slices(size):
                scores.append(service.score(part, on_error="report")["score"])
                _count(service, part)
    return pl.concat(scores)


def compare(
    labels: pl.Series,
    live: pl.Series,
    new: pl.Series,
    negative_rate: float = 1.0,
    weights: pl.Series | None = None,
) -> dict[str, Json]:
    """Log loss and AUC of both, on the events that both have scored; None where undefined.

    `negative_rate`: share of the negatives that is among the events; each stands for those left out. `weights`: how many equal
    events each one stands for.
    """
    weights = pl.repeat(1.0, len(labels), eager=True) if weights is None else weights
    both = pl.DataFrame({"label": labels, "live": live, "new": new, "weight": weights}).drop_nulls()
    found: dict[str, Json] = {"events": len(both)}
    repeats = both["weight"].to_numpy()
    weight = repeats * (both["label"].cast(pl.Float64).to_numpy() * (1 - 1 / negative_rate) + 1 / negative_rate)
    for name in ("live", "new"):
        values = {
            "logloss": logloss(both["label"], both[name], weight),
            "auc": auc(both["label"], both[name], repeats),
        }
        found[name] = {key: None if math.isnan(value) else value for key, value in values.items()}
    return found


def _count(service: ItemService, events: pl.DataFrame) -> None:
    try:
        service.warm(events, event_id_column(service.learner.schema), on_error="report")
    except DataError:  # of another scale than those of training: refused by the service as well
        return
