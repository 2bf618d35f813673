"""What a learner that was saved says of its own items, as rows of a database."""

from collections.abc import Sequence

from newcomer.items.adaptation.item_summary import Summaries
from newcomer.items.learner import ItemLearner
from newcomer.items.serving.event_serialization import to_values
from newcomer.items.serving.finite_checks import all_finite
from newcomer.items.serving.serialization import to_row
from newcomer.store.entry import Entry
from newcomer.store.states import Change, Event


def trained_item_rows(learner: ItemLearner, names: Sequence[str]) -> list[Change]:
    """These of its items as they are now, with the events that it keeps of them; nobody knows what those events were called.

    Those whose states are no finite numbers are left out.
    """
    past, found = _past(learner), []
    summaries: Summaries = {}
    if learner.past_events is not None:
        initial = learner.initial_state
        _, summaries = learner.lifecycle.absorb(initial, learner.item_features, learner.past_events, {})
    is_sound = all_finite(learner.state).tolist()
    for name in names:
        number = learner.known[name]
        if not is_sound[number]:  # not known then; added again it begins anew
            continue
        summary = summaries.get(number)
        row = to_row(name, 0, learner.counts[number], learner.item_features, learner.state, number, summary=summary)
        found.append(Change(row, past.get(number, [])))
    return found


def stages_of_items(learner: ItemLearner) -> list[Entry]:
    """The stages that bring items, or change their states: without calibrations, in which stores with the same weights differ."""
    return [entry for entry in learner.entries if entry.info["items"] or "calibration" not in entry.info]


def items_by_stage(learner: ItemLearner) -> list[list[str]]:
    """Of every stage of items the items that the learner came to know there."""
    return [[] if "events" in entry.info else list(entry.info["items"]) for entry in stages_of_items(learner)]


def _past(learner: ItemLearner) -> dict[int, list[Event]]:
    """The events that the learner itself keeps of each item, where its history is 'all'."""
    found: dict[int, list[Event]] = {}
    clicks = learner.past_events
    if clicks is not None:
        every = to_values(clicks)
        for n, item in enumerate(clicks.item.tolist()):
            weight = 1.0 if clicks.weight is None else float(clicks.weight[n])
            event = Event(f"before {n}", 0, int(clicks.label[n]), every[n], weight=weight)
            found.setdefault(item, []).append(event)
    return found
