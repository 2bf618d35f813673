"""DropoutNet: item ids are dropped in training (Volkovs et al., NeurIPS 2017)."""

from collections.abc import Sequence
from typing import Any

from newcomer.data.schema import Schema
from newcomer.items.configuration import DropoutPretraining, Probabilities, Warmup
from newcomer.items.learner import ItemLearner
from newcomer.items.networks.tower_network import TowerConfig, TowerNetwork
from newcomer.items.training.field_regularization import FieldRegularization
from newcomer.items.training.meta_learning import rule_meta_learning
from newcomer.nn.ctr.field_embeddings import FieldSize
from newcomer.training.settings import Times


class DropoutNet(ItemLearner):
    """`IdTuning` with id dropout: in pre-training a row uses its item's initial id and bias with probability `id_dropout`.

    So the initial id and bias of new items are trained with all else. Departure from the paper, which also drops users: here only
    items are new.

    - `id_dropout`: share of rows; 0 equals `IdTuning` bit for bit.
    - all others: see `IdTuning`.
    """

    name = "dropout-net"

    def __init__(
        self,
        schema: Schema,
        *,
        network: TowerConfig = TowerConfig(),
        generate_init: bool = False,
        pretraining: DropoutPretraining = DropoutPretraining(id_dropout=0.5),
        regularization: FieldRegularization = FieldRegularization(),
        warmup: Warmup = Warmup(),
        meta_epochs: Times = 4,
        probabilities: Probabilities = Probabilities(),
        seed: int = 0,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        meta, rule = rule_meta_learning(meta_epochs), warmup.build()
        super().__init__(
            schema, pretraining, meta, rule, warmup.warmup_events, seed, device, regularization, probabilities
        )
        self.config, self.generate_init = network, generate_init

    def _build(self, item_sizes: Sequence[FieldSize], row_sizes: Sequence[FieldSize]) -> TowerNetwork:
        return TowerNetwork(item_sizes, row_sizes, self.config, self.generate_init)
