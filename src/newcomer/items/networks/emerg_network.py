"""EmerG's network: hypernetworks generate item-specific graphs, a GNN computes field interactions, a readout the logit."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from newcomer.items.encoding.encoder import Values
from newcomer.items.networks.item_network import ItemFeatures, ItemNetwork, State
from newcomer.nn.ctr.deepfm import DeepFM
from newcomer.nn.ctr.feature_graph import Interactions, LinearReadout, Readout, higher_orders
from newcomer.nn.ctr.field_embeddings import FieldSize
from newcomer.nn.ctr.hypernetwork import GraphHypernetwork
from newcomer.nn.optim.analytic_gradients import GraphGradient, RowGradient, TowerGradient
from newcomer.nn.optim.numpy_views import view
from newcomer.shapes import Float, Int, Tensor

Graph = Literal["shared", "tuned", "generated", "residual"]


class EmerGNetwork(ItemNetwork):
    """H⁰ → interactions over the item's graph → logit, plus a DeepFM's logit if `tower` has layers.

    `graph`: 'shared' (one for all items, fixed), 'tuned' (the shared one is the initial value of each item's), 'generated' (by
    `hypernetwork`, from the item's id and field embeddings) or 'residual' (shared + generated).
    `has_shared_graph`: also pre-train a shared graph where items' graphs are generated.
    """

    def __init__(
        self,
        item_sizes: Sequence[FieldSize],
        row_sizes: Sequence[FieldSize],
        *,
        width: int,
        layers: int,
        init_std: float,
        graph: Graph,
        has_shared_graph: bool,
        attention: bool,
        tower: Sequence[int],
        generate_init: bool,
    ) -> None:
        super().__init__(item_sizes, row_sizes, width, init_std, generate_init)
        self.kind = graph
        self.graph: nn.Parameter | None = None
        if graph != "generated" or has_shared_graph:
            self.graph = nn.Parameter(torch.randn(self.fields, self.fields))
        self.hypernetwork = None
        if graph in ("generated", "residual"):
            self.hypernetwork = GraphHypernetwork((1 + len(item_sizes)) * width, self.fields)
        self.interactions = Interactions(width, layers)
        self.readout = Readout(self.fields, width) if attention else LinearReadout(self.fields, width, layers)
        self.tower = DeepFM(self.fields, width, tower) if tower else None

    def tuned_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = super().tuned_shapes()
        return shapes if self.kind == "shared" else {**shapes, "graph": (self.fields, self.fields)}

    def initial_state(self, item_features: ItemFeatures, items: int) -> State:
        named = self.initial_id_and_bias(item_features, items)
        if self.kind == "shared":
            return named
        if self.hypernetwork is None:
            return {**named, "graph": self.shared(items)}
        written = self.hypernetwork(self._with_ids(named["id"], item_features).flatten(1))
        return {**named, "graph": self.shared(items) + written if self.kind == "residual" else written}

    def shared(self, items: int) -> Float[Tensor, "item field other"]:
        """The shared graph, expanded to `items` items."""
        assert self.graph is not None
        return self.graph.expand(items, -1, -1)

    def forward(self, state: State, item_features: ItemFeatures, rows: Values) -> Float[Tensor, "item row"]:
        return self._logits(self._graphs(state), self.embed(state["id"], item_features, rows)) + state["bias"]

    def forward_rows(
        self, state: State, item_features: ItemFeatures, of: Int[Tensor, " row"], rows: Values
    ) -> Float[Tensor, " row"]:
        vectors = self.embed_rows(state["id"], item_features, of, rows)
        bias = state["bias"].index_select(0, of)[:, 0]
        if "graph" not in state:  # as if all rows were one item's
            return self._logits(self.orders(self.shared(1)), vectors.transpose(0, 1)[None])[0] + bias
        graphs = self.orders(state["graph"]).flatten(1).index_select(0, of)
        graphs = graphs.view(len(of), -1, self.fields, self.fields)
        return self._logits(graphs, vectors[:, :, None])[:, 0] + bias

    def precompute(self, state: State) -> State:
        return {"orders": self.orders(state["graph"])} if "graph" in state else {}

    def row_gradient(self) -> RowGradient | None:
        readout, tower = self.readout, self.tower
        if not self.has_views or not isinstance(readout, LinearReadout):
            return None
        shared = view(self.graph) if self.graph is not None else None
        graph = GraphGradient.of(self.interactions, readout)
        return RowGradient(graph, None if tower is None else TowerGradient.of(tower), shared)

    def orders(self, graph: Float[Tensor, "item field other"]) -> Float[Tensor, "item order field other"]:
        """The graphs of interactions of order 2, 3, …, as many as there are layers."""
        return higher_orders(graph, len(self.interactions.weights))

    def _graphs(self, state: State) -> Float[Tensor, "item order field other"]:
        if "graph" not in state:
            return self.orders(self.shared(1)).expand(len(state["id"]), -1, -1, -1)
        return state["orders"] if "orders" in state else self.orders(state["graph"])

    def _logits(self, graphs: Tensor, vectors: Float[Tensor, "item field row width"]) -> Float[Tensor, "item row"]:
        logits: Tensor = self.readout(vectors, self.interactions(graphs, vectors))
        return logits if self.tower is None else logits + self.tower(vectors)
