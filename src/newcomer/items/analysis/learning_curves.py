"""What a few events teach a model about an item: its loss and AUC against their number."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.data.click_log import Log
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.inference import scored
from newcomer.items.learner import ItemLearner
from newcomer.items.networks.item_network import State
from newcomer.metrics.calibration import logloss
from newcomer.metrics.ranking import auc
from newcomer.settings import Json
from newcomer.shapes import Int, Tensor
from newcomer.streams.cold_start import events_before
from newcomer.training.learner import Step

EVENTS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Numbers of events at which a curve has a point."""


def curves(learner: ItemLearner, log: Log, chosen: Sequence[int]) -> Generator[Step, None, dict[int, Json]]:
    """By number of the chosen items, those with fewer than two events left out; all go together, each by its own events.

    At each number of `events`, as far as half of the item's, the `logloss` and the `auc` (None: undefined) of the state that so
    many first events of the item make out of the cold one. It is `asked` about the same later events at every point: those after
    as many as the last point has. Changes nothing.
    """
    lives = _lives(learner, log, chosen)
    found: dict[int, Json] = {
        number: {"asked": int((lives.asked & (lives.item == at)).sum()), "events": [], "logloss": [], "auc": []}
        for at, number in enumerate(chosen)
        if lives.last[at]
    }
    points = [events for events in EVENTS if found and events <= lives.last.max()]
    for step, events in enumerate(points, 1):
        for at, judged in lives.judged(learner, events):
            for key, value in {"events": events, **judged}.items():
                found[chosen[at]][key].append(value)
        yield Step("curves", step, len(points))
    return found


def numbers_of(learner: ItemLearner, log: Log) -> NDArray[np.int64]:
    """Of each row its item's number as the learner knows it, -1 for one that it does not know."""
    numbers: NDArray[np.int64] = np.array([learner.known.get(name, -1) for name in log.items.ids])[log.item]
    return numbers


@dataclass(frozen=True)
class _Lives:
    """The events of some items by time."""

    cold: State
    own: Values
    clicks: Clicks
    item: NDArray[np.int64]
    """Of each event its item's place among the chosen ones."""
    age: NDArray[np.int64]
    last: NDArray[np.int64]
    """Of each item the number of events at its last point; 0 where it has none but the cold one."""
    asked: NDArray[np.bool_]

    def judged(self, learner: ItemLearner, events: int) -> Generator[tuple[int, dict[str, Json]], None, None]:
        """Item by item, as far as they have so many events."""
        reached = self.last[self.item] >= events
        rows = self.asked & reached
        state = self.cold
        first = self.clicks.by_row(_places(reached & (self.age < events)).to(learner.device))
        for items, new in learner.tuned(state, self.own, first):
            state = {key: value.index_copy(0, items, new[key]) for key, value in state.items()}
        asked = self.clicks.by_row(_places(rows).to(learner.device))
        probability, label = scored(learner.network, state, self.own, asked), asked.label.cpu().numpy()
        for at in np.unique(self.item[rows]):
            mine = self.item[rows] == at
            ranked = auc(label[mine], probability[mine])
            shown = None if np.isnan(ranked) else ranked
            yield int(at), {"logloss": logloss(label[mine], probability[mine]), "auc": shown}


def _lives(learner: ItemLearner, log: Log, chosen: Sequence[int]) -> _Lives:
    log = log.take(np.isin(numbers_of(learner, log), chosen))
    log = log.take(np.lexsort((log.row, log.time)))
    place = np.zeros(len(learner.known), dtype=np.int64)
    place[list(chosen)] = np.arange(len(chosen))
    item, age = place[numbers_of(learner, log)], events_before(log)
    counts = np.bincount(item, minlength=len(chosen))
    last = np.array([max(events for events in EVENTS if events <= count // 2) for count in counts])
    own = [values[torch.tensor(chosen, device=values.device)] for values in learner.own]
    clicks = learner.encoder.clicks(log, item).to(learner.device).by_row()
    asked = (age >= last[item]) & (last[item] > 0)
    return _Lives(learner.begin(own, len(chosen)), own, clicks, item, age, last, asked)


def _places(mask: NDArray[np.bool_]) -> Int[Tensor, " row"]:
    return torch.from_numpy(np.flatnonzero(mask))
