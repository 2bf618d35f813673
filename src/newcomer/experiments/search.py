"""Hyper-parameter search of a row: the `[search]` part of a recipe.

    [search]
    budget = 6                          at most this many trials a row
    seed = 100                          seed of the trials; the reported runs have others
    draws = 3                           draws of validation data for each trial, with the seeds from `seed` on
    floor = ["frozen-lda"]              lower bounds: the best of these rows is 0 % of the gap
    ceiling = ["joint"]                 upper bounds: the best of these rows is 100 % of the gap
    [search.settings]
    learning_rate = [1e-3, 2e-3]        a setting of the learner, and its grid of values
    [baselines.NAME.search.settings]    the grid of one row, in place of the above

A row with a learner of another name uses the part of `[search.settings]` that its learner has.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod, sqrt

from newcomer.errors import SettingError, nearest
from newcomer.settings import Json, fill
from newcomer.training.settings import Count

KEYS = ("budget", "seed", "draws", "floor", "ceiling", "settings")


@dataclass(frozen=True)
class Search:
    """The grid of one row, and the budget of trials that every row has."""

    settings: Mapping[str, Sequence[Json]]
    budget: int
    seed: int
    floor: Sequence[str]
    ceiling: Sequence[str]
    draws: int = 1

    def trials(self, defaults: Mapping[str, Json], budget: int) -> list[dict[str, Json]]:
        """The first `budget` combinations of the grid, in an order that does not depend on the budget (farthest-point sampling).

        The first trial has the row's `defaults`, or the middle of the grid for a default outside of it. Each next one is the
        combination farthest from all earlier ones, every setting's values scaled to 0…1 by their index; ties go to the file's
        order. A row without a grid has one trial, with its defaults.

        >>> search = Search({"rate": [1, 2, 4], "epochs": [3, 6]}, budget=3, seed=0, floor=(), ceiling=())
        >>> search.trials({"rate": 2, "epochs": 3}, 3)
        [{'rate': 2, 'epochs': 3}, {'rate': 1, 'epochs': 6}, {'rate': 4, 'epochs': 6}]
        """
        grid = list(product(*(range(len(values)) for values in self.settings.values())))
        scale = [max(1, len(values) - 1) for values in self.settings.values()]

        def squared_distance(one: Sequence[int], other: Sequence[int]) -> float:
            return sum(((a - b) / size) ** 2 for a, b, size in zip(one, other, scale, strict=True))

        order = [tuple(_start_index(defaults[key], values) for key, values in self.settings.items())]
        while len(order) < min(budget, len(grid)):
            order.append(max(grid, key=lambda point: min(squared_distance(point, earlier) for earlier in order)))
        return [
            {key: values[n] for (key, values), n in zip(self.settings.items(), point, strict=True)} for point in order
        ]

    @property
    def combinations(self) -> int:
        """The size of the grid."""
        return prod(map(len, self.settings.values()))


def read_search(
    table: Mapping[str, Json],
    learner: Callable[..., object],
    defaults: Mapping[str, Json],
    provided: Sequence[str],
    rows: Sequence[str],
) -> Search:
    """Parse and validate the `[search]` table of a row whose learner has the settings `defaults`.

    `provided`: arguments of the learner that are not settings; `rows`: all rows of the recipe. Raises SettingError at the first
    invalid entry.
    """
    for key in table:
        if key not in KEYS:
            raise SettingError(f"search.{key} is not part of a search; {nearest(key, KEYS)}")
    options = fill(_options, {key: value for key, value in table.items() if key != "settings"}, "search")
    for bound in ("floor", "ceiling"):
        for row in options[bound]:
            if row not in rows:
                raise SettingError(f"search.{bound}: there is no row '{row}'; {nearest(row, rows)}")
    settings = table.get("settings", {})
    if not isinstance(settings, Mapping):
        raise SettingError(f"search.settings = {settings!r} is not a table; write [search.settings] and lists below")
    grid: dict[str, list[Json]] = {}
    for key, values in settings.items():
        if not isinstance(values, list) or not values:
            raise SettingError(f"search.settings.{key} = {values!r} is not a list of values; write [one, another]")
        valid = [fill(learner, {**defaults, key: value}, "search.settings", provided)[key] for value in values]
        if repeated := [value for n, value in enumerate(valid) if value in valid[:n]]:
            raise SettingError(f"search.settings.{key} has {repeated[0]!r} twice; remove one")
        grid[key] = valid
    return Search(grid, **options)


def best(scores: Sequence[Sequence[float]]) -> int:
    """The trial to choose, by its scores draw by draw: the earliest within one standard error of the best mean.

    The standard error is that of the differences from the best trial, paired by draw (the one-standard-error rule: Breiman et al.
    1984). Earlier trials are nearer to the row's defaults. With one draw it is the best trial, the earlier of equals.

    >>> best([[0.70, 0.72], [0.71, 0.72], [0.65, 0.60]])     # .005 ± .005
    0
    >>> best([[0.70], [0.71], [0.65]])
    1
    """
    means = [sum(of_trial) / len(of_trial) for of_trial in scores]
    top = max(range(len(scores)), key=means.__getitem__)
    return next(trial for trial in range(top + 1) if _is_within_error(scores[trial], scores[top]))


def _is_within_error(one: Sequence[float], best: Sequence[float]) -> bool:
    differences = [b - a for a, b in zip(one, best, strict=True)]
    draws = len(differences)
    mean = sum(differences) / draws
    if draws == 1:
        return mean <= 0
    variance = sum((difference - mean) ** 2 for difference in differences) / (draws - 1)
    return mean <= sqrt(variance / draws)


def _options(
    budget: Count = 6, seed: int = 100, draws: Count = 1, floor: Sequence[str] = (), ceiling: Sequence[str] = ()
) -> None:
    """The types and defaults of `[search]`, for `fill`; never called."""


def _start_index(value: Json, values: Sequence[Json]) -> int:
    return values.index(value) if value in values else (len(values) - 1) // 2
