"""Logit of one row and its gradient with respect to an item's parameters, in closed form: for one row autograd has more overhead.

All arrays are float32 views of a network's weights, so in-place changes there are seen here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from newcomer.nn.ctr.deepfm import DeepFM
from newcomer.nn.ctr.feature_graph import MIN_RANGE, Interactions, LinearReadout, largest
from newcomer.nn.optim.numpy_views import Array, view

ONE = np.ones(1, np.float32)
"""Gradient of the logit with respect to the bias."""


def _width(low: np.float32, high: np.float32) -> np.float32:
    return max(high - low, np.float32(MIN_RANGE))


def _shared(gradient: np.float32 | Array, among: NDArray[np.bool_]) -> Array:
    found: Array = among * (gradient / np.float32(np.count_nonzero(among)))
    return found


@dataclass(frozen=True, slots=True)
class SymmetricGraph:
    """`between_0_and_1` of one graph, and the backward pass from gradients of its entries to gradients of the raw graph."""

    graph: Array
    low: np.float32
    high: np.float32
    entries: Array

    @classmethod
    def of(cls, graph: Array) -> "SymmetricGraph":
        low: np.float32 = np.minimum.reduce(graph, axis=None)
        high: np.float32 = np.maximum.reduce(graph, axis=None)
        return cls(graph, low, high, (graph - low) / _width(low, high))

    def backward(self, entries_grad: Array) -> Array:
        """Backward pass; several minimal, or maximal, entries share the gradient."""
        graph_grad: Array = entries_grad / _width(self.low, self.high)
        low_grad = -np.add.reduce(graph_grad, axis=None)
        if self.high - self.low >= MIN_RANGE:
            high_grad = -(graph_grad.ravel() @ self.entries.ravel())
            low_grad -= high_grad
            graph_grad += _shared(high_grad, self.graph == self.high)
        graph_grad += _shared(low_grad, self.graph == self.low)
        return graph_grad


@dataclass(frozen=True, slots=True)
class HigherOrders:
    """`higher_orders` of one graph, and its backward pass."""

    graphs: Array
    """order field other"""
    raw: SymmetricGraph
    mask: Array
    edges: Array
    products: Sequence[SymmetricGraph]

    @classmethod
    def of(cls, graph: Array, orders: int) -> "HigherOrders":
        fields, raw = len(graph), SymmetricGraph.of(graph)
        entries = raw.entries.copy()
        entries.flat[:: fields + 1] = 1
        mask = largest(entries.reshape(-1), fields * fields // 2).reshape(entries.shape).astype(graph.dtype)
        entries *= mask
        mask.flat[:: fields + 1] = 0
        graphs = np.empty((orders, fields, fields), graph.dtype)
        first = np.multiply(entries + entries.T, 0.5, out=graphs[0])
        edges, products = (first != 0).astype(graph.dtype), []
        for order in range(1, orders):
            products.append(SymmetricGraph.of(graphs[order - 1] @ first))
            np.multiply(products[-1].entries, edges, out=graphs[order])
        return cls(graphs, raw, mask, edges, products)

    def backward(self, graphs_grad: Array) -> Array:
        """Backward pass from gradients of all orders to the gradient of the raw graph."""
        first, first_grad, order_grad = self.graphs[0], graphs_grad[0], graphs_grad[-1]
        for order in range(len(self.products), 0, -1):
            product_grad = self.products[order - 1].backward(order_grad * self.edges)
            first_grad = first_grad + self.graphs[order - 1].T @ product_grad
            order_grad = product_grad @ first
            if order > 1:
                order_grad += graphs_grad[order - 1]
            else:
                first_grad += order_grad
        return self.raw.backward((first_grad + first_grad.T) * 0.5 * self.mask)


@dataclass(frozen=True, slots=True)
class GraphGradient:
    """`Interactions` and `LinearReadout` of one row."""

    leak: np.float32
    weights: Array
    read: Array
    """field (layer width)"""

    @classmethod
    def of(cls, interactions: Interactions, readout: LinearReadout) -> "GraphGradient":
        return cls(np.float32(interactions.slope), view(interactions.weights), view(readout.weight))

    def __call__(self, graph: Array, vectors: Array) -> tuple[float, Array, Array]:
        """The logit, and its gradients with respect to the first field's vector and the raw graph; `vectors`: field width."""
        orders, width = HigherOrders.of(graph, len(self.weights)), vectors.shape[1]
        messages = orders.graphs @ vectors @ self.weights
        leaks = np.where(messages > 0, np.float32(1), self.leak)
        leaks[-1] = 1
        messages *= leaks
        states = [vectors]
        for message in messages:
            states.append(message * states[-1])
        logit, states_grad = float(np.concatenate(states, axis=1).ravel() @ self.read.ravel()), self.read
        state_grad = states_grad[:, -width:]
        for layer in range(len(messages) - 1, -1, -1):
            leaks[layer] *= state_grad * states[layer]
            state_grad = state_grad * messages[layer] + states_grad[:, layer * width : (layer + 1) * width]
        mixed_grad = leaks @ self.weights.transpose(0, 2, 1)
        first_grad = state_grad[0] + orders.graphs[:, :, 0].ravel() @ mixed_grad.reshape(-1, width)
        return logit, first_grad, orders.backward(mixed_grad @ vectors.T)


@dataclass(frozen=True, slots=True)
class TowerGradient:
    """`DeepFM` of one row."""

    linear: Array
    bias: Array
    hidden: Sequence[tuple[Array, Array]]
    last: Array

    @classmethod
    def of(cls, tower: DeepFM) -> "TowerGradient":
        *hidden, last = (part for part in tower.deep if isinstance(part, nn.Linear))
        layers = [(view(layer.weight), view(layer.bias)) for layer in hidden]
        return cls(view(tower.linear.weight)[0], view(tower.linear.bias), layers, view(last.weight)[0])

    def __call__(self, vectors: Array) -> tuple[float, Array]:
        """The logit, and its gradient with respect to the first field's vector; `vectors`: field width."""
        flat, total, width = vectors.ravel(), np.add.reduce(vectors), vectors.shape[1]
        activations = [flat]
        for weight, bias in self.hidden:
            activations.append(np.maximum(weight @ activations[-1] + bias, 0))
        logit = self.linear @ flat + self.bias[0] + self.last @ activations[-1] + (total @ total - flat @ flat) / 2
        activation_grad = self.last
        for (weight, _), activation in zip(reversed(self.hidden), reversed(activations), strict=False):
            activation_grad = (activation_grad * (activation > 0)) @ weight
        return float(logit), activation_grad[:width] + self.linear[:width] + total - vectors[0]


@dataclass(frozen=True, slots=True)
class RowGradient:
    """One row of an item network: the graph's logit, if there is a graph, plus the tower's."""

    graph: GraphGradient | None
    tower: TowerGradient | None
    shared: Array | None = None
    """Graph of items without a graph of their own."""

    def __call__(self, parameters: Mapping[str, Array], others: Array) -> tuple[float, dict[str, Array]]:
        """The logit and its gradients with respect to the item's parameters by name; `others`: vectors of all fields but the id."""
        vectors = np.concatenate([parameters["id"][None], others])
        logit, gradients = float(parameters["bias"][0]), {"bias": ONE}
        if self.tower is not None:
            part, gradients["id"] = self.tower(vectors)
            logit += part
        graph = parameters.get("graph", self.shared)
        if self.graph is not None and graph is not None:
            part, id_grad, gradients["graph"] = self.graph(graph, vectors)
            logit, gradients["id"] = logit + part, id_grad + gradients.get("id", 0)
        return logit, gradients
