"""Simulated click log with known click probabilities and planted feature interactions.

The logit is a sum of the item's effect, first-order effects of all fields, and one pairwise interaction of user or context
fields. The interacting *pair* differs between items and is determined by the item's `kind`: no model shared by all items can
represent it.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.data.click_log import ClickLog, Column, EntityTable
from newcomer.data.schema import Field, Schema
from newcomer.errors import SettingError
from newcomer.seeds import shuffled, spawn

PROBABILITY, PLANTED = "probability", "planted"
"""Ground truth: click probability of every row and interacting pair of every item, in columns outside the schema, so that no
learner reads them."""

USER_FIELDS = ("taste", "age", "region", "income")
CONTEXT_FIELDS = ("hour", "device", "page", "weather")


def simulate_click_log(
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
) -> ClickLog:
    """Simulate a log with `old_events` events of each old item and `new_events` of each new one, in a random order of time.

    logit = item effect + Σ_m effect_m(v_m) + `interaction` · s_m(v_m) · s_n(v_n), with s = ±1 for half of a field's `values` each
    and (m, n) the item's pair. Each of the `kinds` has a different pair; an item shows its true kind with probability `clarity`,
    else a random one. With `planted=False` the last term is left out.

    >>> log = simulate_click_log(old_items=2, new_items=1, seed=1)
    >>> len(log), log.items.ids, [field.name for field in log.schema.of("context")]
    (380, ('i0000', 'i0001', 'i0002'), ['hour', 'device', 'page', 'weather'])

    Raises SettingError without items, users or values, or with more kinds than pairs.
    """
    _require(old_items + new_items, users, values - 1, brands, kinds)
    random = _RandomStreams(seed)
    items, people = old_items + new_items, users
    item = np.repeat(np.arange(items), [old_events] * old_items + [new_events] * new_items)
    item = item[random.order(len(item), "time")]
    user = random.integers(people, len(item), "user")

    kind = random.integers(kinds, items, "kind")
    shown = np.where(random.uniform(items, "clarity") < clarity, kind, random.integers(kinds, items, "shown"))
    brand = random.integers(brands, items, "brand")
    of_user = {name: random.integers(values, people, name) for name in USER_FIELDS}
    of_row = {name: random.integers(values, len(item), name) for name in CONTEXT_FIELDS}
    names = (*USER_FIELDS, *CONTEXT_FIELDS)
    value_index = np.stack([of_user[name][user] for name in USER_FIELDS] + [of_row[name] for name in CONTEXT_FIELDS])

    sign = np.stack([np.where(random.order(values, "sign", name) < values // 2, 1.0, -1.0) for name in names])
    effect = np.stack([random.normal(values, "effect", name) for name in names]) * 0.2
    pairs = np.array(list(itertools.combinations(range(len(names)), 2)))
    pair = pairs[random.order(len(pairs), "pairs")[:kinds]][kind]
    logit = 0.7 * random.normal(items, "item")[item] + 0.3 * random.normal(brands, "effect", "brand")[brand[item]]
    logit += sum(effect[m][value_index[m]] for m in range(len(names)))
    if planted:
        row = np.arange(len(item))
        first, second = pair[item].T
        logit += interaction * sign[first, value_index[first, row]] * sign[second, value_index[second, row]]
    probability = 1 / (1 + np.exp(-logit))
    return ClickLog(
        SCHEMA,
        EntityTable(
            tuple(f"i{n:04d}" for n in range(items)),
            {
                "kind": _column("kind", shown),
                "brand": _column("brand", brand),
                PLANTED: Column.of_names([f"{names[m]} × {names[n]}" for m, n in pair]),
            },
        ),
        EntityTable(
            tuple(f"u{n:05d}" for n in range(people)), {name: _column(name, of_user[name]) for name in USER_FIELDS}
        ),
        {name: _column(name, of_row[name]) for name in CONTEXT_FIELDS} | {PROBABILITY: Column.of_numbers(probability)},
        item=item.astype(np.int32),
        user=user.astype(np.int32),
        label=(random.uniform(len(item), "click") < probability).astype(np.float32),
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
        raise SettingError("items, users, brands and kinds must be at least 1, and values at least 2; raise them")
    fields = len(USER_FIELDS) + len(CONTEXT_FIELDS)
    if kinds > fields * (fields - 1) // 2:
        raise SettingError(f"kinds = {kinds}: there are only {fields * (fields - 1) // 2} pairs of fields; lower it")


@dataclass(frozen=True)
class _RandomStreams:
    """Random arrays, each from its own generator."""

    seed: int

    def uniform(self, count: int, *address: str) -> NDArray[np.float64]:
        values: NDArray[np.float64] = torch.rand(count, generator=self._at(address), dtype=torch.float64).numpy()
        return values

    def normal(self, count: int, *address: str) -> NDArray[np.float64]:
        values: NDArray[np.float64] = torch.randn(count, generator=self._at(address), dtype=torch.float64).numpy()
        return values

    def integers(self, below: int, count: int, *address: str) -> NDArray[np.int64]:
        values: NDArray[np.int64] = torch.randint(below, (count,), generator=self._at(address)).numpy()
        return values

    def order(self, count: int, *address: str) -> NDArray[np.int64]:
        return np.array(shuffled(count, self.seed, "world", "order", *address))

    def _at(self, address: tuple[str, ...]) -> torch.Generator:
        return spawn(self.seed, "world", *address)


def _column(name: str, values: NDArray[np.int64]) -> Column:
    return Column.of_names([f"{name} {value:02d}" for value in values])
