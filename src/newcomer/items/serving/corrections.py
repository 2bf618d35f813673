"""Corrections: clicks on events that counted as no click. The item's state becomes that of one that knew them from the start."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from newcomer.items.encoding.encoder import Clicks
from newcomer.items.learner import ItemLearner
from newcomer.items.serving.event_batch import EventBatch
from newcomer.items.serving.event_serialization import to_values
from newcomer.items.serving.item_cache import ItemCache
from newcomer.items.serving.past_events import PastEvents
from newcomer.items.serving.results import SkippedRows
from newcomer.items.serving.user_digests import user_digest
from newcomer.settings import Json
from newcomer.store.states import Event

CLOSE = 1e-4
"""Numbers of an event that is sent twice may differ by this much: encoders of texts round by batch."""

TOO_LATE = "it is too late to correct it: its values are not kept"
NO_ESTIMATE = (
    "this model cannot correct it: its states are no MAP estimates from all events (adaptation, warmup_events)"
)


@dataclass(frozen=True)
class Corrections:
    """Past events with the labels that they have by now, and the new labels by item and id."""

    past: PastEvents
    labels: Mapping[str, Mapping[str, int]]

    @classmethod
    def of(
        cls,
        clicked: EventBatch,
        clicks: Clicks,
        past: PastEvents,
        learner: ItemLearner,
        known: ItemCache,
        skipped: SkippedRows,
    ) -> Self:
        """The corrections by these events, which counted as no click; `clicks`: the same, encoded row by row.

        An event of the window gets another label there. One before it changes the summary by log(p / (1 − p)), its logit, times its
        weight, which needs the values that came with the click alone. What cannot be corrected is skipped.
        """
        labels, of_summaries, values = defaultdict[str, dict[str, int]](dict), list[int](), to_values(clicks)
        for name, rows in clicked.by_item().items():
            window = {event.id: event for event in past.windows.get(name, ())}
            for row in rows:
                event = window.get(clicked.ids[row])
                if not learner.from_initial_state:
                    skipped.add(clicked.not_corrected(row, NO_ESTIMATE))
                elif event is None and name not in past.summaries:
                    skipped.add(clicked.not_corrected(row, TOO_LATE))
                elif event is not None and is_another(clicked, values[row], row, event):
                    skipped.add(clicked.other_values(row))
                else:
                    of_summaries += [row] if event is None else []
                    labels[name][clicked.ids[row]] = 1
        windows = {
            name: [replace(event, label=labels[name].get(event.id, event.label)) for event in window]
            if name in labels
            else window
            for name, window in past.windows.items()
        }
        summaries = dict(past.summaries)
        if of_summaries:
            _, before = past.by_number(known.numbers)
            rows_clicked = clicks.by_row(clicks.item.new_tensor(of_summaries))
            after = learner.lifecycle.correct(known.state, known.item_features, rows_clicked, before)
            summaries |= {name: after[known.numbers[name]] for name in summaries if name in known.numbers}
        return cls(replace(past, windows=windows, summaries=summaries), labels)


def is_another(batch: EventBatch, values: Json, row: int, counted: Event) -> bool:
    """Whether a row under the id of this event has another user, context or weight; `values`: the row's encoded fields."""
    if counted.user is not None and counted.user != user_digest(batch.user(row)):
        return True
    if not _are_alike(counted.weight, batch.weight(row)):
        return True
    return not _are_alike(counted.values, values)


def _are_alike(one: Json, other: Json) -> bool:
    """Whether encoded values are equal up to rounding."""
    if isinstance(one, Sequence) and isinstance(other, Sequence):
        return len(one) == len(other) and all(map(_are_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE)
    return bool(one == other)
