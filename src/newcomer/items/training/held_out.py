"""Held-out old items that live as new ones: how well they are predicted, and after how many passes of pre-training best."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from newcomer.items.calibration import Calibration
from newcomer.items.training.calibration import Outcomes, fit_calibration
from newcomer.metrics.calibration import logloss
from newcomer.metrics.ranking import auc
from newcomer.settings import Json

STEPS, MOST_PASSES = 30, 10
"""Gradient steps that are aimed at where nothing is held out, and most passes for them: a log of 1,000 events has two steps a pass,
and at twenty passes its model is surer than it is right (docs/defaults.md)."""

FIRST_STEPS, MOST_FIRST = 50, 5
"""Gradient steps that are aimed at in the first trial on held-out items, and most passes for them."""

DOUBLINGS = 8
"""The most doublings of passes that are tried."""


@dataclass(frozen=True)
class HeldOutScore:
    """Scores of the later events of held-out items that have had `events` events; `constant`: log loss of their click rate."""

    events: int
    rows: int
    auc: float
    logloss: float
    constant: float


@dataclass(frozen=True)
class HeldOut:
    """How a model predicts the lives of `items` held-out items, by their number of events; without `calibration`, or with it."""

    items: int
    scores: Sequence[HeldOutScore]
    calibration: Calibration
    epochs: int
    """Passes of pre-training."""
    tried: Mapping[int, float]
    """Passes → mean log loss, calibrated, over the numbers of events."""
    item_losses: NDArray[np.float64] = field(repr=False, compare=False)
    """What each item adds to the mean log loss."""

    @classmethod
    def of(cls, observed: Sequence[Outcomes], calibrate: bool, epochs: int) -> Self:
        """From the outcomes, at one number of events at least, of a model that was pre-trained in so many passes."""
        calibration = fit_calibration(observed)
        scores = [_score(one, calibration) for one in observed]
        loss = float(np.mean([score.logloss for score in scores]))
        return cls(
            len(np.unique(observed[0].item)),
            scores if calibrate else [_score(one, Calibration()) for one in observed],
            calibration if calibrate else Calibration(),
            epochs,
            {epochs: loss},
            np.mean([_item_losses(one, calibration, 1 + observed[0].item.max()) for one in observed], axis=0),
        )

    @property
    def loss(self) -> float:
        """Mean log loss, calibrated, over the numbers of events; the smaller, the better."""
        return self.tried[self.epochs]

    def is_clearly_worse_than(self, other: "HeldOut") -> bool:
        """Whether the log loss is higher by more than one standard error of the difference, paired by item."""
        difference = self.item_losses - other.item_losses
        return bool(difference.sum() > math.sqrt(len(difference)) * difference.std(ddof=1))

    def to_json(self) -> dict[str, Json]:
        """All but the calibration and single items."""
        return {
            "items": self.items,
            "pretrain_epochs": self.epochs,
            "tried": {str(epochs): round(loss, 6) for epochs, loss in self.tried.items()},
            "scores": [{key: round(value, 6) for key, value in vars(score).items()} for score in self.scores],
        }


def epochs_to_try(rows: int, batch_size: int) -> Iterator[int]:
    """Numbers of passes, each twice the one before; in a small log more at first, and `MOST_PASSES` at most.

    Few held-out items tell too little of warm-ups by models that are too sure.

    >>> list(epochs_to_try(100_000, 512))[:4], list(epochs_to_try(1_000, 512))
    ([1, 2, 4, 8], [5, 10])
    """
    first = min(_passes(FIRST_STEPS, rows, batch_size), MOST_FIRST)
    most = first * 2**DOUBLINGS if first == 1 else MOST_PASSES
    return takewhile(lambda passes: passes <= most, (first * 2**n for n in range(DOUBLINGS + 1)))


def epochs_without_choice(rows: int, batch_size: int) -> int:
    """Passes where nothing can be held out: 2, or more in a small log.

    >>> epochs_without_choice(10**6, 512), epochs_without_choice(1_000, 512)
    (2, 10)
    """
    return min(max(2, _passes(STEPS, rows, batch_size)), MOST_PASSES)


def _passes(steps: int, rows: int, batch_size: int) -> int:
    return math.ceil(steps / math.ceil(rows / batch_size))


def _logits(observed: Outcomes, calibration: Calibration) -> Any:
    return calibration(observed.logit, np.full(len(observed.logit), observed.events))


def _item_losses(observed: Outcomes, calibration: Calibration, items: int) -> NDArray[np.float64]:
    """What each item adds to the mean log loss."""
    logit = _logits(observed, calibration)
    losses = observed.weight * (np.logaddexp(0, logit) - observed.label * logit)
    found: NDArray[np.float64] = np.bincount(observed.item, losses, items) / observed.weight.sum()
    return found


def _score(observed: Outcomes, calibration: Calibration) -> HeldOutScore:
    logit = _logits(observed, calibration)
    probability = 1 / (1 + np.exp(-np.clip(logit, -30, 30)))
    rate = np.full(len(logit), np.average(observed.label, weights=observed.weight))
    return HeldOutScore(
        observed.events,
        len(logit),
        auc(observed.label, probability, observed.weight),
        logloss(observed.label, probability, observed.weight),
        logloss(observed.label, rate, observed.weight),
    )
