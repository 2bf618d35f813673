"""Calibration by number of events, fitted on old items that a model did not learn and that live as new ones do."""

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.data.click_log import ClickLog
from newcomer.items.calibration import Calibration
from newcomer.items.encoding.encoder import Encoder
from newcomer.items.inference import predict_logits
from newcomer.items.lifecycle import Lifecycle
from newcomer.seeds import shuffled
from newcomer.store.states import KEPT
from newcomer.streams.cold_start import events_before

_Floats = NDArray[np.float64]
_Numbers = NDArray[Any]

EVENTS = (0, 1, 3, 8, 20, 60)
"""Numbers of events at which scale and offset are fitted."""

PARTS = 4
"""One of so many items is held out."""

FEW_EVENTS = 20
"""A log whose items all have more events is a selection of well-known items."""

MIN_ITEMS, MIN_ITEMS_LATER, MIN_LABELS = 50, 20, 100
"""Least number of held-out items, of those that reach a number of events, and of their later events with each label."""

NEWEST_ITEMS = 1000
"""New items on which a calibration is fitted anew."""

PRIOR_STD = 0.5
"""Of the offset and the scales, around 0 and 1."""

CHANGE_STD = 0.2
"""Of their changes, where there is a calibration: by about as much new items of a log differ from its least known ones."""

ITEM_WEIGHT = 10.0
"""Independent events that all later events of one item are worth: they deviate together."""

MIN_SCALE = 0.05

NO_CALIBRATION = Calibration()


@dataclass(frozen=True)
class Outcomes:
    """Later events of held-out items, each scored by its item's state after `events` events."""

    events: int
    logit: _Floats
    label: _Floats
    item: NDArray[np.int64]
    weight: _Floats


def held_out_items(events: _Numbers, clicks: _Numbers, seed: int, stage: str) -> NDArray[np.int64]:
    """A quarter of the items (indices into their numbers of events and clicks) that stands for new ones; none if they are too few.

    If the log has items with few events, as a whole log has: one at random of every four items with similar click rates, so that
    the held-out ones are as good as the others. Otherwise the log is a selection of well-known items, and new ones will be less
    known: the items with the fewest events.
    """
    items = np.flatnonzero(events)
    items = items[shuffled(len(items), seed, stage, "calibration")]
    if len(items) and events[items].min() > FEW_EVENTS:
        chosen = items[np.argsort(events[items], kind="stable")][: len(items) // PARTS]
    else:
        rank = np.argsort(np.argsort((clicks / np.maximum(events, 1))[items], kind="stable"))
        chosen = items[np.unique(rank // PARTS, return_index=True)[1]]  # the first of each four, in random order
    held_out: NDArray[np.int64] = np.sort(chosen)
    enough = _is_enough(len(held_out), events[held_out].sum(), clicks[held_out].sum(), MIN_ITEMS)
    return held_out if enough else held_out[:0]


def that_fit(held_out: NDArray[np.int64], events: _Numbers, rows: int, seed: int, stage: str) -> NDArray[np.int64]:
    """As many of the held-out items, at random, as have so many of their first `KEPT` events together; one at least."""
    order = held_out[shuffled(len(held_out), seed, stage, "calibration in memory")]
    fit = int(np.searchsorted(np.minimum(events[order], KEPT).cumsum(), rows, "right"))
    found: NDArray[np.int64] = np.sort(order[: max(1, fit)])
    return found


def newest_items(log: ClickLog, trained: Collection[str]) -> NDArray[np.int64]:
    """Items (indices into the log's) that are not `trained`: those whose first event is the latest, `NEWEST_ITEMS` at most."""
    order = np.lexsort((log.row, log.fraction_or_zero, log.time))
    items, first = np.unique(log.item[order], return_index=True)
    new = np.array([log.items.ids[item] not in trained for item in items], dtype=bool)
    found: NDArray[np.int64] = items[new][np.argsort(first[new], kind="stable")][-NEWEST_ITEMS:]
    return np.sort(found)


def outcomes(lifecycle: Lifecycle, encoder: Encoder, log: ClickLog, device: torch.device) -> Iterator[Outcomes]:
    """The items of this log live as new ones: at each of `EVENTS`, all later events are scored, up to `KEPT` an item."""
    log = log.take(np.lexsort((log.row, log.fraction_or_zero, log.time)))
    ids, item = np.unique(log.item, return_inverse=True)
    age = events_before(log)
    item_features = [values.to(device) for values in encoder.items(log.items.take(ids))]
    clicks = encoder.clicks(log, item).to(device)

    def rows(mask: NDArray[np.bool_]) -> torch.Tensor:
        return torch.from_numpy(np.flatnonzero(mask)).to(device)

    phases = (clicks.by_row(rows((age >= begin) & (age < end))) for begin, end in pairwise(EVENTS))
    for events, state in zip(EVENTS, lifecycle.states(item_features, len(ids), phases), strict=True):
        later = (age >= events) & (age < KEPT)
        logit = predict_logits(lifecycle.network, state, item_features, clicks.by_row(rows(later)))
        yield Outcomes(events, logit, log.label[later].astype(np.float64), item[later], log.weight_or_one[later])


def reached(observed: Iterable[Outcomes]) -> Iterator[Outcomes]:
    """Those at numbers of events that enough items reach."""

    def is_enough(one: Outcomes) -> bool:
        return _is_enough(len(np.unique(one.item)), len(one.label), one.label.sum(), MIN_ITEMS_LATER)

    return takewhile(is_enough, observed)


def fit_calibration(observed: Iterable[Outcomes], prior: Calibration = NO_CALIBRATION) -> Calibration:
    """Offset and scales at each number of events, under a prior around those of `prior`.

    Beyond the last number observed their change from `prior` fades as 1 / (1 + n), as a calibration does.
    """
    std = PRIOR_STD if prior == NO_CALIBRATION else CHANGE_STD
    found = {
        one.events: fit_beta(
            one.logit, one.label, _equal_items(one.item, one.weight), prior.parameters(one.events), std
        )
        for one in observed
    }
    if not found:
        return prior
    last = max(found)
    change = np.subtract(found[last], prior.parameters(last))
    later = {
        events: np.add(prior.parameters(events), change * (1 + last) / (1 + events))
        for events in prior.events
        if events > last
    }
    every = found | {n: (float(at), max(low, MIN_SCALE), max(high, MIN_SCALE)) for n, (at, low, high) in later.items()}
    offset, scale, upper_scale = zip(*every.values(), strict=True)
    return Calibration(tuple(every), scale, offset, upper_scale)


def fit_beta(
    logit: _Floats,
    label: _Floats,
    weight: _Floats,
    prior: tuple[float, float, float] = (0.0, 1.0, 1.0),
    std: float = PRIOR_STD,
) -> tuple[float, float, float]:
    """Offset, scale and upper scale, as in `Calibration`: their MAP estimate under a Gaussian prior, by Newton steps.

    `prior`, `std`: its means, and the std of each. A scale that would be less than `MIN_SCALE` is that.

    >>> logit = np.repeat([-1.0, 1.0], 4000)
    >>> offset, *scales = fit_beta(logit, np.tile([1.0, 0.0, 0.0, 0.0], 2000), np.ones(8000))    # says nothing: always a quarter
    >>> round(offset, 1), scales
    (-1.1, [0.05, 0.05])
    """
    upper = np.logaddexp(0, logit) - math.log(2)
    design = np.stack([np.ones_like(logit), logit - upper, upper], axis=1)
    start, fitted = np.array(prior), np.full(3, True)
    found = _newton(design, label, weight, start, fitted, std)
    while found[1:].min() < MIN_SCALE:
        lowest = 1 + int(found[1:].argmin())
        start[lowest], fitted[lowest] = MIN_SCALE, False
        found = _newton(design, label, weight, start, fitted, std)
    return float(found[0]), float(found[1]), float(found[2])


def _newton(
    design: _Floats, label: _Floats, weight: _Floats, start: _Floats, fitted: NDArray[np.bool_], std: float
) -> _Floats:
    """Logistic regression with a Gaussian prior around `start`; coefficients that are not `fitted` stay there."""
    precision = np.eye(len(start)) / std**2

    def loss(at: _Floats) -> float:
        logit, moved = design @ at, at - start
        return float(weight @ (np.logaddexp(0, logit) - label * logit) + moved @ precision @ moved / 2)

    found = start
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ found, -30, 30)))
        gradient = design.T @ (weight * (p - label)) + precision @ (found - start)
        curvature = (design.T * (weight * p * (1 - p))) @ design + precision
        step = np.zeros(len(start))
        step[fitted] = np.linalg.solve(curvature[np.ix_(fitted, fitted)], gradient[fitted])
        while loss(found - step) > loss(found) and np.abs(step).max() > 1e-10:
            step = step / 2
        found = found - step
        if np.abs(step).max() < 1e-8:
            break
    return found


def _equal_items(item: NDArray[np.int64], weight: _Floats) -> _Floats:
    """Weights of rows under which every item counts the same, `ITEM_WEIGHT`, or the sum of its rows' weights if that is less."""
    _, of = np.unique(item, return_inverse=True)
    equal: _Floats = np.minimum(ITEM_WEIGHT / np.bincount(of, weight), 1.0)[of] * weight
    return equal


def _is_enough(items: int, events: float, clicks: float, least: int) -> bool:
    return items >= least and min(clicks, events - clicks) >= MIN_LABELS
