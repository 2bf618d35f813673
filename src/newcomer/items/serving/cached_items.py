"""Items of a database with a cache in this process, refreshed by version when an item is used."""

import difflib
import math
import os
from collections.abc import Collection, Sequence
from math import inf
from threading import Lock
from time import monotonic
from typing import Self

import torch

from newcomer.data.canonical import canonical_name
from newcomer.data.io.plain_tables import PlainReader
from newcomer.errors import DataError, StoreError
from newcomer.items.encoding.encoder import Values
from newcomer.items.learner import ItemLearner
from newcomer.items.networks.item_network import State
from newcomer.items.serving.item_cache import ItemCache, ItemTable
from newcomer.items.serving.serialization import posterior_of
from newcomer.items.serving.trained_items import items_by_stage, stages_of_items, trained_item_rows
from newcomer.items.serving.user_digests import user_digest
from newcomer.shapes import Float, Tensor
from newcomer.store.states import DamagedItemError, ItemHeader, ItemState, ItemStates
from newcomer.training.forks import require_own_process


class CachedItems:
    """Read access to a learner's items. `model`: fingerprint of its weights, the key of its states in the database."""

    def __init__(self, learner: ItemLearner, model: str, states: ItemStates) -> None:
        self.learner, self.model, self.states = learner, model, states
        self.reader, self.reader_of_clicks = PlainReader(learner.schema), PlainReader(learner.schema.of_clicks)
        learner.network.eval().requires_grad_(False)
        self._factors: dict[str, tuple[ItemHeader, Tensor | None]] = {}
        self._table, self._lock = ItemTable(learner.device), Lock()
        self._imported, self._process = False, os.getpid()
        self.max_age = 0.0
        """Seconds for which a state that was current may be used for scores without asking the database again."""
        self._checked: dict[str, float] = {}
        self.warming = Lock()
        """Held by a thread that warms up items: side by side they would change the same ones, and each conflict is done again."""
        self._forgotten_users, self._users_checked, self._users_lock = set[str](), dict[str, float](), Lock()

    def headers(self) -> dict[str, ItemHeader]:
        """Version, phase and number of events of every item."""
        self.require_here()
        self._import_trained_items()
        return self.states.headers(self.model)

    def look_up(self, item: str) -> tuple[ItemState, State]:
        """An item's row and its state, Float[1 …] by name.

        Raises DataError for an item that was not added.
        """
        item, number, known = self._found(item)
        row = self.states.get(self.model, [item])[item]
        return row, {key: value[number : number + 1] for key, value in known.state.items()}

    def initial_state(self, item: str) -> tuple[State, Values]:
        """The state that an item's features generate, before any event, and the features: one row each.

        Raises DataError for an item that was not added.
        """
        _, number, known = self._found(item)
        features = [values[number : number + 1] for values in known.item_features]
        return self.learner.cold_state(features, 1), features

    def _found(self, item: str) -> tuple[str, int, ItemCache]:
        """The item's canonical id, its number, and the cache. Raises DataError for an item that was not added."""
        self.require_here()
        item = canonical_name(item) or item
        known = self.refreshed([item])
        if item not in known.numbers:
            raise self.not_known(item)
        return item, known.numbers[item], known

    def close(self) -> None:
        """Close the database connections."""
        self.states.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def changed_users(self) -> None:
        """Ask the database again for all users, whatever `max_age` is."""
        with self._users_lock:
            self._users_checked.clear()

    def changed(self, names: Collection[str]) -> None:
        """Ask the database again for these items, whatever `max_age` is."""
        with self._lock:
            for name in names:
                self._checked.pop(name, None)

    def not_known(self, item: str) -> DataError:
        """The error for an unknown item."""
        close = difflib.get_close_matches(item, self.headers(), n=1)
        then = f"did you mean '{close[0]}'?" if close else "it was not added, or was deleted"
        return DataError(f"item '{item}' is not known; {then}")

    def require_here(self, writes: bool = False) -> None:
        """Raises StoreError in a forked process, and for writes to a read-only database."""
        require_own_process(self._process)
        if writes and self.states.read_only:
            raise StoreError(
                f"{self.states.where}: cannot be written, and was read as it is: items can be scored, but not added, warmed up or "
                "forgotten; make it writable, or keep states elsewhere (--states URL)"
            )

    def refreshed(
        self,
        names: Collection[str],
        damaged: dict[str, StoreError] | None = None,
        max_age: float = 0.0,
        for_scores: bool = False,
    ) -> ItemCache:
        """These items in versions of at most `max_age` seconds ago; items that the database lacks are missing.

        Damaged items are collected in `damaged`, or raise StoreError if it is None. `for_scores`: with `precomputed`.
        """
        self._import_trained_items()
        with self._lock:
            self._refresh(names, damaged, max_age)
            return self._table.take(names, self.learner.network if for_scores else None)

    def _refresh(self, names: Collection[str], damaged: dict[str, StoreError] | None, max_age: float) -> None:
        """Read items that are missing in the table, or have another version in the database."""
        now = monotonic()
        names = [name for name in names if now - self._checked.get(name, -inf) > max_age] if max_age else names
        if not names:
            return
        headers = self.states.headers(self.model, names)
        if gone := [name for name in names if name in self._table.numbers and name not in headers]:
            self._table.remove(gone)
            for name in gone:
                self._checked.pop(name, None)
        while stale := self._table.outdated(headers):
            try:
                self._table.write(list(self.states.get(self.model, stale).values()))
                break
            except DamagedItemError as error:
                if damaged is None:
                    raise
                damaged[error.item] = error
                del headers[error.item]
        self._checked |= dict.fromkeys(headers, now)

    def forgotten_users(self, users: Collection[str], max_age: float = 0.0) -> set[str]:
        """Users among these who are forgotten, as of at most `max_age` seconds ago."""
        with self._users_lock:
            now = monotonic()
            asked = {
                digest: user
                for user in users
                if user not in self._forgotten_users
                and (not max_age or now - self._users_checked.get(user, -inf) > max_age)
                and (digest := user_digest(user)) is not None
            }
            if asked:
                self._forgotten_users |= {asked[digest] for digest in self.states.forgotten_users(asked)}
                if max_age:
                    self._users_checked |= dict.fromkeys(asked.values(), now)
            return self._forgotten_users.intersection(users)

    def factors(self, names: Sequence[str], known: ItemCache) -> Float[Tensor, "item direction number"]:
        """Factors of the posteriors of these items, which `known` has; NaN for an item without one, nothing for a cold item.

        They are read, and kept, for items whose stds are asked for.
        """
        numbers = sum(math.prod(shape) for shape in self.learner.network.tuned_shapes().values())
        device, found = self.learner.device, list[Tensor]()
        with self._lock:
            headers = {name: known.headers[known.numbers[name]] for name in names}
            stale = [
                name for name, head in headers.items() if head.events and self._factors.get(name, (None,))[0] != head
            ]
            for name, row in (self.states.get(self.model, stale) if stale else {}).items():
                self._factors[name] = (row.header, posterior_of(row, device))
            for name in names:
                factor = self._factors[name][1] if headers[name].events and name in self._factors else None
                if factor is None:
                    rows, value = (1, math.nan) if headers[name].events else (0, 0.0)
                    factor = torch.full((rows, numbers), value, device=device)
                found.append(factor)
        return torch.nn.utils.rnn.pad_sequence(found, batch_first=True)

    def _import_trained_items(self) -> None:
        """Import the items of the learner's store into the database, once; items deleted later stay deleted."""
        with self._lock:
            if self._imported:
                return
            stages = items_by_stage(self.learner)
            done = self.states.imported_stages(self.model)
            self._require_no_other_warm_up(done)
            if done < len(stages):
                existing = {} if done else self.states.headers(self.model, [name for names in stages for name in names])
                new = [names for names in stages[done:] if not any(name in existing for name in names)]
                changes = trained_item_rows(self.learner, [name for names in new for name in names])
                self.states.import_stages(self.model, len(stages), changes)
            self._imported = True

    def _require_no_other_warm_up(self, imported: int) -> None:
        """Raises StoreError if the learner was warmed up by itself after its items had been imported: which state counts?"""
        other = next((stage.name for stage in stages_of_items(self.learner)[imported:] if "events" in stage.info), None)
        if imported and other is not None:
            raise StoreError(
                f"{self.states.where}: the store has a warm-up ('{other}') that was made without this database, which has states "
                "of the same items; warm up through the service alone, or give a new database (--states URL)"
            )
