"""EmerG: item-specific feature interactions for new items (Wang et al., KDD 2024, arXiv 2407.10112)."""

from collections.abc import Sequence
from typing import Literal

from newcomer.data.datasets.simulated_clicks import PLANTED
from newcomer.data.schema import Schema
from newcomer.errors import LearnerError
from newcomer.items.adaptation.rules import Rule, adaptation
from newcomer.items.inference import History
from newcomer.items.learner import ItemLearner
from newcomer.items.networks.emerg_network import EmerGNetwork, Graph
from newcomer.items.networks.item_network import State
from newcomer.items.training.field_regularization import Reading
from newcomer.items.training.meta_learning import MetaLearning
from newcomer.items.training.pretraining import Pretraining
from newcomer.nn.ctr.feature_graph import higher_orders
from newcomer.nn.ctr.field_embeddings import FieldSize
from newcomer.settings import Json, checked
from newcomer.shapes import Float, Tensor
from newcomer.training.settings import Count, NotNegative, Rate, Share, Times


class EmerG(ItemLearner):
    """Every item has its own graph over the fields, written by hypernetworks from what is known of the item.

    Pre-training on the old items teaches all weights, the hypernetworks through each row's item's own graph. Then meta-learning:
    old items play new ones; their state φ = (graph, id, bias) is adapted to the support, and what meta-learning trains follows the
    gradient of `support_share` · support loss(φ) + the rest · query loss(φ'). Support and query are windows out of consecutive
    quarters of the item's events in time. A new item begins with the written graph, id and bias; events change φ alone.

    - `graph`: of an item: 'generated', the 'residual' that is generated of one for all, one for all at first and then 'tuned', or
      'shared' for good.
    - `width`, `layers`: of the embeddings, and of the graph network (interactions up to order `layers` + 1).
    - `readout`: 'linear', so that only graphs make fields interact, or 'attention' as in the paper; `tower`: layers of an MLP
      beside them, with a factorisation machine, none if empty.
    - `writes_start`: an item's id and bias begin where its fields say, not where all begin.
    - `pretrain_epochs`, `pretrain_rate`, `batch_size`, `weight_decay`: of pre-training, by Adam; `shrinkage` of old items' own ids
      and biases; `pretrain_graph`: through each item's 'own', or the 'shared' one, from which generated ones then start.
    - `dropout`: the share of its rows that see their item as if it were new.
    - `smooth`, `drop`, `tastes`: how fields are read in pre-training, see `items.training.field_regularization.Reading`.
    - `average`: what is learned is the mean over this share of pre-training's steps, the last ones.
    - `meta_epochs`, `meta_rate`: passes over all (item, pair of quarters), and Adam's rate there; `meta_trains` 'all' weights, or
      the 'rule' of adaptation alone.
    - `episodes_per_step`: of as many items the gradients are averaged in one step (paper: one).
    - `support_events`, `query_events`: at most so many events of a quarter, drawn anew each time; with `vary_support` from 1 on.
    - `adapt`: 'bayes', the likeliest state with a learned prior (`spread` at first, in `rounds` linearisations); 'descent', by
      `inner_steps` of gradient descent with learned rates (`inner_rate` at first); 'adam', the paper's, with a fixed `inner_rate`
      in episodes and `warm_steps` of Adam at `warm_rate` in service.
    - `second_order`: the gradients of inner steps are differentiated too; `support_share`: of the support loss in the outer one.
    - `history`: a warm-up sees the phase's events, or 'all' so far.
    - `deviation`: of embeddings at the start.
    - `seed`, `device`: of all chance; a GPU if there is one by default.
    """

    name = "emerg"
    network: EmerGNetwork

    @checked
    def __init__(
        self,
        schema: Schema,
        *,
        graph: Graph = "generated",
        width: Count = 16,
        layers: Count = 3,
        readout: Literal["linear", "attention"] = "linear",
        tower: list[Count] = [128, 64],  # noqa: B006  # settings are JSON; never changed
        writes_start: bool = True,
        pretrain_epochs: Times = 2,
        pretrain_rate: Rate = 5e-3,
        batch_size: Count = 512,
        weight_decay: NotNegative = 2.9e-7,
        shrinkage: NotNegative = 0.03,
        pretrain_graph: Literal["own", "shared"] = "own",
        dropout: Share = 0.0,
        smooth: dict[str, Rate] = {},  # noqa: B006
        drop: dict[str, Share] = {},  # noqa: B006
        tastes: bool = False,
        average: Share = 0.0,
        meta_epochs: Times = 4,
        meta_rate: Rate = 5e-2,
        meta_trains: Literal["rule", "all"] = "rule",
        episodes_per_step: Count = 24,
        support_events: Count = 60,
        query_events: Count = 40,
        vary_support: bool = True,
        support_share: Share = 0.0,
        adapt: Rule = "bayes",
        spread: Rate = 0.3,
        rounds: Count = 2,
        inner_rate: Rate = 1e-2,
        inner_steps: Times = 1,
        second_order: bool = False,
        warm_rate: Rate = 1e-2,
        warm_steps: Count = 12,
        history: History = "all",
        deviation: Rate = 0.01,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(
            schema,
            Pretraining(
                pretrain_epochs,
                batch_size,
                pretrain_rate,
                weight_decay,
                shrinkage,
                pretrain_graph == "own" and graph not in ("shared", "tuned"),
                dropout,
                average=average,
            ),
            MetaLearning(
                meta_epochs,
                meta_rate,
                0.0 if meta_trains == "rule" else weight_decay,
                meta_trains,
                episodes_per_step,
                support_events,
                query_events,
                vary_support,
                support_share,
                second_order,
            ),
            adaptation(adapt, spread, rounds, inner_rate, inner_steps, warm_rate, warm_steps),
            history,
            seed,
            device,
            Reading(smooth, tastes, drop),
        )
        self.graph, self.width, self.layers, self.readout = graph, width, layers, readout
        self.tower, self.writes_start, self.deviation = tower, writes_start, deviation

    def facts(self) -> dict[str, Json]:
        """`graphs`: of three items of the last stage, each with `title`, `fields` (both axes) and `graph`, see `graph_of`.

        In a simulated world `planted` says at which [row, column] the item's true interaction lies.
        """
        if not self.entries or not self.entries[-1].facts["items"]:
            return {}
        fields = [node.name for node in self.nodes]
        names = self.entries[-1].facts["items"]
        known = [dict(zip(entry.facts["items"], entry.facts.get(PLANTED, ()), strict=False)) for entry in self.entries]
        planted = {name: pair for part in known for name, pair in part.items()}
        shown = [names[at] for at in sorted({0, len(names) // 2, len(names) - 1})]
        return {"graphs": [_shown(name, fields, self.graph_of(name), planted.get(name)) for name in shown]}

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
            deviation=self.deviation,
            graph=self.graph,
            begins_shared=not self.pretraining.own_graphs,
            attention=self.readout == "attention",
            tower=self.tower,
            writes_start=self.writes_start,
        )

    def _pretrained(self) -> None:
        if self.graph == "generated" and self.network.writer is not None and self.network.graph is not None:
            self.network.writer.start_at(self.network.graph)


def _shown(item: str, fields: list[str], graph: list[list[float]], planted: str | None) -> dict[str, Json]:
    shown: dict[str, Json] = {"title": item, "fields": fields, "graph": graph}
    if planted:
        one, other = (fields.index(name) for name in planted.split(" × "))
        shown["planted"] = [[one, other], [other, one]]
    return shown
