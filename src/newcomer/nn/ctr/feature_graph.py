"""Feature graphs: higher-order interactions of fields by message passing, and readouts."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from newcomer.shapes import Float, Tensor

MIN_RANGE = 1e-6
"""Lower bound of the range that min-max scaling divides by."""


def between_0_and_1(graph: Float[Tensor, "*item field other"]) -> Float[Tensor, "*item field other"]:
    """Min-max scaling of each graph's entries to [0, 1]."""
    return _MinMax.of(graph).entries


def higher_orders(graph: Float[Tensor, "item field other"], orders: int) -> Float[Tensor, "item order field other"]:
    """Graphs of the interactions of order 2, 3, … from one: computed, not stored, so an item has F² parameters for any order.

    B: entries in [0, 1], diagonal 1, the largest ⌊F²/2⌋ kept. A¹ = (B + Bᵀ)/2, Aˡ = minmax(Aˡ⁻¹ A¹) ⊙ 1[A¹ ≠ 0].
    Differentiable as long as the same entries are kept.
    """
    found: Tensor = _HigherOrders.apply(graph, orders)  # type: ignore[no-untyped-call]
    return found


def largest(entries: NDArray[np.floating[Any]], count: int) -> NDArray[np.bool_]:
    """Whether an entry is among the `count` largest of its row; of those that equal the smallest of them the last are.

    >>> largest(np.array([[0.5, 1.0, 0.5, 0.2]]), 2).tolist()
    [[False, True, True, False]]
    """
    if not count:
        return np.zeros(entries.shape, np.bool_)
    ordered = np.sort(entries)  # faster than np.partition for so short rows, much faster than torch.topk
    bound = ordered[..., -count, None]
    among: NDArray[np.bool_] = entries >= bound
    if (ordered[..., :-count][..., -1:] == bound).any():
        above, equal = entries > bound, entries == bound
        room = count - np.count_nonzero(above, axis=-1, keepdims=True)
        among = above | equal & (np.cumsum(equal[..., ::-1], axis=-1)[..., ::-1] <= room)
    return among


class _HigherOrders(torch.autograd.Function):
    """`higher_orders`, and its backward pass in closed form, which has fewer operations than autograd's."""

    @staticmethod
    def forward(ctx: Any, graph: Tensor, orders: int) -> Tensor:
        raw = _MinMax.of(graph.contiguous())  # its bounds take several times longer along strides
        whole = _with_diagonal(raw.entries, 1.0)
        mask = _kept(whole)
        first = _symmetric(whole * mask)
        edges = first.ceil()  # 1 where an entry is not 0; comparisons are several times slower on a CPU
        graphs, products = [first], list[_MinMax]()
        for _ in range(orders - 1):
            products.append(_MinMax.of(graphs[-1] @ first))
            graphs.append(products[-1].entries * edges)
        ctx.save_for_backward(graph)
        ctx.parts = raw, mask, edges, graphs, products
        return torch.stack(graphs, dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        raw, mask, edges, graphs, products = ctx.parts
        (graph,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # this gradient is differentiated, too
            again = _composed(graph, len(graphs))
            return torch.autograd.grad(again, graph, gradient, create_graph=True)[0], None
        of_first, of_order = gradient[:, 0], gradient[:, -1]
        for order in range(len(products), 0, -1):
            of_product = products[order - 1].backward(of_order * edges)
            of_first = torch.bmm(graphs[order - 1].mT, of_product).add_(of_first)  # twice as fast as baddbmm
            of_order = torch.bmm(of_product, graphs[0]).add_(gradient[:, order - 1] if order > 1 else of_first)
        of_first = of_order if products else of_first
        return raw.backward(_symmetric(of_first) * _with_diagonal(mask, 0.0)), None


class _MinMax(NamedTuple):
    """`between_0_and_1` of graphs, and its backward pass."""

    width: Float[Tensor, "item 1 1"]
    """Of the range of a graph's entries."""
    entries: Float[Tensor, "item field other"]

    @classmethod
    def of(cls, graph: Tensor) -> "_MinMax":
        """Differentiable."""
        low, high = graph.amin((-2, -1), keepdim=True), graph.amax((-2, -1), keepdim=True)
        return cls(high - low, (graph - low) / (high - low).clamp(min=MIN_RANGE))

    def backward(self, gradient: Tensor) -> Tensor:
        """Gradient of the graphs from that of the entries; several lowest, or highest, entries share theirs."""
        gradient = gradient / self.width.clamp(min=MIN_RANGE)
        of_high = (gradient * self.entries).sum((-2, -1), keepdim=True) * -(self.width >= MIN_RANGE).to(gradient.dtype)
        of_low = -gradient.sum((-2, -1), keepdim=True) - of_high
        highest, lowest = self.entries.floor(), 1 - self.entries.ceil()  # 1 where an entry is 1; where it is 0
        for among, of_bound in ((highest, of_high), (lowest, of_low)):
            gradient = torch.addcmul(gradient, among, of_bound / among.sum((-2, -1), keepdim=True).clamp(min=1))
        return gradient


def _composed(graph: Tensor, orders: int) -> Tensor:
    """`higher_orders` of differentiable operations."""
    whole = _with_diagonal(between_0_and_1(graph), 1.0)
    first = _symmetric(whole * _kept(whole.detach()))
    edges = (first != 0).to(first.dtype)
    graphs = [first]
    for _ in range(orders - 1):
        graphs.append(between_0_and_1(graphs[-1] @ first) * edges)
    return torch.stack(graphs, dim=1)


def _symmetric(graph: Tensor) -> Tensor:
    fields = graph.shape[-1]
    turned = torch.arange(fields * fields, device=graph.device).view(fields, fields).T.flatten()
    return (graph + graph.flatten(1).index_select(1, turned).view_as(graph)) * 0.5  # twice as fast as along strides


def _with_diagonal(graph: Tensor, value: float) -> Tensor:
    return torch.diagonal_scatter(graph, graph.new_full(graph.shape[:-1], value), dim1=-2, dim2=-1)


def _kept(entries: Tensor) -> Tensor:
    """1 for the entries of B that are kept, 0 for others."""
    flat = entries.flatten(1)
    count = flat.shape[1] // 2
    if flat.device.type == "cpu":
        numbers = flat.numpy()
        return torch.from_numpy(largest(numbers, count).astype(numbers.dtype)).view_as(entries)
    last = flat.argsort(dim=1, stable=True)[:, flat.shape[1] - count :]
    return torch.zeros_like(flat).scatter(1, last, 1.0).view_as(entries)


class Interactions(nn.Module):
    """Message passing: Hˡ = Mˡ ⊙ Hˡ⁻¹ with messages Mˡ = σ(Aˡ H⁰ Wˡ), σ = LeakyReLU, none in the last layer.

    Without σ, Hˡ is a homogeneous polynomial of degree l + 1 in the fields' vectors; the monomial h_m ⊙ W¹h_n1 ⊙ … ⊙ Wˡh_nl has the
    coefficient Π_k Aᵏ[m, n_k]: layer l contains exactly the interactions of order l + 1 along the graphs' edges.
    """

    def __init__(self, width: int, layers: int, slope: float = 0.01) -> None:
        super().__init__()
        self.slope = slope
        """Negative slope of the LeakyReLU; 1 is the identity."""
        self.weights = nn.Parameter(
            torch.stack([nn.init.xavier_uniform_(torch.empty(width, width)) for _ in range(layers)])
        )

    def forward(
        self, graphs: Float[Tensor, "item layer field other"], vectors: Float[Tensor, "item field row width"]
    ) -> list[Float[Tensor, "item field row width"]]:
        """M¹ … Mᴸ; an item's graph is shared by its rows."""
        items, fields, rows, width = vectors.shape
        layers = len(self.weights)
        mixed = torch.bmm(graphs.flatten(1, 2), vectors.reshape(items, fields, rows * width))  # all Aˡ H⁰ at once
        mixed = mixed.view(items, layers, fields * rows, width)
        *inner, last = [
            (mixed_vectors @ weight).view(items, fields, rows, width)
            for mixed_vectors, weight in zip(mixed.unbind(1), self.weights.unbind(), strict=True)
        ]
        return [*(functional.leaky_relu(message, self.slope) for message in inner), last]


def states(
    vectors: Float[Tensor, "item field row width"], messages: Sequence[Float[Tensor, "item field row width"]]
) -> list[Float[Tensor, "item field row width"]]:
    """H⁰ … Hᴸ."""
    return [*accumulate(messages, torch.mul, initial=vectors)]


class Readout(nn.Module):
    """Attention readout: from the states of all layers to one logit.

    Every field attends over its own L + 1 states (heads of the given width), the outputs are summed over the states and
    rectified, and logit = Σ_m sigmoid(U vec h)_m · wᵀ h_m. As Σ_q softmax(q·K) V = (Σ_q softmax(q·K)) X W_V, values are made
    once a field, not once a state.
    """

    def __init__(self, fields: int, width: int, heads: int = 3, head_width: int = 16) -> None:
        super().__init__()
        self.query, self.key, self.value = (
            nn.Parameter(torch.stack([nn.init.xavier_uniform_(torch.empty(width, head_width)) for _ in range(heads)]))
            for _ in range(3)
        )
        self.gate = nn.Parameter(nn.init.xavier_uniform_(torch.empty(fields, fields * heads * head_width)))
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, heads * head_width))[0])

    def forward(
        self,
        vectors: Float[Tensor, "item field row width"],
        messages: Sequence[Float[Tensor, "item field row width"]],
    ) -> Float[Tensor, "item row"]:
        items, fields, rows, width = vectors.shape
        heads, _, head_width = self.query.shape
        count = len(messages) + 1
        tokens = torch.stack(states(vectors, messages), dim=-2).view(items * fields * rows, count, width)
        pairing = (self.query @ self.key.transpose(1, 2)) / head_width**0.5  # head width width
        queries = (tokens @ pairing.transpose(0, 1).reshape(width, heads * width)).view(len(tokens), -1, width)
        scores = torch.bmm(tokens, queries.transpose(1, 2)).softmax(dim=1)  # thing state (query head)
        shares = scores.view(len(tokens), count, count, heads).sum(dim=2)
        attended = torch.bmm(shares.transpose(1, 2), tokens)  # thing head width
        outcome = torch.relu(torch.einsum("thw,hwv->thv", attended, self.value)).reshape(items, fields, rows, -1)
        together = outcome.transpose(1, 2)  # item row field (head width)
        gate = torch.sigmoid(together.reshape(items, rows, -1) @ self.gate.T)
        return (gate * (together @ self.weight)).sum(dim=-1)


class LinearReadout(nn.Module):
    """Linear readout: logit = Σ_m Σ_l w_mlᵀ Hˡ_m, by Horner's rule Σ_m H⁰_mᵀ (w_m0 + M¹_m ⊙ (w_m1 + M²_m ⊙ (…))).

    It does not mix fields, so only the graphs make fields interact. A readout that mixes fields can learn interactions without the
    graphs, which then explain nothing.
    """

    def __init__(self, fields: int, width: int, layers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fields, (layers + 1) * width) * 0.1)

    def forward(
        self,
        vectors: Float[Tensor, "item field row width"],
        messages: Sequence[Float[Tensor, "item field row width"]],
    ) -> Float[Tensor, "item row"]:
        *weights, factor = self.weight.view(len(self.weight), 1, len(messages) + 1, -1).unbind(2)
        for weight, message in zip(reversed(weights), reversed(messages), strict=True):
            factor = torch.addcmul(weight, message, factor)
        return (vectors * factor).sum(dim=(1, 3))
