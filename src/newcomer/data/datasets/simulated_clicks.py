"""Simulated click log with known click probabilities and planted feature interactions.

The logit is a sum of the item's effect, first-order effects of all fields, and one pairwise interaction of user or context
fields. The interacting *pair* differs between items and is determined by the item's `kind`: no model shared by all items can
represent it.
"""

import itertools
from dataclasses import dataclass
from typing import Self

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
NAMES = (*USER_FIELDS, *CONTEXT_FIELDS)


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
    world = ClickWorld.draw(
        items=old_items + new_items,
        users=users,
        values=values,
        kinds=kinds,
        brands=brands,
        interaction=interaction if planted else 0.0,
        clarity=clarity,
        seed=seed,
    )
    random = _RandomStreams(seed)
    item = np.repeat(np.arange(old_items + new_items), [old_events] * old_items + [new_events] * new_items)
    item = item[random.order(len(item), "time")]
    user = random.integers(users, len(item), "user")
    context = np.stack([random.integers(values, len(item), name) for name in CONTEXT_FIELDS])
    probability = world.probability(item, user, context)
    return ClickLog(
        SCHEMA,
        EntityTable(
            tuple(map(item_id, range(old_items + new_items))),
            {
                "kind": _column("kind", world.shown_kind),
                "brand": _column("brand", world.brand),
                PLANTED: Column.of_names([f"{NAMES[m]} × {NAMES[n]}" for m, n in world.pair]),
            },
        ),
        EntityTable(
            tuple(map(user_id, range(users))),
            {name: _column(name, found) for name, found in zip(USER_FIELDS, world.user_values, strict=True)},
        ),
        {name: _column(name, found) for name, found in zip(CONTEXT_FIELDS, context, strict=True)}
        | {PROBABILITY: Column.of_numbers(probability)},
        item=item.astype(np.int32),
        user=user.astype(np.int32),
        label=(random.uniform(len(item), "click") < probability).astype(np.float32),
        time=np.arange(len(item)),
        row=np.arange(len(item)),
    )


@dataclass(frozen=True)
class ClickWorld:
    """Items and users, and the click probability of every item for every user and context. Values are indices."""

    shown_kind: NDArray[np.int64]
    brand: NDArray[np.int64]
    pair: NDArray[np.int64]
    """The two interacting fields (indices into `NAMES`) of every item."""
    user_values: NDArray[np.int64]
    """Shape [field, user]."""
    item_effect: NDArray[np.float64]
    """Of the item itself and its brand."""
    sign: NDArray[np.float64]
    effect: NDArray[np.float64]
    """Shape [field, value]."""
    interaction: float

    @classmethod
    def draw(
        cls,
        *,
        items: int,
        users: int = 1000,
        values: int = 4,
        kinds: int = 20,
        brands: int = 10,
        interaction: float = 2.0,
        clarity: float = 1.0,
        seed: int = 0,
    ) -> Self:
        """The world of this seed, see `simulate_click_log`."""
        _require(items, users, values - 1, brands, kinds)
        random = _RandomStreams(seed)
        kind = random.integers(kinds, items, "kind")
        brand = random.integers(brands, items, "brand")
        pairs = np.array(list(itertools.combinations(range(len(NAMES)), 2)))
        of_brand = 0.3 * random.normal(brands, "effect", "brand")
        return cls(
            shown_kind=np.where(
                random.uniform(items, "clarity") < clarity, kind, random.integers(kinds, items, "shown")
            ),
            brand=brand,
            pair=pairs[random.order(len(pairs), "pairs")[:kinds]][kind],
            user_values=np.stack([random.integers(values, users, name) for name in USER_FIELDS]),
            item_effect=0.7 * random.normal(items, "item") + of_brand[brand],
            sign=np.stack([np.where(random.order(values, "sign", name) < values // 2, 1.0, -1.0) for name in NAMES]),
            effect=np.stack([random.normal(values, "effect", name) for name in NAMES]) * 0.2,
            interaction=interaction,
        )

    def probability(
        self, item: NDArray[np.int64], user: NDArray[np.int64], context: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Click probabilities of rows. `context` has shape [field, row]."""
        value_index = np.concatenate([self.user_values[:, user], context])
        logit = self.item_effect[item]
        logit = logit + sum(self.effect[m][value_index[m]] for m in range(len(NAMES)))
        row = np.arange(len(item))
        first, second = self.pair[item].T
        logit += (
            self.interaction * self.sign[first, value_index[first, row]] * self.sign[second, value_index[second, row]]
        )
        probability: NDArray[np.float64] = 1 / (1 + np.exp(-logit))
        return probability

    def item_row(self, item: int) -> dict[str, str]:
        """An item's id and fields by column."""
        fields = {"kind": value_name("kind", self.shown_kind[item]), "brand": value_name("brand", self.brand[item])}
        return {SCHEMA.item: item_id(item), **fields}

    def user_row(self, user: int) -> dict[str, str]:
        """A user's id and fields by column."""
        pairs = zip(USER_FIELDS, self.user_values[:, user], strict=True)
        return {SCHEMA.user: user_id(user), **{name: value_name(name, value) for name, value in pairs}}


def item_id(item: int) -> str:
    """Id of an item by its index."""
    return f"i{item:04d}"


def user_id(user: int) -> str:
    """Id of a user by their index."""
    return f"u{user:05d}"


def value_name(field: str, value: int) -> str:
    """Name of a field's value by its index."""
    return f"{field} {value:02d}"


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
    return Column.of_names([value_name(name, value) for value in values])
