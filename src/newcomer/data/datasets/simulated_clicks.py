"""A simulated world of clicks in which it is known who would click what, and why.

Who clicks depends on the item, on every field by itself, and on one pair of user or context fields whose values agree or
not. *Which* pair that is differs from item to item, and the item's `kind` tells it: nothing that holds for all items alike
can say it.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.data.click_log import Column, Log, Table
from newcomer.data.schema import Field, Schema
from newcomer.errors import SettingError
from newcomer.seeds import shuffled, spawn

PROBABILITY, PLANTED = "probability", "planted"
"""The answers: of every row its click probability, of every item its pair of fields, as columns that the schema does not
name, so that no learner reads them."""

USER_FIELDS = ("taste", "age", "region", "income")
CONTEXT_FIELDS = ("hour", "device", "page", "weather")


def click_world(
    *,
    old_items: int = 300,
    old_events: int = 130,
    new_items: int = 150,
    new_events: int = 120,
    users: int = 1000,
    values: int = 4,
    kinds: int = 20,
    brands: int = 10,
    interaction: float = 2.0,
    clarity: float = 1.0,
    planted: bool = True,
    seed: int = 0,
) -> Log:
    """A log with `old_events` of each old item and `new_events` of each new one, in an order of time that mixes all.

    logit = item's own + Σ_m effect_m(v_m) + `interaction` · s_m(v_m) · s_n(v_n), s = ±1 for half of a field's `values` each,
    (m, n) the item's pair. `kinds` of items have a pair each, no two the same; an item shows its true kind with probability
    `clarity`, else any. With `planted=False` the world is the same without the last term.

    >>> log = click_world(old_items=2, new_items=1, seed=1)
    >>> len(log), log.items.ids, [field.name for field in log.schema.of("context")]
    (380, ('i0000', 'i0001', 'i0002'), ['hour', 'device', 'page', 'weather'])

    Raises SettingError for a world without items, users or values, or with more kinds than pairs.
    """
    _require(old_items + new_items, users, values - 1, brands, kinds)
    chance = _Chance(seed)
    items, people = old_items + new_items, users
    item = np.repeat(np.arange(items), [old_events] * old_items + [new_events] * new_items)
    item = item[chance.order(len(item), "time")]
    user = chance.integers(people, len(item), "user")

    kind = chance.integers(kinds, items, "kind")
    shown = np.where(chance.uniform(items, "clarity") < clarity, kind, chance.integers(kinds, items, "shown"))
    brand = chance.integers(brands, items, "brand")
    of_user = {name: chance.integers(values, people, name) for name in USER_FIELDS}
    of_row = {name: chance.integers(values, len(item), name) for name in CONTEXT_FIELDS}
    names = (*USER_FIELDS, *CONTEXT_FIELDS)
    seen = np.stack([of_user[name][user] for name in USER_FIELDS] + [of_row[name] for name in CONTEXT_FIELDS])

    sign = np.stack([np.where(chance.order(values, "sign", name) < values // 2, 1.0, -1.0) for name in names])
    effect = np.stack([chance.normal(values, "effect", name) for name in names]) * 0.2
    pairs = np.array(list(itertools.combinations(range(len(names)), 2)))
    pair = pairs[chance.order(len(pairs), "pairs")[:kinds]][kind]
    logit = 0.7 * chance.normal(items, "item")[item] + 0.3 * chance.normal(brands, "effect", "brand")[brand[item]]
    logit += sum(effect[m][seen[m]] for m in range(len(names)))
    if planted:
        row = np.arange(len(item))
        first, second = pair[item].T
        logit += interaction * sign[first, seen[first, row]] * sign[second, seen[second, row]]
    probability = 1 / (1 + np.exp(-logit))
    return Log(
        SCHEMA,
        Table(
            tuple(f"i{n:04d}" for n in range(items)),
            {
                "kind": _column("kind", shown),
                "brand": _column("brand", brand),
                PLANTED: Column.of_names([f"{names[m]} × {names[n]}" for m, n in pair]),
            },
        ),
        Table(tuple(f"u{n:05d}" for n in range(people)), {name: _column(name, of_user[name]) for name in USER_FIELDS}),
        {name: _column(name, of_row[name]) for name in CONTEXT_FIELDS} | {PROBABILITY: Column.of_numbers(probability)},
        item=item.astype(np.int32),
        user=user.astype(np.int32),
        label=(chance.uniform(len(item), "click") < probability).astype(np.float32),
        time=np.arange(len(item)),
        row=np.arange(len(item)),
    )


SCHEMA = Schema(
    "item",
    "user",
    fields=(
        Field("kind", "item"),
        Field("brand", "item"),
        *(Field(name, "user") for name in USER_FIELDS),
        *(Field(name, "context") for name in CONTEXT_FIELDS),
    ),
)


def _require(items: int, users: int, spare_values: int, brands: int, kinds: int) -> None:
    if min(items, users, spare_values, brands, kinds) < 1:
        raise SettingError(
            "the world needs items, users, brands, kinds, and two values a field at least; give positive numbers"
        )
    fields = len(USER_FIELDS) + len(CONTEXT_FIELDS)
    if kinds > fields * (fields - 1) // 2:
        raise SettingError(
            f"kinds = {kinds}: the world has only {fields * (fields - 1) // 2} pairs of fields; lower it"
        )


@dataclass(frozen=True)
class _Chance:
    """Draws, each from a generator of its own."""

    seed: int

    def uniform(self, count: int, *address: str) -> NDArray[np.float64]:
        drawn: NDArray[np.float64] = torch.rand(count, generator=self._at(address), dtype=torch.float64).numpy()
        return drawn

    def normal(self, count: int, *address: str) -> NDArray[np.float64]:
        drawn: NDArray[np.float64] = torch.randn(count, generator=self._at(address), dtype=torch.float64).numpy()
        return drawn

    def integers(self, below: int, count: int, *address: str) -> NDArray[np.int64]:
        drawn: NDArray[np.int64] = torch.randint(below, (count,), generator=self._at(address)).numpy()
        return drawn

    def order(self, count: int, *address: str) -> NDArray[np.int64]:
        return np.array(shuffled(count, self.seed, "world", "order", *address))

    def _at(self, address: tuple[str, ...]) -> torch.Generator:
        return spawn(self.seed, "world", *address)


def _column(name: str, values: NDArray[np.int64]) -> Column:
    return Column.of_names([f"{name} {value:02d}" for value in values])
