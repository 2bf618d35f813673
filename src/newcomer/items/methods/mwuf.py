"""MWUF: meta scaling and shifting networks warm up cold ids (Zhu et al., SIGIR 2021, arXiv 2105.04790)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from newcomer.data.schema import Schema
from newcomer.data.weights import LEAST
from newcomer.items.configuration import Pretraining, Probabilities, Warmup
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.learner import ItemLearner
from newcomer.items.networks.id_bias import isolated_rng, pack, unpack, zero_init
from newcomer.items.networks.item_network import ItemFeatures, State
from newcomer.items.networks.tower_network import TowerConfig, TowerNetwork
from newcomer.items.padding import PaddedBatch
from newcomer.items.training.meta_learning import rule_meta_learning
from newcomer.items.training.model_selection import ModelSelection
from newcomer.items.training.second_stage import Batch, SecondStage
from newcomer.items.training.training_data import TrainingData
from newcomer.nn.ctr.field_embeddings import FieldSize
from newcomer.nn.optim.analytic_gradients import RowGradient
from newcomer.shapes import Float, Tensor
from newcomer.training.checkpoint import Things
from newcomer.training.fit import fit
from newcomer.training.learner import Step
from newcomer.training.settings import Count, Rate, Times

HIDDEN = 16
"""Hidden width of both networks, as in the public code."""


class MWUFNetwork(TowerNetwork):
    """v_warm = v_cold ⊙ (1 + h(fields)) + g(users), v: an item's id and bias, concatenated.

    State `users`: mean user embedding of the item's events; `total`: their number, infinite for an old item, whose id is used as it
    is. g has no biases, so that no events means no shift; h and g are zero-initialized. `all_events`: warm-up sees all events so
    far, not the new ones alone.
    """

    statistics = ("users", "seen")

    def __init__(
        self,
        item_sizes: Sequence[FieldSize],
        row_sizes: Sequence[FieldSize],
        config: TowerConfig,
        all_events: bool,
    ) -> None:
        super().__init__(item_sizes, row_sizes, config)
        width = config.width
        self.all_events = all_events
        with isolated_rng():
            scale = [nn.Linear(self.item_embedding_width, HIDDEN), nn.ReLU(), zero_init(nn.Linear(HIDDEN, width + 1))]
            shift = [
                nn.Linear(width, HIDDEN, bias=False),
                nn.ReLU(),
                zero_init(nn.Linear(HIDDEN, width + 1, bias=False)),
            ]
        self.warming = nn.ModuleDict({"scale": nn.Sequential(*scale), "shift": nn.Sequential(*shift)})

    def initial_state(self, item_features: ItemFeatures, items: int) -> State:
        return {**self.initial_id_and_bias(item_features, items), **self.unseen(items)}

    def unseen(self, items: int) -> State:
        """Statistics of items without events."""
        return {"users": self.start.new_zeros(items, self.width), "seen": self.start.new_zeros(items, 1)}

    def warm_id_and_bias(self, state: State, item_features: ItemFeatures) -> State:
        if "seen" not in state:  # while the old items' ids are trained
            return state
        cold = pack(state)
        scale = 1 + self.warming["scale"](self.item_embeddings(item_features, len(cold)))
        warm = cold * scale + self.warming["shift"](state["users"])
        return unpack(torch.where(state["seen"].isinf(), cold, warm))

    def row_gradient(self) -> RowGradient | None:
        return None

    def update_statistics(self, state: State, clicks: Clicks, batch: PaddedBatch, after_others: bool = False) -> State:
        """Running mean of the users' embeddings over these events, clicked or not, with multiplicity and weight."""
        weights = (clicks.weights(batch.rows) * batch.real)[..., None]
        event_counts = weights.sum(dim=1).to(state["seen"].dtype)
        users = self.users(clicks, batch.rows.flatten()).view(*batch.rows.shape, -1)
        mean = (users * weights).sum(dim=1) / event_counts.clamp(min=LEAST)
        if self.all_events and not after_others:
            return {"users": mean, "seen": torch.maximum(state["seen"], event_counts)}
        total = state["seen"] + event_counts
        return {"users": torch.lerp(state["users"], mean, event_counts / total.clamp(min=LEAST)), "seen": total}

    def users(self, clicks: Clicks, rows: Tensor) -> Float[Tensor, "row width"]:
        """User embedding of each row."""
        return self.row_fields.vectors(0, clicks.values(rows)[0])


class MWUF(ItemLearner):
    """`IdTuning` with scaling and shifting networks: a new item starts at the old items' mean id, which is scaled and shifted.

    Both networks are trained with all else frozen, in two steps per batch: the loss of the cold ids updates the cold ids, from the
    initial id of new items; the loss of the same ids, scaled and shifted, updates the networks. Their inputs are an item's fields,
    and the mean embedding of all users of its events, clicked or not. Warm-up tunes the cold id through scale and shift.

    - `train_epochs`: of that training, by Adam; `train_lr`: of the networks; `cold_lr`: of the cold ids.
    - all others: see `IdTuning`.
    """

    name = "mwuf"
    network: MWUFNetwork

    def __init__(
        self,
        schema: Schema,
        *,
        network: TowerConfig = TowerConfig(),
        pretraining: Pretraining = Pretraining(),
        train_epochs: Count = 1,
        train_lr: Rate = 1e-3,
        cold_lr: Rate = 1e-3,
        warmup: Warmup = Warmup(),
        meta_epochs: Times = 4,
        probabilities: Probabilities = Probabilities(),
        seed: int = 0,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        meta = rule_meta_learning(meta_epochs)
        super().__init__(
            schema, pretraining, meta, warmup.build(), warmup.warmup_events, seed, device, probabilities=probabilities
        )
        self.config, self.train_epochs, self.train_lr, self.cold_lr = network, train_epochs, train_lr, cold_lr

    def _build(self, item_sizes: Sequence[FieldSize], row_sizes: Sequence[FieldSize]) -> MWUFNetwork:
        all_events = self.warmup_events == "all"
        return MWUFNetwork(item_sizes, row_sizes, self.config, all_events)

    def _train_second_stage(
        self, stage: str, old: TrainingData, item_features: Values, residuals: nn.Embedding, selection: ModelSelection
    ) -> Iterator[Step]:
        network, users = self.network, self._users(old, stage)
        starts = network.start.detach().repeat(len(users), 1)
        cold = nn.Embedding.from_pretrained(starts, freeze=False)  # type: ignore[no-untyped-call]
        cold_optimizer = torch.optim.Adam(cold.parameters(), self.cold_lr, fused=True)
        network_optimizer = torch.optim.Adam(network.warming.parameters(), self.train_lr, fused=True)
        event_counts = torch.tensor(old.weights, dtype=users.dtype, device=users.device)[:, None]

        def cold_loss(batch: Batch) -> Tensor:
            return batch.loss(network, unpack(cold(batch.items)), item_features)

        def warm_loss(batch: Batch) -> Tensor:
            ids = unpack(cold(batch.items).detach())
            return batch.loss(
                network, {**ids, "users": users[batch.items], "seen": event_counts[batch.items]}, item_features
            )

        def take_step(batch: Batch) -> Mapping[str, float]:
            (cold_metrics,) = fit([batch], cold_loss, cold_optimizer)
            (warm_metrics,) = fit([batch], warm_loss, network_optimizer)
            return {"loss": warm_metrics["loss"], "cold loss": cold_metrics["loss"]}

        checkpointed: Things = {
            "network": network,
            "cold": cold,
            "cold optimizer": cold_optimizer,
            "network optimizer": network_optimizer,
            "best": selection,
        }
        second_stage = SecondStage(
            old, self.train_epochs, self.pretraining.batch_size, self.seed, stage, self.checkpoint, selection
        )
        yield from second_stage.run(network, network.warming, checkpointed, take_step)

    @torch.no_grad()
    def _users(self, old: TrainingData, stage: str) -> Float[Tensor, "item width"]:
        """Mean user embedding of each old item's events."""
        total = self.network.start.new_zeros(len(old.items), self.config.width)
        for number in range(old.chunks_per_epoch):
            clicks, rows = old.shuffled_chunk(number, self.seed, f"{stage} users")
            weighted = clicks.weights(rows)[:, None] * self.network.users(clicks, rows)
            total.index_add_(0, clicks.item[rows], weighted)
        return total / torch.tensor(old.weights, dtype=total.dtype, device=total.device)[:, None]

    def _old_item_state(
        self, residuals: nn.Embedding, item_features: Values, counts: Sequence[float]
    ) -> dict[str, Tensor]:
        state = super()._old_item_state(residuals, item_features, counts)
        return state | {"seen": torch.full_like(state["seen"], torch.inf)}
