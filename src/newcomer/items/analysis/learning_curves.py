"""Learning curves of items: log loss and AUC against the number of events."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.data.click_log import ClickLog
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.inference import predict_logits, sigmoid
from newcomer.items.learner import ItemLearner
from newcomer.items.lifecycle import updated
from newcomer.items.networks.item_network import State
from newcomer.metrics.calibration import logloss
from newcomer.metrics.ranking import auc
from newcomer.settings import Json
from newcomer.shapes import Int, Tensor
from newcomer.streams.cold_start import events_before
from newcomer.training.learner import Step

EVENTS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Numbers of events at which a learning curve has a point."""


def curves(learner: ItemLearner, log: ClickLog, chosen: Sequence[int]) -> Generator[Step, None, dict[int, Json]]:
    """Learning curves of the chosen items, by item row; items with fewer than two events are left out.

    At each number of `events`, up to half of the item's: `logloss` and `auc` (None: undefined) of the cold state adapted to so many
    first events. Evaluated on the same later events at every point, those after the last point; `asked`: their number. Changes
    nothing.
    """
    events_of_items = _item_events(learner, log, chosen)
    curves_by_row: dict[int, Json] = {
        number: {
            "asked": int((events_of_items.is_eval & (events_of_items.item == at)).sum()),
            "events": [],
            "logloss": [],
            "auc": [],
        }
        for at, number in enumerate(chosen)
        if events_of_items.last[at]
    }
    points = [events for events in EVENTS if curves_by_row and events <= events_of_items.last.max()]
    for step, events in enumerate(points, 1):
        for at, metrics in events_of_items.evaluate(learner, events):
            for key, value in {"events": events, **metrics}.items():
                curves_by_row[chosen[at]][key].append(value)
        yield Step("curves", step, len(points))
    return curves_by_row


def item_rows(learner: ItemLearner, log: ClickLog) -> NDArray[np.int64]:
    """Each event's item row in the learner, -1 for unknown items."""
    numbers: NDArray[np.int64] = np.array([learner.known.get(name, -1) for name in log.items.ids])[log.item]
    return numbers


@dataclass(frozen=True)
class _ItemEvents:
    """The events of the chosen items, sorted by time."""

    cold: State
    item_features: Values
    clicks: Clicks
    item: NDArray[np.int64]
    """Index of each event's item among the chosen ones."""
    age: NDArray[np.int64]
    last: NDArray[np.int64]
    """Number of events at each item's last point; 0 if it has the cold point alone."""
    is_eval: NDArray[np.bool_]

    def evaluate(self, learner: ItemLearner, events: int) -> Generator[tuple[int, dict[str, Json]], None, None]:
        """Scores of the items that have so many events."""
        reached = self.last[self.item] >= events
        rows = self.is_eval & reached
        state = self.cold
        support = self.clicks.by_row(_rows(reached & (self.age < events)).to(learner.device))
        for items, new in learner.lifecycle.warm_up(self.cold, self.cold, self.item_features, support):
            state = updated(state, items, new)
        eval_clicks = self.clicks.by_row(_rows(rows).to(learner.device))
        logits = predict_logits(learner.network, state, self.item_features, eval_clicks)
        probability = sigmoid(learner.calibration(logits, np.full(len(logits), events)))
        label = eval_clicks.label.cpu().numpy()
        weight = eval_clicks.weights(torch.arange(len(label), device=eval_clicks.item.device)).cpu().numpy()
        for at in np.unique(self.item[rows]):
            mine = self.item[rows] == at
            item_auc = auc(label[mine], probability[mine], weight[mine])
            defined_auc = None if np.isnan(item_auc) else item_auc
            yield int(at), {"logloss": logloss(label[mine], probability[mine], weight[mine]), "auc": defined_auc}


def _item_events(learner: ItemLearner, log: ClickLog, chosen: Sequence[int]) -> _ItemEvents:
    log = log.take(np.isin(item_rows(learner, log), chosen))
    log = log.take(np.lexsort((log.row, log.time)))
    position = np.zeros(len(learner.known), dtype=np.int64)
    position[list(chosen)] = np.arange(len(chosen))
    item, age = position[item_rows(learner, log)], events_before(log)
    counts = np.bincount(item, minlength=len(chosen))
    last = np.array([max(events for events in EVENTS if events <= count // 2) for count in counts])
    item_features = [values[torch.tensor(chosen, device=values.device)] for values in learner.item_features]
    clicks = learner.encoder.clicks(log, item).to(learner.device).by_row()
    is_eval = (age >= last[item]) & (last[item] > 0)
    return _ItemEvents(
        learner.lifecycle.initial_state(item_features, len(chosen)), item_features, clicks, item, age, last, is_eval
    )


def _rows(mask: NDArray[np.bool_]) -> Int[Tensor, " row"]:
    return torch.from_numpy(np.flatnonzero(mask))
