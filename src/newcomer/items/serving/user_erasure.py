"""Erasure of a user: the user's events leave the database and the states of items."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from newcomer.data.click_log import Column
from newcomer.data.vocabulary import UNSEEN, Vocabulary
from newcomer.errors import StoreError
from newcomer.items.serving.cached_items import CachedItems
from newcomer.items.serving.finite_checks import all_finite
from newcomer.items.serving.item_cache import ItemCache
from newcomer.items.serving.past_events import PastEvents
from newcomer.items.serving.repair import initial_states, recomputed
from newcomer.items.serving.results import ForgottenUser
from newcomer.items.serving.serialization import to_row
from newcomer.items.serving.user_digests import user_digest
from newcomer.store.states import Change, DamagedItemError, Event, ItemState, now

CHUNK = 500
"""Items searched at a time."""

ATTEMPTS = 100
"""Retries of an item after conflicts with other processes, each of which made progress."""


class UserErasure:
    """Erases the events of one user, who is forgotten: nobody adds one meanwhile."""

    def __init__(self, served: CachedItems, user: str) -> None:
        self.served, self.learner, self.states, self.model = served, served.learner, served.states, served.model
        coding = self.learner.encoder.codings[self.learner.schema.user]
        self.digest, self.code = user_digest(user), UNSEEN
        if isinstance(coding, Vocabulary):  # a bucket has other users too
            self.code = int(coding.encode(Column.of_names([user]))[0])
        self.events = self.in_summaries = self.untraceable = 0
        self.items, self.lost, self.left_out = list[str](), dict[str, str](), list[str]()

    def run(self) -> ForgottenUser:
        """Raises StoreError for an item that others keep changing; the same call goes on from there."""
        names = sorted(self.served.headers())
        for begin in range(0, len(names), CHUNK):
            part: Collection[str] = names[begin : begin + CHUNK]
            for _ in range(ATTEMPTS):
                part = self._erased(part)
                if not part:
                    break
            else:
                raise StoreError(
                    f"item '{min(part)}' was changed by others {ATTEMPTS} times meanwhile; forget the user again"
                )
        return ForgottenUser(
            self.events,
            sorted(self.items),
            self.in_summaries,
            self.untraceable,
            self.lost,
            [*dict.fromkeys(self.left_out)],
        )

    def _erased(self, names: Collection[str]) -> set[str]:
        """Erase the user's events of these items; returns the items that another process changed meanwhile."""
        damaged: dict[str, StoreError] = {}
        known = self.served.refreshed(names, damaged)
        history = self._history([name for name in names if name in known.numbers and name not in damaged], damaged)
        found = {name: {event.id for event in past if self._is_mine(event)} for name, past in history.items()}
        mine = {name: ids for name, ids in found.items() if ids}
        past = PastEvents.read(self.states, self.model, self.learner, known, list(mine))
        late = self._committed(list(self._changes(known, mine, _without(past, mine))), damaged)
        self.served.changed(mine)
        self.left_out += map(str, damaged.values())
        for name in history.keys() - late - damaged.keys():
            events = known.headers[known.numbers[name]].events - known.erased.get(name, 0)
            of_others = self._of_training(name) if name not in known.readded else 0
            self.untraceable += sum(map(_is_traceable, history[name])) < events - of_others
            if name in mine:
                self._note(name, events, mine[name], history[name], past)
        return late

    def _of_training(self, name: str) -> int:
        """Number of an item's events that are of others, because training did not know the user."""
        if self.code > UNSEEN or name not in self.learner.known or len(self.learner.entries) > 1:
            return 0
        return self.learner.counts[self.learner.known[name]]

    def _note(self, name: str, events: int, ids: Collection[str], kept: Sequence[Event], past: PastEvents) -> None:
        """Note what was done to an item of so many events, without those that were erased before."""
        self.items.append(name)
        self.events += len(ids)
        window = {event.id for event in past.windows.get(name, ())}
        if name in past.lost or (name in past.summaries and window <= set(ids)):
            self.lost[name] = f"item '{name}': the summary of its events before the latest is deleted"
        elif name in past.summaries:
            self.in_summaries += len(set(ids) - window)
        elif not self.learner.from_initial_state and len(kept) < events:
            self.lost[name] = f"item '{name}': {events - len(kept)} of its events are not kept, and are lost"

    def _history(self, names: Sequence[str], damaged: dict[str, StoreError]) -> dict[str, list[Event]]:
        """Kept events of these items, without those whose events are damaged, which are added to `damaged`."""
        while True:
            try:
                return self.states.event_history(self.model, [name for name in names if name not in damaged])
            except DamagedItemError as error:
                damaged[error.item] = error

    def _committed(self, changes: Sequence[Change], damaged: dict[str, StoreError]) -> set[str]:
        """Commit but for damaged items, which are added to `damaged`; returns items that another process changed meanwhile."""
        while changes := [change for change in changes if change.state.item not in damaged]:
            try:
                return self.states.commit(self.model, changes)
            except DamagedItemError as error:
                damaged[error.item] = error
        return set()

    def _is_mine(self, event: Event) -> bool:
        """By the user's digest, or by the user's code where training knew the user and the event has no digest."""
        if event.user is not None:
            return event.user == self.digest
        return self.code > UNSEEN and bool(event.values) and event.values[0] == self.code  # type: ignore[index]

    def _changes(self, known: ItemCache, mine: Mapping[str, Collection[str]], past: PastEvents) -> Iterator[Change]:
        """The next row of each of these items, without these events; `past`: what is left."""
        names = sorted(mine)
        if not names:
            return
        numbers = [known.numbers[name] for name in names]
        item_features = [values[numbers] for values in known.item_features]
        initial = initial_states(self.learner, names, item_features, known.readded)
        events, summaries = past.by_number({name: n for n, name in enumerate(names)})
        state, factors = recomputed(self.learner, initial, item_features, events, summaries)
        for n, (name, is_whole) in enumerate(zip(names, all_finite(state).tolist(), strict=True)):
            head, again, summary = known.headers[known.numbers[name]], name in known.readded, summaries.get(n)
            if is_whole and self.learner.warmup_events == "all":
                version = head.version + 1
                factor, erased = factors.get(n), known.erased.get(name, 0) + len(mine[name])
                row = to_row(name, version, head.events, item_features, state, n, again, summary, factor, erased)
            else:
                self.left_out.append(f"item '{name}': has no state without these events, and keeps its own; forget it")
                row = self._unchanged(name, head.version)
            yield Change(row, [], erased=mine[name])

    def _unchanged(self, name: str, version: int) -> ItemState:
        """The item's row as it is, one version higher."""
        row = self.states.get(self.model, [name])[name]
        return replace(row, version=version + 1, updated_at=now())


def _without(past: PastEvents, erased: Mapping[str, Collection[str]]) -> PastEvents:
    """Past events without these; a summary that no event is left after is left out, since a state needs one."""
    windows = {
        name: [event for event in window if event.id not in erased[name]] for name, window in past.windows.items()
    }
    summaries = {
        name: replace(summary, window=len(windows[name])) for name, summary in past.summaries.items() if windows[name]
    }
    return replace(past, windows=windows, summaries=summaries)


def _is_traceable(event: Event) -> bool:
    """Whether it is known whose the event is, or that it is nobody's."""
    return event.user is not None or (bool(event.values) and event.values[0] != UNSEEN)  # type: ignore[index]
