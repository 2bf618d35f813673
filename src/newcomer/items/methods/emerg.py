"""EmerG: item-specific feature interactions for new items (Wang et al., KDD 2024, arXiv 2407.10112)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from newcomer.data.datasets.simulated_clicks import PLANTED
from newcomer.data.schema import Schema
from newcomer.errors import LearnerError, SettingError
from newcomer.items.configuration import GraphPretraining, Probabilities, Warmup
from newcomer.items.learner import ItemLearner
from newcomer.items.networks.emerg_network import EmerGNetwork, Graph
from newcomer.items.networks.item_network import State
from newcomer.items.training.field_regularization import FieldRegularization
from newcomer.items.training.meta_learning import MetaLearning
from newcomer.nn.ctr.feature_graph import higher_orders
from newcomer.nn.ctr.field_embeddings import FieldSize
from newcomer.settings import Json
from newcomer.shapes import Float, Tensor
from newcomer.training.settings import Count, Rate, Times, Width


class EmerG(ItemLearner):
    """Item-specific feature interactions: hypernetworks generate a graph over the fields for each item.

    Pre-training on the old items trains all weights, the hypernetworks through each row's item's own graph. Then meta-learning on
    episodes of old items: the state φ = (graph, id, bias) is adapted to the support set, giving φ', and the loss is
    `support_share` · L_support(φ) + (1 − `support_share`) · L_query(φ'). Support and query events are windows of consecutive
    quarters of an item's events by time. A new item starts with the generated graph, id and bias; its events change φ alone.

    - `graph`: of an item: 'generated', 'residual' (shared + generated), 'tuned' (initialized with the shared one) or 'shared'.
    - `width`: of the embeddings; `layers`: of the graph network (interactions up to order `layers` + 1).
    - `readout`: 'linear', where only graphs make fields interact, or 'attention' as in the paper; `tower`: hidden layers of a
      DeepFM in parallel, none if empty.
    - `generate_init`: generate an item's initial id and bias from its fields.
    - `pretrain_epochs`, `pretrain_lr`, `batch_size`, `weight_decay`: pre-training by Adam; `residual_l2`: L2 penalty on the old
      items' deviations from their initial id and bias; `pretrain_graph`: through each 'item's graph, or a 'shared' one with which
      the generated ones are then initialized.
    - `id_dropout`: share of rows in pre-training that use the item's initial id and bias.
    - `user_min_count`, `user_buckets`, `shard_tables`: for very many users; see `items.configuration.Pretraining`.
    - `smoothing_bandwidth`, `field_dropout`, `user_history`: see `items.training.field_regularization.FieldRegularization`.
    - `weight_averaging`: average the weights over this last share of the pre-training steps.
    - `meta_epochs`, `meta_lr`: passes over all (item, pair of quarters), by Adam; `meta_trains`: 'all' weights, or the 'rule', the
      scales of the adaptation, alone.
    - `episodes_per_step`: episodes per gradient step (paper: one).
    - `support_events`, `query_events`: maximum number of events of a quarter, sampled anew each time; `vary_support`: sample the
      number of support events from 1 on.
    - `adaptation`: 'map', the MAP estimate under a learned prior (std `prior_std` at first, `linearizations` of the network);
      'learned_sgd', `inner_steps` of gradient descent with learned rates (`inner_lr` at first); 'adam', the paper's: a fixed
      `inner_lr` in episodes, `warmup_steps` of Adam at `warmup_lr` at serving time.
    - `second_order`: differentiate through the inner gradients; `support_share`: weight of the support loss in the outer loss.
    - `warmup_events`: adapt to the 'new' events of a phase, or to 'all' so far.
    - `init_std`: of the embeddings.
    - `calibrate`, `negative_rate`: see `items.configuration.Probabilities`.
    - `seed`, `device`: of all randomness; a GPU if there is one by default.
    """

    name = "emerg"
    network: EmerGNetwork

    def __init__(
        self,
        schema: Schema,
        *,
        graph: Graph = "generated",
        width: Width = 16,
        layers: Count = 3,
        readout: Literal["linear", "attention"] = "linear",
        tower: tuple[Width, ...] = (128, 64),
        generate_init: bool = True,
        init_std: Rate = 0.01,
        pretraining: GraphPretraining = GraphPretraining(lr=5e-3, residual_l2=0.03, id_dropout=0.2),
        regularization: FieldRegularization = FieldRegularization(),
        meta: MetaLearning = MetaLearning(),
        inner_lr: Rate = 1e-2,
        inner_steps: Times = 1,
        warmup: Warmup = Warmup(adaptation="map", warmup_events="all"),
        probabilities: Probabilities = Probabilities(),
        seed: int = 0,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        if meta.trained_part == "start":
            raise SettingError("EmerG: meta_trains = 'start' cannot be: give 'all' or 'rule'")
        item_graphs = pretraining.graph == "item" and graph not in ("shared", "tuned")
        super().__init__(
            schema,
            replace(pretraining, item_graphs=item_graphs),
            replace(meta, weight_decay=pretraining.weight_decay if meta.trained_part == "all" else 0.0),
            warmup.build(inner_lr, inner_steps),
            warmup.warmup_events,
            seed,
            device,
            regularization,
            probabilities,
        )
        self.graph, self.width, self.layers, self.readout = graph, width, layers, readout
        self.tower, self.generate_init, self.init_std = tower, generate_init, init_std

    def info(self) -> dict[str, Json]:
        """`graphs`: three items of the last stage, each with `title`, `fields` (both axes) and `graph`, see `graph_of`.

        In simulated data `planted` gives the [row, column] of the item's planted interaction. `held_out`: see `ItemLearner.info`.
        """
        if not self.entries or not self.entries[-1].info["items"]:
            return super().info()
        fields = [node.name for node in self.nodes]
        names = self.entries[-1].info["items"]
        known = [dict(zip(entry.info["items"], entry.info.get(PLANTED, ()), strict=False)) for entry in self.entries]
        planted = {name: pair for part in known for name, pair in part.items()}
        example = [names[at] for at in sorted({0, len(names) // 2, len(names) - 1})]
        return super().info() | {
            "graphs": [_graph_example(name, fields, self.graph_of(name), planted.get(name)) for name in example]
        }

    def graph_of(self, item: str) -> list[list[float]]:
        """The item's first-order graph A¹ as the network uses it now: symmetric, in [0, 1], F rows of F numbers.

        Raises LearnerError for an item that was not added.
        """
        if item not in self.known:
            raise LearnerError(f"item '{item}' is not known; add it first")
        number = self.known[item]
        (first,) = self.graphs({key: value[number : number + 1] for key, value in self.state.items()}).tolist()
        return [[round(edge, 4) for edge in row] for row in first]

    def graphs(self, state: State) -> Float[Tensor, "item field other"]:
        """The first-order graphs A¹ that items in these states have."""
        raw = state["graph"] if "graph" in state else self.network.shared(len(state["id"]))
        return higher_orders(raw.detach(), orders=1)[:, 0]

    def _build(self, item_sizes: Sequence[FieldSize], row_sizes: Sequence[FieldSize]) -> EmerGNetwork:
        return EmerGNetwork(
            item_sizes,
            row_sizes,
            width=self.width,
            layers=self.layers,
            init_std=self.init_std,
            graph=self.graph,
            has_shared_graph=not self.pretraining.item_graphs,
            attention=self.readout == "attention",
            tower=self.tower,
            generate_init=self.generate_init,
        )

    def _after_pretraining(self) -> None:
        if self.graph == "generated" and self.network.hypernetwork is not None and self.network.graph is not None:
            self.network.hypernetwork.start_at(self.network.graph)


def _graph_example(item: str, fields: list[str], graph: list[list[float]], planted: str | None) -> dict[str, Json]:
    example: dict[str, Json] = {"title": item, "fields": fields, "graph": graph}
    if planted:
        one, other = (fields.index(name) for name in planted.split(" × "))
        example["planted"] = [[one, other], [other, one]]
    return example
