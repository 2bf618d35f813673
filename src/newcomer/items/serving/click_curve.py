"""Clicks of an item's events as they came, beside those that were expected of it as a new item."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from newcomer.items.inference import predict_logits, sigmoid
from newcomer.items.serving.event_serialization import to_clicks
from newcomer.items.serving.service import ItemService
from newcomer.store.states import DamagedItemError


@dataclass(frozen=True)
class ClickCurve:
    """Of the item's kept events, in order: how many were clicks, and how many its initial state expected, both times the events'
    weights and summed up to each."""

    clicks: Sequence[float]
    expected: Sequence[float]


def click_curve(service: ItemService, item: str) -> ClickCurve | None:
    """The curve of the item's latest events, 200 at most; None where no values of events are kept, or events are damaged.

    Raises DataError for an unknown item.
    """
    row, _ = service.look_up(item)
    learner = service.learner
    try:
        events = service.states.event_history(service.model, [row.item]).get(row.item, [])
    except DamagedItemError:
        return None
    kept = [(0, event) for event in events if event.values]
    if not kept:
        return None
    state, features = service.initial_state(row.item)
    requests = to_clicks(kept, learner.encoder, learner.device)
    logits = predict_logits(learner.network, state, features, requests)
    expected = sigmoid(learner.calibration(logits, np.zeros(len(kept))))
    weight = np.array([event.weight for _, event in kept])
    clicks = weight * [event.label for _, event in kept]
    return ClickCurve(np.cumsum(clicks).tolist(), np.cumsum(weight * expected).tolist())
