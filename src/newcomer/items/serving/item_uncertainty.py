"""Posterior and prior std of an item's logit, over the requests of its latest events."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from newcomer.items.encoding.encoder import Encoder
from newcomer.items.inference import select
from newcomer.items.serving.event_serialization import to_clicks
from newcomer.items.serving.past_events import PastEvents
from newcomer.items.serving.service import ItemService
from newcomer.nn.ctr.field_embeddings import NumericSize
from newcomer.shapes import Float, Tensor
from newcomer.store.states import DamagedItemError, Event

LATEST = 20
"""Latest events of an item whose users and contexts are the requests."""


@dataclass(frozen=True)
class ItemUncertainty:
    """Root mean squares of the posterior and the prior std of an item's logit in the requests of its latest events, both at the MAP
    estimate. Without events it is a request of which nothing is known."""

    std: float
    prior_std: float


def item_uncertainty(service: ItemService, item: str) -> ItemUncertainty | None:
    """The uncertainty of this item; None where `ItemService.score` has no std, and where its events are damaged.

    Raises DataError for an unknown item.
    """
    row, _ = service.look_up(item)
    learner, known = service.learner, service.refreshed([row.item], for_scores=True)
    if not learner.lifecycle.has_posterior or row.item not in known.numbers:  # deleted meanwhile
        return None
    number = torch.tensor([known.numbers[row.item]], device=learner.device)
    try:
        past = PastEvents.read(service.states, service.model, learner, known, [row.item])
    except DamagedItemError:
        return None
    latest = [event for event in past.windows.get(row.item, ()) if event.values][-LATEST:]
    requests = to_clicks([(0, event) for event in latest or [_blank(learner.encoder)]], learner.encoder, learner.device)
    features = [values[number] for values in known.item_features]

    events, state = known.headers[known.numbers[row.item]].events, select(known.state, number)

    def rms_std(factors: Float[Tensor, "item direction number"]) -> float:
        logits, stds = learner.lifecycle.predict_with_std(state, features, requests, factors)
        slopes = learner.calibration.slope(logits, np.full(len(logits), events))
        return float(np.sqrt(np.mean((slopes * stds) ** 2)))

    factors = service.factors([row.item], known)
    found = ItemUncertainty(rms_std(factors), rms_std(factors[:, :0]))
    return found if np.isfinite([found.std, found.prior_std]).all() else None


def _blank(encoder: Encoder) -> Event:
    """An event of nobody, without values; numbers are at their mean."""
    sizes = encoder.row_sizes()
    return Event(
        "", 0, 0, [[math.nan] * size.count if isinstance(size, NumericSize) and size.count > 1 else 0 for size in sizes]
    )
