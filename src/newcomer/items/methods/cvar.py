"""CVAR: conditional variational autoencoder of item ids (Zhao et al., SIGIR 2022, arXiv 2205.09935)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from newcomer.data.schema import Schema
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
from newcomer.nn.ctr.gaussians import DiagonalGaussian, squared_wasserstein
from newcomer.nn.optim.analytic_gradients import RowGradient
from newcomer.shapes import Float, Tensor
from newcomer.training.checkpoint import Things
from newcomer.training.fit import fit
from newcomer.training.learner import Step
from newcomer.training.settings import Count, NotNegative, Rate, Times, Width


class CVARNetwork(TowerNetwork):
    """Encoder q(z | v), prior p(z | fields) and decoder (z, number of events) → v; v: id and bias minus the common start.

    All three are linear; the decoder is zero-initialized. `all_events`: warm-up sees all events so far, not the new ones alone.
    """

    statistics = ("seen",)
    state_is_estimate = False

    def __init__(
        self,
        item_sizes: Sequence[FieldSize],
        row_sizes: Sequence[FieldSize],
        config: TowerConfig,
        latent: int,
        all_events: bool,
    ) -> None:
        super().__init__(item_sizes, row_sizes, config)
        width = config.width
        self.all_events = all_events
        with isolated_rng():
            encoder, prior = nn.Linear(width + 1, 2 * latent), nn.Linear(self.item_embedding_width, 2 * latent)
            decoder = zero_init(nn.Linear(latent + 1, width + 1))
        self.coder = nn.ModuleDict({"encoder": encoder, "prior": prior, "decoder": decoder})

    def initial_state(self, item_features: ItemFeatures, items: int) -> State:
        event_count = self.start.new_zeros(items, 1)
        return {**unpack(self.decode(self.prior(item_features, items).mean, event_count)), "seen": event_count}

    def encode(self, vector: Float[Tensor, "item number"]) -> DiagonalGaussian:
        """q(z | v) of the id and bias that an item has."""
        return DiagonalGaussian.of(self.coder["encoder"](vector - self.start))

    def prior(self, item_features: ItemFeatures, items: int) -> DiagonalGaussian:
        """p(z | fields)."""
        return DiagonalGaussian.of(self.coder["prior"](self.item_embeddings(item_features, items)))

    def decode(
        self, latent: Float[Tensor, "item latent"], event_count: Float[Tensor, "item 1"]
    ) -> Float[Tensor, "item number"]:
        """Id and bias from z and log₁₀(1 + number of events)."""
        offset: Tensor = self.coder["decoder"](torch.cat([latent, (1 + event_count).log10()], dim=1))
        return self.start + offset

    def row_gradient(self) -> RowGradient | None:
        return None

    def update_statistics(self, state: State, clicks: Clicks, batch: PaddedBatch, after_others: bool = False) -> State:
        weights = clicks.weights(batch.rows) * batch.real
        new_events = weights.sum(dim=1, keepdim=True).to(state["seen"].dtype)
        if self.all_events and not after_others:
            return {"seen": torch.maximum(state["seen"], new_events)}
        return {"seen": state["seen"] + new_events}

    def after_adaptation(self, state: State) -> State:
        """Encode and decode the adapted ids, given the number of events."""
        latent = self.encode(pack(state)).mean
        return {**state, **unpack(self.decode(latent, state["seen"]))}


class CVAR(ItemLearner):
    """`IdTuning` with a conditional variational autoencoder of the old items' ids, trained after pre-training, all else frozen.

    Loss over the old items' events: cross entropy with the ids decoded from the prior + `reconstruction_weight` · |v − v̂|² +
    `matching_weight` · W₂²(encoder, prior). A new item starts with the decoded mean of its prior; warm-up tunes its id and bias,
    then encodes and decodes them. Old items keep their ids until they are warmed up.

    Departures from the paper: the prior's sample is decoded with zero events, as for a new item; the old items' numbers of events
    enter where their ids are reconstructed. No weight is trained on new items' events.

    - `latent`: dimension of z; `latent_noise`: factor on the std of z's samples in training, 1 in the paper and 1e-4 in its public
      code.
    - `train_epochs`, `train_lr`: of the autoencoder, by Adam; `reconstruction_weight`, `matching_weight`: see above.
    - all others: see `IdTuning`.
    """

    name = "cvar"
    network: CVARNetwork

    def __init__(
        self,
        schema: Schema,
        *,
        network: TowerConfig = TowerConfig(),
        latent: Width = 16,
        pretraining: Pretraining = Pretraining(),
        train_epochs: Count = 1,
        train_lr: Rate = 1e-2,
        reconstruction_weight: Rate = 1.0,
        matching_weight: NotNegative = 1e-4,
        latent_noise: NotNegative = 1e-4,
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
        self.config, self.latent, self.train_epochs, self.train_lr = network, latent, train_epochs, train_lr
        self.reconstruction_weight, self.matching_weight = reconstruction_weight, matching_weight
        self.latent_noise = latent_noise

    def _build(self, item_sizes: Sequence[FieldSize], row_sizes: Sequence[FieldSize]) -> CVARNetwork:
        return CVARNetwork(
            item_sizes,
            row_sizes,
            self.config,
            self.latent,
            all_events=self.warmup_events == "all",
        )

    def _train_second_stage(
        self, stage: str, old: TrainingData, item_features: Values, residuals: nn.Embedding, selection: ModelSelection
    ) -> Iterator[Step]:
        network = self.network
        warm = network.start.detach() + residuals.weight.detach()
        counts = torch.tensor(old.weights, dtype=warm.dtype, device=warm.device)[:, None]
        optimizer = torch.optim.Adam(network.coder.parameters(), self.train_lr, fused=True)

        def loss(batch: Batch) -> Tensor:
            ids, event_count = warm[batch.items], counts[batch.items]
            posterior = network.encode(ids)
            prior = network.prior([values[batch.items] for values in item_features], len(ids))
            latent_noise = self.latent_noise * torch.randn(2, *posterior.mean.shape, generator=batch.chance).to(
                ids.device
            )
            reconstructed = network.decode(posterior.sample(latent_noise[0]), event_count)
            decoded_prior = network.decode(prior.sample(latent_noise[1]), torch.zeros_like(event_count))
            reconstruction_loss = self.reconstruction_weight * (reconstructed - ids).square().sum(dim=1)
            matching_loss = self.matching_weight * squared_wasserstein(posterior, prior)
            return batch.loss(network, unpack(decoded_prior), item_features) + batch.mean(
                reconstruction_loss + matching_loss
            )

        def take_step(batch: Batch) -> Mapping[str, float]:
            (metrics,) = fit([batch], loss, optimizer)
            return metrics

        checkpointed: Things = {"network": network, "optimizer": optimizer, "best": selection}
        second_stage = SecondStage(
            old, self.train_epochs, self.pretraining.batch_size, self.seed, stage, self.checkpoint, selection
        )
        yield from second_stage.run(network, network.coder, checkpointed, take_step)

    def _old_item_state(
        self, residuals: nn.Embedding, item_features: Values, counts: Sequence[float]
    ) -> dict[str, Tensor]:
        state = super()._old_item_state(residuals, item_features, counts)
        return state | {"seen": torch.tensor(counts, device=self.device).to(state["seen"])[:, None]}
