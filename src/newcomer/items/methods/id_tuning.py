"""Id tuning: only a new item's id embedding and bias are tuned on its events; the baseline."""

from collections.abc import Sequence
from typing import Any

from newcomer.data.schema import Schema
from newcomer.items.configuration import AveragedPretraining, Probabilities, Warmup
from newcomer.items.learner import ItemLearner
from newcomer.items.networks.tower_network import TowerConfig, TowerNetwork
from newcomer.items.training.field_regularization import FieldRegularization
from newcomer.items.training.meta_learning import rule_meta_learning
from newcomer.nn.ctr.field_embeddings import FieldSize
from newcomer.training.settings import Times


class IdTuning(ItemLearner):
    """Pre-trained on the old items; a new item's id embedding and bias are tuned, all else is frozen.

    - `backbone`: 'deepfm', 'dcn-v2' (three cross layers and an MLP) or 'autoint' (three attention layers and an MLP).
    - `width`, `hidden`: of the embeddings and of the MLP's layers.
    - `generate_init`: generate an item's initial id and bias from its fields.
    - `pretrain_epochs`, `pretrain_lr`, `batch_size`, `weight_decay`: pre-training by Adam; `residual_l2`: L2 penalty on the old
      items' deviations from their initial id and bias.
    - `user_min_count`, `user_buckets`, `shard_tables`: for very many users; see `items.configuration.Pretraining`.
    - `smoothing_bandwidth`, `field_dropout`, `user_history`: see `items.training.field_regularization.FieldRegularization`.
    - `weight_averaging`: average the weights over this last share of the pre-training steps.
    - `adaptation`: 'adam', `warmup_steps` of full-batch Adam at `warmup_lr`; 'map' and 'learned_sgd' as in EmerG, with a prior
      (std `prior_std` at first, `linearizations` of the network) or rates (`warmup_lr` at first) learned in `meta_epochs` of
      episodes.
    - `warmup_events`: adapt to the 'new' events of a phase, or to 'all' so far.
    - `init_std`: of the embeddings.
    - `calibrate`, `negative_rate`: see `items.configuration.Probabilities`.
    - `seed`, `device`: of all randomness; a GPU if there is one by default.
    """

    name = "id-tuning"

    def __init__(
        self,
        schema: Schema,
        *,
        network: TowerConfig = TowerConfig(),
        generate_init: bool = False,
        pretraining: AveragedPretraining = AveragedPretraining(),
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
