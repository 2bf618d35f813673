"""Meta-Embedding: a meta-learned generator of initial id embeddings (Pan et al., SIGIR 2019)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from newcomer.data.schema import Schema
from newcomer.items.configuration import Pretraining, Probabilities, Warmup
from newcomer.items.learner import ItemLearner
from newcomer.items.networks.id_bias import isolated_rng, unpack, zero_init
from newcomer.items.networks.item_network import ItemFeatures, State, TrainedPart
from newcomer.items.networks.tower_network import TowerConfig, TowerNetwork
from newcomer.items.training.meta_learning import GeneratorMetaLearning
from newcomer.nn.ctr.field_embeddings import FieldSize
from newcomer.shapes import Float, Tensor
from newcomer.training.settings import Rate


class MetaEmbeddingNetwork(TowerNetwork):
    """Initial id and bias: start + init_scale · tanh(W ē), ē the mean of the item's field embeddings; W is zero-initialized."""

    def __init__(
        self,
        item_sizes: Sequence[FieldSize],
        row_sizes: Sequence[FieldSize],
        config: TowerConfig,
        init_scale: float,
    ) -> None:
        super().__init__(item_sizes, row_sizes, config)
        width = config.width
        with isolated_rng():
            self.generator = zero_init(nn.Linear(width, width + 1))
        self.init_scale = init_scale

    def initial_state(self, item_features: ItemFeatures, items: int) -> State:
        return unpack(self.start + self.init_offset(item_features, items))

    def init_offset(self, item_features: ItemFeatures, items: int) -> Float[Tensor, "item number"]:
        """The generator's offset to the common start."""
        mean = self.item_embeddings(item_features, items).view(items, -1, self.width).mean(dim=1)
        return self.init_scale * torch.tanh(self.generator(mean))

    def meta_parameters(self, trained: TrainedPart) -> nn.Module:
        if trained == "start":
            return nn.ModuleList([self.generator, self.scales])
        return super().meta_parameters(trained)


class MetaEmbedding(ItemLearner):
    """`IdTuning` with a generator of initial ids (MetaE), meta-learned on episodes of old items.

    The loss is `support_share` · support loss + (1 − `support_share`) · query loss after one gradient step on the support set. Old
    items keep their ids. Departure from the paper: the generator also generates a bias, and adds both to the mean of the old
    items'; in the paper it generates the id alone.

    - `init_scale`: bound of the generator's offset per entry.
    - `meta_epochs`, `meta_lr`: of the generator, by Adam; `episodes_per_step`, each with at most `episode_events` support events
      and as many query events.
    - `inner_lr`: of the gradient step within an episode; `second_order`: differentiate through it, as in the paper.
    - `adaptation`, `warmup_lr`, `warmup_steps`: at serving time, as in `IdTuning`; the prior of 'map' or the rates of 'learned_sgd'
      are learned in the same episodes, where they replace the gradient step.
    - all others: see `IdTuning`.
    """

    name = "meta-embedding"

    def __init__(
        self,
        schema: Schema,
        *,
        network: TowerConfig = TowerConfig(),
        init_scale: Rate = 1.0,
        pretraining: Pretraining = Pretraining(),
        meta: GeneratorMetaLearning = GeneratorMetaLearning(),
        inner_lr: Rate = 1e-2,
        warmup: Warmup = Warmup(),
        probabilities: Probabilities = Probabilities(),
        seed: int = 0,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        meta = replace(meta, query=meta.support)
        adaptation = warmup.build(inner_lr, inner_steps=1)
        super().__init__(
            schema, pretraining, meta, adaptation, warmup.warmup_events, seed, device, probabilities=probabilities
        )
        self.config, self.init_scale = network, init_scale

    def _build(self, item_sizes: Sequence[FieldSize], row_sizes: Sequence[FieldSize]) -> MetaEmbeddingNetwork:
        return MetaEmbeddingNetwork(item_sizes, row_sizes, self.config, self.init_scale)
