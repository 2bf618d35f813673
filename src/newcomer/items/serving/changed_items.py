"""Items whose features change: their states begin anew, and are adapted to the events that are kept."""

from collections.abc import Iterator, Sequence

from newcomer.errors import LearnerError
from newcomer.items.encoding.encoder import Values
from newcomer.items.learner import ItemLearner
from newcomer.items.serving.finite_checks import all_finite
from newcomer.items.serving.item_cache import ItemCache
from newcomer.items.serving.past_events import PastEvents
from newcomer.items.serving.repair import initial_states, recomputed
from newcomer.items.serving.results import SkippedRows
from newcomer.items.serving.serialization import to_row
from newcomer.store.states import Change


def changed(
    learner: ItemLearner,
    known: ItemCache,
    names: Sequence[str],
    item_features: Values,
    past: PastEvents,
    where: str,
    skipped: SkippedRows,
) -> Iterator[Change]:
    """The next row of each of these items, given its new features. Items of which none can be computed are skipped.

    Kept events count under the new features; summaries keep what the events before said about the state. For learners whose
    warm-ups begin at the initial state.
    """
    before = initial_states(learner, names, _features(known, names), known.readded)
    initial = learner.cold_state(item_features, len(names))
    events, summaries = past.by_number({name: n for n, name in enumerate(names)})
    summaries = learner.lifecycle.moved(before, initial, summaries)
    state, factors = recomputed(learner, initial, item_features, events, summaries)
    for n, (name, whole) in enumerate(zip(names, all_finite(state).tolist(), strict=True)):
        head, summary = known.headers[known.numbers[name]], summaries.get(n)
        if not whole:
            skipped.add(LearnerError(f"{where}: item '{name}': by these features its state would become no number"))
        else:  # it begins at its own features from here on, as an item does that was deleted and added again
            factor, erased = factors.get(n), known.erased.get(name, 0)
            row = to_row(name, head.version + 1, head.events, item_features, state, n, True, summary, factor, erased)
            yield Change(row, [])


def lost(learner: ItemLearner, known: ItemCache, names: Sequence[str], past: PastEvents) -> dict[str, str]:
    """What the states of these items lose with their features, by item."""
    found = {}
    for name in names:
        events = known.headers[known.numbers[name]].events - known.erased.get(name, 0)
        kept = len(past.windows.get(name, ()))
        if name in learner.known and name not in known.readded:
            found[name] = f"item '{name}': what training learned about it is lost; its state begins at its new features"
        elif name not in past.summaries and kept < events:
            found[name] = f"item '{name}': {events - kept} of its events are not kept, and are lost"
    return found


def _features(known: ItemCache, names: Sequence[str]) -> Values:
    numbers = [known.numbers[name] for name in names]
    return [values[numbers] for values in known.item_features]
