"""One event of one item: the likeliest state without autograd, on views of the weights.

A warm-up by one event is what a service does most, and there the calls cost more than what they compute.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.items.adaptation.rules import NEWTON, Bayes
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.networks.item_network import ItemNetwork, State
from newcomer.nn.ctr.field_embeddings import FieldEmbeddings, Names
from newcomer.nn.optim.analytic_gradients import RowSlopes
from newcomer.nn.optim.map_logistic import LEAST, PARTS, ROUNDING
from newcomer.nn.optim.numpy_views import Array, Whereabouts, view
from newcomer.shapes import Tensor


def likeliest_of_one(
    network: ItemNetwork, state: State, own: Values, clicks: Clicks, rule: Bayes
) -> tuple[Tensor, State] | None:
    """What `Bayes` makes of a single event: the item's number, and its state; None for a network without such formulas.

    Those are networks whose readout attends, whose weights are not float32 or not on the CPU; see `ItemNetwork.row_slopes`.
    """
    single = Single.of(network)
    return None if single is None else single.likeliest(state, own, clicks, rule.rounds)


@dataclass(frozen=True)
class Single:
    """Views of a network: they see what changes there in place, and `whereabouts` says whether it was something else."""

    slopes_of: RowSlopes
    item_fields: "Tables"
    row_fields: "Tables"
    scales: Mapping[str, Array]
    whereabouts: Whereabouts

    @classmethod
    def of(cls, network: ItemNetwork) -> "Single | None":
        """Taken once a network, and anew when they do not hold any more."""
        known = _TAKEN.get(network)
        if known is not None and known.whereabouts.hold():
            return known
        slopes_of = network.row_slopes()
        if slopes_of is None:
            return None
        fields = (Tables.of(network.item_fields), Tables.of(network.row_fields))
        scales = {key: view(scale) for key, scale in sorted(network.scales.items())}
        _TAKEN[network] = cls(slopes_of, *fields, scales, Whereabouts.of(network))
        return _TAKEN[network]

    def likeliest(self, state: State, own: Values, clicks: Clicks, rounds: int) -> tuple[Tensor, State]:
        """The first row's item and its likeliest state; Newton's steps are those of `nn.optim.map_logistic.likeliest`."""
        item, user, label = int(clicks.item[0]), int(clicks.user[0]), float(clicks.label[0])
        of_row = [_at(values, user) for values in clicks.of_users] + [_at(values, 0) for values in clicks.of_rows]
        others = np.array([*self.item_fields([_at(values, item) for values in own]), *self.row_fields(of_row)])
        mine: dict[str, Array] = {key: view(state[key])[item] for key in self.scales}
        spread, first, places = np.exp(_flat(self.scales)), _flat(mine), _places(mine)
        now, numbers = first, mine
        for _ in range(rounds):
            logit, slopes = self.slopes_of(numbers, others)
            by_number = _flat({key: slopes[key] for key in mine})
            scaled = by_number * spread
            at_first = logit - float(by_number @ (now - first))
            now = first + np.float32(along(at_first, float(scaled @ scaled), label)) * scaled * spread
            numbers = {key: now[place].reshape(mine[key].shape) for key, place in places.items()}
        return torch.tensor([item]), {key: torch.from_numpy(value[None]) for key, value in numbers.items()}


_TAKEN: WeakKeyDictionary[ItemNetwork, Single] = WeakKeyDictionary()


def along(logit: float, stiffness: float, label: float) -> float:
    """How far to go along S J, S = diag(s²): `nn.optim.map_logistic.likeliest` of one row, for which J S Jᵀ is a number, the stiffness.

    >>> round(along(0.0, stiffness=1.0, label=1.0), 4)      # δ = 1 / (1 + exp δ)
    0.4011
    """
    far = 0.0
    for _ in range(NEWTON):
        shift = stiffness * far
        p = 0.5 + 0.5 * math.tanh(0.5 * (logit + shift))
        curve = max(p * (1 - p), LEAST)
        ahead = (curve * shift + label - p) / (1 + curve * stiffness) - far
        most = _loss(logit, stiffness, label, far) * (1 + ROUNDING * _EPS)
        gaining = (part for part in PARTS if _loss(logit, stiffness, label, far + part * ahead) <= most)
        far += ahead * next(gaining, PARTS[-1])
    return far


_EPS = float(np.finfo(np.float32).eps)


def _loss(logit: float, stiffness: float, label: float, far: float) -> float:
    """− log posterior of one row after going so far."""
    there = (1 - 2 * label) * (logit + stiffness * far)
    return max(there, 0.0) + math.log1p(math.exp(-abs(there))) + stiffness * far**2 / 2


@dataclass(frozen=True)
class Tables:
    """`FieldEmbeddings` of one thing."""

    tables: Sequence[tuple[bool, Array]]
    """Whether the field is of names, and its table."""

    @classmethod
    def of(cls, fields: FieldEmbeddings) -> Self:
        pairs = zip(fields.sizes, fields.tables, strict=True)
        return cls([(isinstance(size, Names), view(table)) for size, table in pairs])

    def __call__(self, values: Sequence[Any]) -> list[Array]:
        """One vector a field; of names one index or several, of numbers one or several."""
        pairs = zip(values, self.tables, strict=True)
        return [_named(value, table) if named else _mapped(value, table) for value, (named, table) in pairs]


def _named(value: NDArray[np.int64], table: Array) -> Array:
    if value.ndim:
        there = value[value != 0]
        summed: Array = np.add.reduce(table[there])
        return summed / np.float32(max(len(there), 1))
    found: Array = table[value]
    return found


def _mapped(value: Array, table: Array) -> Array:
    found: Array = table[-1] if np.isnan(value).any() else np.atleast_1d(value) @ table[:-1]
    return found


def _at(values: Tensor, place: int) -> Any:
    return values.numpy()[place]


def _flat(numbers: Mapping[str, Array]) -> Array:
    return np.concatenate([part.ravel() for part in numbers.values()])


def _places(numbers: Mapping[str, Array]) -> dict[str, slice]:
    found, begin = {}, 0
    for key, part in numbers.items():
        found[key] = slice(begin, begin + part.size)
        begin += part.size
    return found
