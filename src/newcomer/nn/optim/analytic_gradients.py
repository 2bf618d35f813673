"""One row's logit, and its slopes by what an item has of its own, by formulas: for one row autograd costs more than it computes.

All arrays are float32 and views of a network's weights: what changes there in place is seen here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from newcomer.nn.ctr.deepfm import DeepFactorisation
from newcomer.nn.ctr.feature_graph import NARROWEST, Interactions, LinearReadout
from newcomer.nn.optim.numpy_views import Array, view

ONE = np.ones(1, np.float32)
"""The logit's slope by the bias."""


def _width(low: np.float32, high: np.float32) -> np.float32:
    return max(high - low, np.float32(NARROWEST))


def _shared(slope: np.float32 | Array, among: NDArray[np.bool_]) -> Array:
    found: Array = among * (slope / np.float32(np.count_nonzero(among)))
    return found


@dataclass(frozen=True, slots=True)
class Stretched:
    """`between_0_and_1` of one graph, and the way back from slopes by its entries to slopes by the graph's."""

    graph: Array
    low: np.float32
    high: np.float32
    entries: Array

    @classmethod
    def of(cls, graph: Array) -> "Stretched":
        low: np.float32 = np.minimum.reduce(graph, axis=None)
        high: np.float32 = np.maximum.reduce(graph, axis=None)
        return cls(graph, low, high, (graph - low) / _width(low, high))

    def back(self, by_entries: Array) -> Array:
        """Several entries that are the least, or the greatest, share its slope."""
        by_graph: Array = by_entries / _width(self.low, self.high)
        by_low = -np.add.reduce(by_graph, axis=None)
        if self.high - self.low >= NARROWEST:
            by_high = -(by_graph.ravel() @ self.entries.ravel())
            by_low -= by_high
            by_graph += _shared(by_high, self.graph == self.high)
        by_graph += _shared(by_low, self.graph == self.low)
        return by_graph


@dataclass(frozen=True, slots=True)
class Orders:
    """`higher_orders` of one graph, and the way back."""

    graphs: Array
    """order field other"""
    raw: Stretched
    kept: Array
    edges: Array
    products: Sequence[Stretched]

    @classmethod
    def of(cls, graph: Array, orders: int) -> "Orders":
        fields, raw = len(graph), Stretched.of(graph)
        entries = raw.entries.copy()
        entries.flat[:: fields + 1] = 1
        kept = np.zeros_like(entries)
        # whichever of equal entries torch keeps is kept here
        kept.flat[torch.from_numpy(entries.ravel()).topk(fields * fields // 2).indices.numpy()] = 1
        entries *= kept
        kept.flat[:: fields + 1] = 0
        graphs = np.empty((orders, fields, fields), graph.dtype)
        first = np.multiply(entries + entries.T, 0.5, out=graphs[0])
        edges, products = (first != 0).astype(graph.dtype), []
        for order in range(1, orders):
            products.append(Stretched.of(graphs[order - 1] @ first))
            np.multiply(products[-1].entries, edges, out=graphs[order])
        return cls(graphs, raw, kept, edges, products)

    def back(self, by_graphs: Array) -> Array:
        """From slopes by all orders' entries to those by the raw graph's."""
        first, by_first, by_order = self.graphs[0], by_graphs[0], by_graphs[-1]
        for order in range(len(self.products), 0, -1):
            by_product = self.products[order - 1].back(by_order * self.edges)
            by_first = by_first + self.graphs[order - 1].T @ by_product
            by_order = by_product @ first
            if order > 1:
                by_order += by_graphs[order - 1]
            else:
                by_first += by_order
        return self.raw.back((by_first + by_first.T) * 0.5 * self.kept)


@dataclass(frozen=True, slots=True)
class GraphSlopes:
    """`Interactions` and `LinearReadout` of one row."""

    leak: np.float32
    weights: Array
    read: Array
    """field (layer width)"""

    @classmethod
    def of(cls, interactions: Interactions, readout: LinearReadout) -> "GraphSlopes":
        return cls(np.float32(interactions.slope), view(interactions.weights), view(readout.weight))

    def __call__(self, graph: Array, vectors: Array) -> tuple[float, Array, Array]:
        """The logit, and its slopes by the first field's vector and by the raw graph; `vectors`: field width."""
        orders, width = Orders.of(graph, len(self.weights)), vectors.shape[1]
        messages = orders.graphs @ vectors @ self.weights
        leaks = np.where(messages > 0, np.float32(1), self.leak)
        leaks[-1] = 1
        messages *= leaks
        states = [vectors]
        for message in messages:
            states.append(message * states[-1])
        logit, by_states = float(np.concatenate(states, axis=1).ravel() @ self.read.ravel()), self.read
        by_state = by_states[:, -width:]
        for layer in range(len(messages) - 1, -1, -1):
            leaks[layer] *= by_state * states[layer]
            by_state = by_state * messages[layer] + by_states[:, layer * width : (layer + 1) * width]
        by_mixed = leaks @ self.weights.transpose(0, 2, 1)
        by_first = by_state[0] + orders.graphs[:, :, 0].ravel() @ by_mixed.reshape(-1, width)
        return logit, by_first, orders.back(by_mixed @ vectors.T)


@dataclass(frozen=True, slots=True)
class TowerSlopes:
    """`DeepFactorisation` of one row."""

    linear: Array
    bias: Array
    hidden: Sequence[tuple[Array, Array]]
    last: Array

    @classmethod
    def of(cls, tower: DeepFactorisation) -> "TowerSlopes":
        *hidden, last = (part for part in tower.deep if isinstance(part, nn.Linear))
        layers = [(view(layer.weight), view(layer.bias)) for layer in hidden]
        return cls(view(tower.linear.weight)[0], view(tower.linear.bias), layers, view(last.weight)[0])

    def __call__(self, vectors: Array) -> tuple[float, Array]:
        """The logit, and its slopes by the first field's vector; `vectors`: field width."""
        flat, total, width = vectors.ravel(), np.add.reduce(vectors), vectors.shape[1]
        outcomes = [flat]
        for weight, bias in self.hidden:
            outcomes.append(np.maximum(weight @ outcomes[-1] + bias, 0))
        logit = self.linear @ flat + self.bias[0] + self.last @ outcomes[-1] + (total @ total - flat @ flat) / 2
        by_outcome = self.last
        for (weight, _), outcome in zip(reversed(self.hidden), reversed(outcomes), strict=False):
            by_outcome = (by_outcome * (outcome > 0)) @ weight
        return float(logit), by_outcome[:width] + self.linear[:width] + total - vectors[0]


@dataclass(frozen=True, slots=True)
class RowSlopes:
    """One row of a network of items: the graph's part, where there is one, and the tower's."""

    graph: GraphSlopes | None
    tower: TowerSlopes | None
    shared: Array | None = None
    """The graph of items that have none of their own."""

    def __call__(self, numbers: Mapping[str, Array], others: Array) -> tuple[float, dict[str, Array]]:
        """The logit and its slopes by an item's `numbers`, by name, or more; `others`: the vectors of all fields but the id."""
        vectors = np.concatenate([numbers["id"][None], others])
        logit, slopes = float(numbers["bias"][0]), {"bias": ONE}
        if self.tower is not None:
            told, slopes["id"] = self.tower(vectors)
            logit += told
        graph = numbers.get("graph", self.shared)
        if self.graph is not None and graph is not None:
            told, by_id, slopes["graph"] = self.graph(graph, vectors)
            logit, slopes["id"] = logit + told, by_id + slopes.get("id", 0)
        return logit, slopes
