"""EmerG's network: hypernetworks write graphs, graphs say which fields interact, a readout makes one logit of it."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from newcomer.items.encoding.encoder import Values
from newcomer.items.networks.item_network import ItemNetwork, State
from newcomer.nn.ctr.deepfm import DeepFactorisation
from newcomer.nn.ctr.feature_graph import Interactions, LinearReadout, Readout, higher_orders
from newcomer.nn.ctr.field_embeddings import FieldSize
from newcomer.nn.ctr.hypernetwork import GraphWriter
from newcomer.nn.optim.analytic_gradients import GraphSlopes, RowSlopes, TowerSlopes
from newcomer.nn.optim.numpy_views import view
from newcomer.shapes import Float, Int, Tensor

Graph = Literal["shared", "tuned", "generated", "residual"]


class EmerGNetwork(ItemNetwork):
    """H⁰ → interactions over the item's graph → one logit, and beside it a DeepFM where `tower` has layers.

    `graph`, one for all, is what a 'shared' item keeps for good, where a 'tuned' one begins, and what a 'residual' one differs
    from; `writer` makes a 'generated' item's, or the difference, from the embeddings of its own fields, the id's among them.
    `begins_shared`: there is one for all also where all will be generated, to be learned before.
    """

    def __init__(
        self,
        item_sizes: Sequence[FieldSize],
        row_sizes: Sequence[FieldSize],
        *,
        width: int,
        layers: int,
        deviation: float,
        graph: Graph,
        begins_shared: bool,
        attention: bool,
        tower: Sequence[int],
        writes_start: bool,
    ) -> None:
        super().__init__(item_sizes, row_sizes, width, deviation, writes_start)
        self.kind = graph
        self.graph: nn.Parameter | None = None
        if graph != "generated" or begins_shared:
            self.graph = nn.Parameter(torch.randn(self.fields, self.fields))
        self.writer = None
        if graph in ("generated", "residual"):
            self.writer = GraphWriter((1 + len(item_sizes)) * width, self.fields)
        self.interactions = Interactions(width, layers)
        self.readout = Readout(self.fields, width) if attention else LinearReadout(self.fields, width, layers)
        self.tower = DeepFactorisation(self.fields, width, tower) if tower else None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        own = super().shapes()
        return own if self.kind == "shared" else {**own, "graph": (self.fields, self.fields)}

    def begin(self, own: Values, items: int) -> State:
        named = self.named(own, items)
        if self.kind == "shared":
            return named
        if self.writer is None:
            return {**named, "graph": self.shared(items)}
        written = self.writer(self._of_items(named["id"], own).transpose(0, 1).flatten(1))
        return {**named, "graph": self.shared(items) + written if self.kind == "residual" else written}

    def shared(self, items: int) -> Float[Tensor, "item field other"]:
        """The graph of all, for so many items."""
        assert self.graph is not None
        return self.graph.expand(items, -1, -1)

    def forward(self, state: State, own: Values, rows: Values) -> Float[Tensor, "item row"]:
        return self._logits(self._graphs(state), self.vectors(state["id"], own, rows)) + state["bias"]

    def pooled(self, state: State, own: Values, of: Int[Tensor, " row"], rows: Values) -> Float[Tensor, " row"]:
        vectors = self.mixed_vectors(state["id"], own, of, rows)
        bias = state["bias"][of, 0]
        if "graph" not in state:  # as if all rows were one item's
            return self._logits(self.orders(self.shared(1)), vectors[None])[0] + bias
        graphs = self.orders(state["graph"]).flatten(1)[of]
        graphs = graphs.view(len(of), -1, self.fields, self.fields)
        return self._logits(graphs, vectors.transpose(0, 1)[:, :, None])[:, 0] + bias

    def prepared(self, state: State) -> State:
        return {"orders": self.orders(state["graph"])} if "graph" in state else {}

    def row_slopes(self) -> RowSlopes | None:
        readout, tower = self.readout, self.tower
        if not self.has_views or not isinstance(readout, LinearReadout):
            return None
        shared = view(self.graph) if self.graph is not None else None
        graph = GraphSlopes.of(self.interactions, readout)
        return RowSlopes(graph, None if tower is None else TowerSlopes.of(tower), shared)

    def orders(self, graph: Float[Tensor, "item field other"]) -> Float[Tensor, "item order field other"]:
        """The graphs of interactions of order 2, 3, …, as many as there are layers."""
        return higher_orders(graph, len(self.interactions.weights))

    def _graphs(self, state: State) -> Float[Tensor, "item order field other"]:
        if "graph" not in state:
            return self.orders(self.shared(1)).expand(len(state["id"]), -1, -1, -1)
        return state["orders"] if "orders" in state else self.orders(state["graph"])

    def _logits(self, graphs: Tensor, vectors: Float[Tensor, "item field row width"]) -> Float[Tensor, "item row"]:
        logits: Tensor = self.readout(self.interactions(graphs, vectors))
        return logits if self.tower is None else logits + self.tower(vectors)
