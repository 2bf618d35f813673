"""What is tried for a row before it is judged: the `[search]` part of a recipe.

    [search]
    budget = 6                          tries a row at most
    seed = 100                          another order or draw than those that are reported
    floor = ["frozen-lda"]              rows between the best of which …
    ceiling = ["joint"]                 … and the best of which others stand
    [search.settings]
    learning_rate = [1e-3, 2e-3]        a setting of the learner, and the values to try
    [peers.NAME.search.settings]        in place of these for one row

A row that names a learner of its own takes from `[search.settings]` what that learner has.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from newcomer.errors import SettingError, nearest
from newcomer.settings import Json, fill
from newcomer.training.settings import Count

KEYS = ("budget", "seed", "floor", "ceiling", "settings")


@dataclass(frozen=True)
class Search:
    """The values to try of each setting of one row, and how many tries every row has."""

    settings: Mapping[str, Sequence[Json]]
    budget: int
    seed: int
    floor: Sequence[str]
    ceiling: Sequence[str]

    def tries(self, own: Mapping[str, Json], budget: int) -> list[dict[str, Json]]:
        """The first `budget` combinations of the values, in an order that does not depend on the budget.

        It begins at the row's `own` values, in the middle of those that are not among the values, and goes on with the combination
        that lies farthest from all before it, each setting's values counted from 0 to 1; among equals the first in the file's
        order. So any number of tries is spread over all of the grid. A row without settings to search has one try, as it is.

        >>> search = Search({"rate": [1, 2, 4], "epochs": [3, 6]}, budget=3, seed=0, floor=(), ceiling=())
        >>> search.tries({"rate": 2, "epochs": 3}, 3)
        [{'rate': 2, 'epochs': 3}, {'rate': 1, 'epochs': 6}, {'rate': 4, 'epochs': 6}]
        """
        places = list(product(*(range(len(values)) for values in self.settings.values())))
        last = [max(1, len(values) - 1) for values in self.settings.values()]

        def apart(one: Sequence[int], other: Sequence[int]) -> float:
            return sum(((a - b) / size) ** 2 for a, b, size in zip(one, other, last, strict=True))

        order = [tuple(_place(own[key], values) for key, values in self.settings.items())]
        while len(order) < min(budget, len(places)):
            order.append(max(places, key=lambda place: min(apart(place, taken) for taken in order)))
        return [
            {key: values[n] for (key, values), n in zip(self.settings.items(), place, strict=True)} for place in order
        ]

    @property
    def combinations(self) -> int:
        """How many tries there could be."""
        return prod(map(len, self.settings.values()))


def read_search(
    table: Mapping[str, Json],
    learner: Callable[..., object],
    own: Mapping[str, Json],
    provided: Sequence[str],
    rows: Sequence[str],
) -> Search:
    """The search of the row whose learner has the settings `own`; every value is validated as if it stood there.

    `provided`: arguments of the learner that are no settings; `rows`: all rows of the recipe. Raises SettingError at the first
    thing in it that cannot be.
    """
    for key in table:
        if key not in KEYS:
            raise SettingError(f"search.{key} is not part of a search; {nearest(key, KEYS)}")
    whole = fill(_whole, {key: value for key, value in table.items() if key != "settings"}, "search")
    for end in ("floor", "ceiling"):
        for row in whole[end]:
            if row not in rows:
                raise SettingError(f"search.{end}: there is no row '{row}'; {nearest(row, rows)}")
    settings = table.get("settings", {})
    if not isinstance(settings, Mapping):
        raise SettingError(f"search.settings = {settings!r} is not a table; write [search.settings] and lists below")
    found: dict[str, list[Json]] = {}
    for key, values in settings.items():
        if not isinstance(values, list) or not values:
            raise SettingError(f"search.settings.{key} = {values!r} is no list of values; write [one, another]")
        valid = [fill(learner, {**own, key: value}, "search.settings", provided)[key] for value in values]
        if twice := [value for n, value in enumerate(valid) if value in valid[:n]]:
            raise SettingError(f"search.settings.{key} has {twice[0]!r} twice; remove one")
        found[key] = valid
    return Search(found, whole["budget"], whole["seed"], whole["floor"], whole["ceiling"])


def _whole(budget: Count = 6, seed: int = 100, floor: Sequence[str] = (), ceiling: Sequence[str] = ()) -> None:
    """Only its signature is of use: what these may be."""


def _place(value: Json, values: Sequence[Json]) -> int:
    return values.index(value) if value in values else (len(values) - 1) // 2
