"""Items of a database as one process knows them: what is newer there is read when it is asked about."""

import difflib
import os
from collections.abc import Collection
from threading import Lock

from newcomer.data.canonical import canonical_name
from newcomer.errors import DataError, StoreError
from newcomer.items.learner import ItemLearner
from newcomer.items.networks.item_network import State
from newcomer.items.serving.item_cache import Known
from newcomer.items.serving.trained_items import names_by_stage, own_items
from newcomer.store.states import DamagedItemError, Head, ItemState, ItemStates
from newcomer.training.forks import require_own_process


class ServedItems:
    """A learner's items, looked at. `model` is the fingerprint of its weights, by which the database knows its states."""

    def __init__(self, learner: ItemLearner, model: str, states: ItemStates) -> None:
        self.learner, self.model, self.states = learner, model, states
        learner.network.eval().requires_grad_(False)
        self._known, self._lock, self._imported, self._process = Known(), Lock(), False, os.getpid()

    def heads(self) -> dict[str, Head]:
        """Version, phase and number of events of every item."""
        self.require_here()
        self._import_own_items()
        return self.states.heads(self.model)

    def look_up(self, item: str) -> tuple[ItemState, State]:
        """One item's row, and its state as the learner's methods take it: Float[1 …] by name.

        Raises DataError for an item that was not added.
        """
        self.require_here()
        item = canonical_name(item) or item
        known = self.fresh([item])
        if item not in known.numbers:
            raise self.not_known(item)
        number = known.numbers[item]
        row = self.states.get(self.model, [item])[item]
        return row, {key: value[number : number + 1] for key, value in known.state.items()}

    def close(self) -> None:
        """Give back what is held of the database."""
        self.states.close()

    def not_known(self, item: str) -> DataError:
        """What to say of an item that is not there."""
        close = difflib.get_close_matches(item, self.heads(), n=1)
        then = f"did you mean '{close[0]}'?" if close else "add it first"
        return DataError(f"item '{item}' is not known; {then}")

    def require_here(self, writes: bool = False) -> None:
        """Raises StoreError in a forked process, and for a change of states that can only be read."""
        require_own_process(self._process)
        if writes and self.states.read_only:
            raise StoreError(
                f"{self.states.where}: cannot be written, and was read as it is: items can be scored, but not added, warmed up or "
                "forgotten; make it writable, or keep states elsewhere (--states URL)"
            )

    def fresh(self, names: Collection[str], damaged: dict[str, StoreError] | None = None) -> Known:
        """What is known, these items as they are in the database now; without those that are not there.

        Without those that are damaged either, where there is a place to say so; else they are a StoreError.
        """
        self._import_own_items()
        with self._lock:
            heads = self.states.heads(self.model, names)
            if any(name in self._known.numbers and name not in heads for name in names):
                self._known = Known()  # somebody has deleted rows
            while stale := self._known.stale(heads):
                try:
                    rows = self.states.get(self.model, stale).values()
                    self._known = self._known.updated(list(rows), self.learner.device)
                    break
                except DamagedItemError as error:
                    if damaged is None:
                        raise
                    damaged[error.item] = error
                    del heads[error.item]
            return self._known

    def _import_own_items(self) -> None:
        """Write the learner's own items to the database, once: what is deleted there later stays so."""
        with self._lock:
            if self._imported:
                return
            stages = names_by_stage(self.learner)
            done = self.states.imported_stages(self.model)
            if done < len(stages):
                there = {} if done else self.states.heads(self.model, [name for names in stages for name in names])
                new = [names for names in stages[done:] if not any(name in there for name in names)]
                changes = own_items(self.learner, [name for names in new for name in names])
                self.states.import_stages(self.model, len(stages), changes)
            self._imported = True
