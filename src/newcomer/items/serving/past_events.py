"""An item's past events in the database: those of its window, and the summary of those before."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from newcomer.items.adaptation.item_summary import ItemSummary, Summaries
from newcomer.items.learner import ItemLearner
from newcomer.items.serving.item_cache import ItemCache
from newcomer.items.serving.serialization import summary_of
from newcomer.store.states import KEPT, Event, ItemStates


@dataclass(frozen=True)
class PastEvents:
    """Past events of some items by name."""

    windows: Mapping[str, Sequence[Event]]
    summaries: Mapping[str, ItemSummary]
    lost: frozenset[str] = frozenset()
    """Items whose summaries are not finite: left out here."""

    @classmethod
    def read(
        cls, states: ItemStates, model: str, learner: ItemLearner, known: ItemCache, names: Collection[str]
    ) -> "PastEvents":
        """Of these items; none with `warmup_events` 'new'.

        What another process changes meanwhile does no harm: no state that is computed from it has the next version.
        Raises DamagedItemError.
        """
        if learner.warmup_events != "all":
            return cls({}, {})
        windows: dict[str, Sequence[Event]] = {**states.event_history(model, names)}
        summaries, lost = dict[str, ItemSummary](), set[str]()
        long = [name for name in names if known.headers[known.numbers[name]].events > KEPT]
        for name, row in states.get(model, long if learner.from_initial_state else []).items():
            summary = summary_of(row, learner.device)
            if summary is None:
                continue
            if summary.is_finite:
                window = windows[name]
                windows[name], summaries[name] = window[max(len(window) - summary.window, 0) :], summary
            else:
                lost.add(name)
        return cls(windows, summaries, frozenset(lost))

    def by_number(self, numbers: Mapping[str, int]) -> tuple[list[tuple[int, Event]], Summaries]:
        """Events and summaries of the items that have a number, by that."""
        windows = {numbers[name]: window for name, window in self.windows.items() if name in numbers}
        summaries = {numbers[name]: summary for name, summary in self.summaries.items() if name in numbers}
        return [(number, event) for number, window in windows.items() for event in window], summaries
