"""MAP adaptation to a single event, without autograd, on numpy views of the weights.

The most frequent request of a service; there, call overhead costs more than arithmetic.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.items.adaptation.rules import NEWTON_STEPS, MAPAdaptation
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.networks.item_network import ItemNetwork, State
from newcomer.nn.ctr.field_embeddings import CategoricalSize, FieldEmbeddings
from newcomer.nn.optim.analytic_gradients import RowGradient
from newcomer.nn.optim.map_logistic import MIN_CURVATURE, ROUNDING, STEP_SIZES, WEIGHTED_STEPS
from newcomer.nn.optim.numpy_views import Array, ModuleViews, view
from newcomer.shapes import Float, Tensor


def map_estimate_of_one(
    network: ItemNetwork, state: State, item_features: Values, clicks: Clicks, rule: MAPAdaptation
) -> tuple[Tensor, State] | None:
    """(item row, state) of `MAPAdaptation` for a single event; None if the network has no analytic gradient.

    That is, with an attention readout, and with weights that are not float32 on the CPU; see `ItemNetwork.row_gradient`.
    """
    single = SingleEventMAP.of(network)
    return None if single is None else single.map_estimate(state, item_features, clicks, rule.linearizations)


def logit_of_one(network: ItemNetwork, state: State, item_features: Values, clicks: Clicks) -> float | None:
    """The logit of a single event; None as above."""
    single = SingleEventMAP.of(network)
    return None if single is None else single.logit(state, item_features, clicks)


def posterior_of_one(
    network: ItemNetwork, state: State, item_features: Values, clicks: Clicks
) -> Float[Tensor, "direction number"] | None:
    """`nn.optim.laplace_posterior.posterior_factor` for a single event and the state that was adapted to it; None as above."""
    single = SingleEventMAP.of(network)
    return None if single is None else single.posterior_factor(state, item_features, clicks)


@dataclass(frozen=True)
class SingleEventMAP:
    """Views of a network: they see what changes there in place, and `views` says whether it was something else."""

    row_gradient: RowGradient
    item_fields: "EmbeddingTables"
    row_fields: "EmbeddingTables"
    scales: Mapping[str, Array]
    views: ModuleViews

    @classmethod
    def of(cls, network: ItemNetwork) -> "SingleEventMAP | None":
        """Cached per network; rebuilt when the weights have moved in memory."""
        cached = _CACHE.get(network)
        if cached is not None and cached.views.valid():
            return cached
        row_gradient = network.row_gradient()
        if row_gradient is None:
            return None
        fields = (EmbeddingTables.of(network.item_fields), EmbeddingTables.of(network.row_fields))
        scales = {key: view(scale) for key, scale in sorted(network.scales.items())}
        _CACHE[network] = cls(row_gradient, *fields, scales, ModuleViews.of(network))
        return _CACHE[network]

    def map_estimate(
        self, state: State, item_features: Values, clicks: Clicks, linearizations: int
    ) -> tuple[Tensor, State]:
        """The first row's item and the MAP estimate of its state, by the Newton steps of `nn.optim.map_logistic.map_estimate`."""
        item, label, others = int(clicks.item[0]), float(clicks.label[0]), self._others(item_features, clicks)
        weight = _weight(clicks)
        state_of_item: dict[str, Array] = {key: view(state[key])[item] for key in self.scales}
        prior_std, initial, slices = np.exp(_flat(self.scales)), _flat(state_of_item), _slices(state_of_item)
        current, numbers = initial, state_of_item
        for _ in range(linearizations):
            logit, gradients = self.row_gradient(numbers, others)
            gradient = _flat({key: gradients[key] for key in state_of_item})
            scaled = gradient * prior_std
            logit_at_initial = logit - float(gradient @ (current - initial))
            step = map_step(logit_at_initial, float(scaled @ scaled), label, weight)
            current = initial + np.float32(step) * scaled * prior_std
            numbers = {key: current[row].reshape(state_of_item[key].shape) for key, row in slices.items()}
        return torch.tensor([item]), {key: torch.from_numpy(value[None]) for key, value in numbers.items()}

    def logit(self, state: State, item_features: Values, clicks: Clicks) -> float:
        """Of the first row."""
        item = int(clicks.item[0])
        numbers: dict[str, Array] = {key: view(value)[item] for key, value in state.items()}
        return self.row_gradient(numbers, self._others(item_features, clicks))[0]

    def posterior_factor(self, state: State, item_features: Values, clicks: Clicks) -> Tensor:
        """Of the first row: its Jacobian is the one direction in which the posterior is narrower than the prior."""
        numbers: dict[str, Array] = {key: view(state[key])[0] for key in self.scales}
        logit, gradients = self.row_gradient(numbers, self._others(item_features, clicks))
        p = 0.5 + 0.5 * math.tanh(0.5 * logit)
        row = (
            np.float32(math.sqrt(_weight(clicks) * p * (1 - p)))
            * _flat({key: gradients[key] for key in numbers})
            * np.exp(_flat(self.scales))
        )
        return torch.from_numpy(row / np.sqrt(1 + row @ row))[None]

    def _others(self, item_features: Values, clicks: Clicks) -> Array:
        """Vectors of all fields but the id, of the first row."""
        item, user = int(clicks.item[0]), int(clicks.user[0])
        of_row = [_at(values, user) for values in clicks.of_users] + [_at(values, 0) for values in clicks.of_rows]
        of_item = [_at(values, item) for values in item_features]
        return np.array([*self.item_fields(of_item), *self.row_fields(of_row)])


_CACHE: WeakKeyDictionary[ItemNetwork, SingleEventMAP] = WeakKeyDictionary()


def map_step(logit: float, logit_variance: float, label: float, weight: float = 1.0) -> float:
    """Step length along S J, S = diag(s²): `nn.optim.map_logistic.map_estimate` for one row, where J S Jᵀ is a scalar.

    `logit_variance`: J S Jᵀ, the prior variance of the logit; `weight`: number of equal rows.

    >>> round(map_step(0.0, logit_variance=1.0, label=1.0), 4)      # δ = 1 / (1 + exp δ)
    0.4011
    >>> round(map_step(0.0, logit_variance=1.0, label=1.0, weight=2.0), 4)      # δ = 2 / (1 + exp δ)
    0.6748
    """
    step, least = 0.0, MIN_CURVATURE / max(weight, 1.0)
    for _ in range(NEWTON_STEPS + (WEIGHTED_STEPS if weight > 1 else 0)):
        shift = logit_variance * step
        p = 0.5 + 0.5 * math.tanh(0.5 * (logit + shift))
        curvature = weight * max(p * (1 - p), least)
        newton_step = (curvature * shift + weight * label - weight * p) / (1 + curvature * logit_variance) - step
        limit = _loss(logit, logit_variance, label, weight, step) * (1 + ROUNDING * _EPS)
        gaining = (
            part
            for part in STEP_SIZES
            if _loss(logit, logit_variance, label, weight, step + part * newton_step) <= limit
        )
        step += newton_step * next(gaining, STEP_SIZES[-1])
    return step


_EPS = float(np.finfo(np.float32).eps)


def _loss(logit: float, logit_variance: float, label: float, weight: float, step: float) -> float:
    """Negative log posterior of one row after this step."""
    margin = (1 - 2 * label) * (logit + logit_variance * step)
    return weight * (max(margin, 0.0) + math.log1p(math.exp(-abs(margin)))) + logit_variance * step**2 / 2


@dataclass(frozen=True)
class EmbeddingTables:
    """Numpy counterpart of `FieldEmbeddings` for one row."""

    tables: Sequence[tuple[bool, Array]]
    """(whether the field is categorical, embedding table) per field."""

    @classmethod
    def of(cls, fields: FieldEmbeddings) -> Self:
        pairs = zip(fields.sizes, fields.tables, strict=True)
        return cls([(isinstance(size, CategoricalSize), view(table)) for size, table in pairs])

    def __call__(self, values: Sequence[Any]) -> list[Array]:
        """One vector per field; a value is one index or several, or one number or several."""
        pairs = zip(values, self.tables, strict=True)
        return [
            _embed_categorical(value, table) if named else _embed_numeric(value, table)
            for value, (named, table) in pairs
        ]


def _embed_categorical(value: NDArray[np.int64], table: Array) -> Array:
    if value.ndim:
        nonzero = value[value != 0]
        summed: Array = np.add.reduce(table[nonzero])
        return summed / np.float32(max(len(nonzero), 1))
    slices: Array = table[value]
    return slices


def _embed_numeric(value: Array, table: Array) -> Array:
    slices: Array = table[-1] if np.isnan(value).any() else np.atleast_1d(value) @ table[:-1]
    return slices


def _weight(clicks: Clicks) -> float:
    """Of the first row."""
    return 1.0 if clicks.weight is None else float(clicks.weight[0])


def _at(values: Tensor, row: int) -> Any:
    return values.numpy()[row]


def _flat(numbers: Mapping[str, Array]) -> Array:
    return np.concatenate([part.ravel() for part in numbers.values()])


def _slices(numbers: Mapping[str, Array]) -> dict[str, slice]:
    slices, begin = {}, 0
    for key, part in numbers.items():
        slices[key] = slice(begin, begin + part.size)
        begin += part.size
    return slices
