"""Model selection on held-out old items, which live as new ones: EmerG's settings, and `newcomer train --learner auto`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from newcomer.data.click_log import ClickLog
from newcomer.data.schema import Schema
from newcomer.items.learner import ItemLearner
from newcomer.items.training.field_regularization import USER_HISTORY
from newcomer.registry import ITEMS
from newcomer.settings import Json
from newcomer.training.checkpoint import Checkpoint
from newcomer.training.learner import Step

HISTORY: Mapping[str, Json] = {"user_history": True, "weight_averaging": 0.6}

RATE, FASTER = "pretrain_lr", 2.0
"""The learning rate of pre-training, and the factor on it that is tried. Half the rate was no better on three logs."""

PLAIN_ROW, HISTORY_ROW = "emerg", "emerg-history"

CANDIDATES: Mapping[str, Mapping[str, Json]] = {
    PLAIN_ROW: {"name": "emerg"},
    HISTORY_ROW: {"name": "emerg", **HISTORY},
    "deepfm-bayes": {
        "name": "dropout-net",
        "adaptation": "map",
        "generate_init": True,
        "id_dropout": 0.2,
        "pretrain_lr": 5e-3,
        "residual_l2": 0.03,
        "warmup_events": "all",
    },
    "logistic": {"name": "logistic"},
    "user-item-rate": {"name": "logistic", "fields": "user"},
}
"""Rows that are tried: EmerG, without users' histories and with them, a DeepFM with EmerG's learned prior, and plain rows."""

MAX_USERS = 50_000
"""Users up to which histories are tried: with averaged weights a gradient step costs all rows of a table."""

WITHOUT_CHOICE = "logistic"
"""The row where nothing can be held out: a MAP estimate, which in a small log is not surer than it is right."""


REGULARIZATION = ("smoothing_bandwidth", "field_dropout")
"""Settings that EmerG and the DeepFM have in common."""


def candidates(
    schema: Schema, log: ClickLog, regularization: Mapping[str, Json], **settings: Json
) -> dict[str, ItemLearner]:
    """A learner of each row of `CANDIDATES`, with this `regularization` where it is a network; `settings` are of all of them.

    Histories are left out where they would be refused, or cost too much.
    """
    found = dict[str, ItemLearner]()
    for row, own in CANDIDATES.items():
        if own.get("user_history") and not can_have_histories(log):
            continue
        kind: Callable[..., Any] = ITEMS[str(own["name"])]
        common = settings if own["name"] == "logistic" else {**regularization, **settings}
        found[row] = kind(schema, **{key: value for key, value in own.items() if key != "name"}, **common)
    return found


def can_have_histories(log: ClickLog) -> bool:
    """Whether users' histories can be a field of this log, and do not cost too much."""
    is_free = USER_HISTORY not in [node.name for node in log.schema.nodes]
    return log.weight is None and is_free and len(log.users) <= MAX_USERS


def hold_out(learners: Mapping[str, ItemLearner], stage: str, log: ClickLog, checkpoint: Checkpoint) -> Iterator[Step]:
    """`ItemLearner.hold_out` of each learner; of all with the same seed the same items. Each goes on from there in `learn`."""
    for row, learner in learners.items():
        learner.checkpoint = checkpoint.beside(row)
        for step in learner.hold_out(stage, log, always=True):
            yield replace(step, part=f"{row}: {step.part}")


def hold_out_changes(
    learners: dict[str, ItemLearner],
    settings: Mapping[str, Json],
    rounds: Sequence[Mapping[str, Mapping[str, Json]]],
    stage: str,
    log: ClickLog,
    checkpoint: Checkpoint,
) -> Iterator[Step]:
    """`hold_out` of the one learner that is given, of these `settings`; then, round by round, of the best one so far with each of
    the round's changes, which are added to `learners` by their names.

    They learn in as many passes as the first one needs. Nothing is added where nothing can be held out.
    """
    ((first, model),) = learners.items()
    yield from hold_out(learners, stage, log, checkpoint)
    if model.held_out is None:
        return
    settings_of = {first: {**settings, "pretrain_epochs": model.held_out.epochs}}
    for changes in rounds:
        best = best_row(learners) or first
        new = {f"{best}-{name}": {**settings_of[best], **change} for name, change in changes.items()}
        tried = {row: type(model)(model.schema, **own) for row, own in new.items()}
        yield from hold_out(tried, stage, log, checkpoint)
        learners |= tried
        settings_of |= new


def best_row(learners: Mapping[str, ItemLearner]) -> str | None:
    """The row whose second model predicts the held-out items with the least log loss; None if nothing could be held out."""
    losses = {row: learner.held_out.loss for row, learner in learners.items() if learner.held_out is not None}
    return min(losses, key=lambda row: losses[row], default=None)
