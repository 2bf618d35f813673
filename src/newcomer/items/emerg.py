"""EmerG: item-specific feature interactions for new items (Wang et al., KDD 2024, arXiv 2407.10112)."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import nn

from newcomer.data.schema import Schema
from newcomer.data.world import PLANTED
from newcomer.errors import LearnerError
from newcomer.items.encoding import Clicks, Values
from newcomer.items.episodes import Episodes, Quarters
from newcomer.items.learner import ItemLearner
from newcomer.items.network import ItemNetwork, State
from newcomer.items.pretrain import Pretraining, pretrain
from newcomer.items.warm import History, WarmUp, click_losses
from newcomer.nn.feature_graph import Interactions, Readout, higher_orders
from newcomer.nn.hypernetwork import GraphWriter
from newcomer.seeds import spawn
from newcomer.settings import Json, checked
from newcomer.shapes import Float, Tensor
from newcomer.training.fit import fit
from newcomer.training.learner import Step
from newcomer.training.settings import Count, NotNegative, Rate, Share, Times


class EmerGNetwork(ItemNetwork):
    """H⁰ → interactions over the item's graph → one logit.

    `graph` is one for all items: pre-training's, and, with `writes=False`, every item's for good. Otherwise `writer` makes each
    item's from the embeddings of its own fields, the id's among them.
    """

    def __init__(
        self,
        item_sizes: Sequence[int],
        row_sizes: Sequence[int],
        width: int,
        layers: int,
        deviation: float,
        writes: bool,
    ) -> None:
        super().__init__(item_sizes, row_sizes, width, deviation)
        self.graph = nn.Parameter(torch.randn(self.fields, self.fields))
        self.writer = GraphWriter((1 + len(item_sizes)) * width, self.fields) if writes else None
        self.interactions = Interactions(width, layers)
        self.readout = Readout(self.fields, width)

    def begin(self, own: Values, items: int) -> State:
        ids = self.id_start.expand(items, -1)
        if self.writer is None:
            return {"id": ids}
        fields = [ids[None], self.item_fields(own)] if own else [ids[None]]
        characteristics = torch.cat(fields).transpose(0, 1).flatten(1)
        return {"id": ids, "graph": self.writer(characteristics)}

    def forward(self, state: State, own: Values, rows: Values) -> Float[Tensor, "item row"]:
        graph = state["graph"] if "graph" in state else self.graph.expand(len(state["id"]), -1, -1)
        return self._logits(graph, self.vectors(state["id"], own, rows))

    def pooled(self, ids: Float[Tensor, "row width"], own: Values, rows: Values) -> Float[Tensor, " row"]:
        vectors = self.vectors(ids, own, rows).transpose(0, 2)  # as if all rows were one item's
        return self._logits(self.graph[None], vectors)[0]

    def _logits(self, graph: Tensor, vectors: Float[Tensor, "item field row width"]) -> Float[Tensor, "item row"]:
        graphs = higher_orders(graph, len(self.interactions.weights))
        logits: Tensor = self.readout(self.interactions(graphs, vectors))
        return logits


class EmerG(ItemLearner):
    """Every item has its own graph over the fields, written by hypernetworks from what is known of the item.

    Pre-training on the old items with one graph for all. Then meta-learning: old items play new ones, their id's embedding at the
    shared start that new items will have, their graph as it is written; their state φ = (graph, id) takes an inner step on the
    support, and θ, all shared weights, follow the gradient of 0.1 · support loss(φ) + 0.9 · query loss(φ'). Support and query are
    windows out of consecutive quarters of the item's events in time. A new item begins with the written graph and the learned
    start of the id's embedding; in each warm phase φ alone is tuned.

    - `graph`: 'item', or 'shared': one graph for all, φ the id's embedding alone; the same model without what is EmerG's own.
    - `width`, `layers`: of the embeddings, and of the graph network (interactions up to order `layers` + 1).
    - `pretrain_epochs`, `pretrain_rate`, `batch_size`, `weight_decay`: of pre-training, by Adam.
    - `meta_epochs`, `meta_rate`: passes over all (item, pair of quarters), and Adam's rate there.
    - `episodes_per_step`: of as many items the gradients are averaged in one step (paper: one).
    - `support_events`, `query_events`: at most so many events of a quarter, drawn anew each time.
    - `inner_rate`, `inner_steps`, `second_order`: inner steps by gradient descent; their gradient counts as a constant unless
      `second_order`.
    - `support_share`: of the support loss in the outer one.
    - `warm_rate`, `warm_steps`: Adam on all of a phase's events at once; `history`: the phase's events, or 'all' so far.
    - `deviation`: of embeddings at the start.
    - `seed`, `device`: of all chance; a GPU if there is one by default.
    """

    name = "emerg"
    keeps_ids = False
    network: EmerGNetwork

    @checked
    def __init__(
        self,
        schema: Schema,
        *,
        graph: Literal["item", "shared"] = "item",
        width: Count = 16,
        layers: Count = 3,
        pretrain_epochs: Count = 2,
        pretrain_rate: Rate = 5e-3,
        batch_size: Count = 512,
        weight_decay: NotNegative = 2.9e-7,
        meta_epochs: Times = 11,
        meta_rate: Rate = 1e-3,
        episodes_per_step: Count = 32,
        support_events: Count = 20,
        query_events: Count = 20,
        inner_rate: Rate = 1e-2,
        inner_steps: Times = 1,
        second_order: bool = False,
        support_share: Share = 0.1,
        warm_rate: Rate = 1e-2,
        warm_steps: Count = 12,
        history: History = "phase",
        deviation: Rate = 0.01,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(schema, WarmUp(warm_rate, warm_steps), history, seed, device)
        self.graph, self.width, self.layers, self.deviation = graph, width, layers, deviation
        self.pretraining = Pretraining(pretrain_epochs, batch_size, pretrain_rate, weight_decay)
        self.meta_epochs, self.meta_rate, self.episodes_per_step = meta_epochs, meta_rate, episodes_per_step
        self.support_events, self.query_events, self.support_share = support_events, query_events, support_share
        self.inner_rate, self.inner_steps, self.second_order = inner_rate, inner_steps, second_order

    def facts(self) -> dict[str, Json]:
        """`graphs`: of three items of the last stage, each with `title`, `fields` (both axes) and `graph`, see `graph_of`.

        In a simulated world `planted` says at which [row, column] the item's true interaction lies.
        """
        if not self.entries or not self.entries[-1].facts["items"]:
            return {}
        fields = [node.name for node in self.schema.nodes]
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
        raw = self.state["graph"][self.known[item]] if "graph" in self.state else self.network.graph.detach()
        first = higher_orders(raw[None], orders=1)[0, 0]
        return [[round(edge, 4) for edge in row] for row in first.tolist()]

    def _build(self, item_sizes: Sequence[int], row_sizes: Sequence[int]) -> EmerGNetwork:
        return EmerGNetwork(item_sizes, row_sizes, self.width, self.layers, self.deviation, writes=self.graph == "item")

    def _teach(
        self, stage: str, ids: nn.Embedding, own: Values, clicks: Clicks, epoch_done: Callable[[ItemNetwork], None]
    ) -> Iterator[Step]:
        yield from pretrain(self.network, ids, own, clicks, self.pretraining, self.seed, stage)
        if self.network.writer is not None:
            self.network.writer.start_at(self.network.graph)
        yield from self._meta(stage, own, clicks, epoch_done)

    def _meta(
        self, stage: str, own: Values, clicks: Clicks, epoch_done: Callable[[ItemNetwork], None]
    ) -> Iterator[Step]:
        quarters, windows = Quarters(clicks.item), spawn(self.seed, stage, "windows")
        draws = quarters.draws(self.episodes_per_step, self.meta_epochs, self.seed, stage)
        decay = self.pretraining.weight_decay
        optimizer = torch.optim.Adam(self.network.parameters(), self.meta_rate, weight_decay=decay, fused=True)

        def loss(drawn: list[int]) -> Tensor:
            episodes = quarters.episodes(drawn, self.support_events, self.query_events, windows)
            return self._episode_loss(own, clicks, episodes)

        for step, seen in enumerate(fit(draws, loss, optimizer), 1):
            yield Step("meta", step, len(draws), seen)
            if step * self.meta_epochs % len(draws) == 0:
                epoch_done(self.network)

    def _episode_loss(self, own: Values, clicks: Clicks, episodes: Episodes) -> Float[Tensor, ""]:
        """support_share · L_support(φ) + (1 − support_share) · L_query(φ'), mean over episodes."""
        items = episodes.support.items
        state = self.network.begin([values[items] for values in own], len(items))
        before = click_losses(self.network, state, own, clicks, episodes.support)
        support = before
        for step in range(self.inner_steps):
            support = click_losses(self.network, state, own, clicks, episodes.support) if step else before
            gradients = torch.autograd.grad(
                support.sum(), list(state.values()), create_graph=self.second_order, retain_graph=True
            )
            moved = zip(state.items(), gradients, strict=True)
            state = {key: value - self.inner_rate * gradient for (key, value), gradient in moved}
        query = click_losses(self.network, state, own, clicks, episodes.query)
        return self.support_share * before.mean() + (1 - self.support_share) * query.mean()


def _shown(item: str, fields: list[str], graph: list[list[float]], planted: str | None) -> dict[str, Json]:
    shown: dict[str, Json] = {"title": item, "fields": fields, "graph": graph}
    if planted:
        one, other = (fields.index(name) for name in planted.split(" × "))
        shown["planted"] = [[one, other], [other, one]]
    return shown
