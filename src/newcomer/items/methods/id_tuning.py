"""A click model with the new item's id embedding and bias alone tuned on its events: the plain row that every method must beat."""

from collections.abc import Sequence

from newcomer.data.schema import Schema
from newcomer.items.adaptation.rules import Rule, adaptation
from newcomer.items.inference import History
from newcomer.items.learner import ItemLearner
from newcomer.items.networks.tower_network import Tower, TowerNetwork
from newcomer.items.training.field_regularization import Reading
from newcomer.items.training.meta_learning import learning_the_rule
from newcomer.items.training.pretraining import Pretraining
from newcomer.nn.ctr.field_embeddings import FieldSize
from newcomer.settings import checked
from newcomer.training.settings import Count, NotNegative, Rate, Share, Times


class IdTuning(ItemLearner):
    """Pre-trained on the old items; a new item's id embedding and bias begin where all do and are tuned, all else stays as it is.

    - `backbone`: 'deepfm', 'dcn-v2' (three crosses beside an MLP) or 'autoint' (three layers of attention beside an MLP).
    - `width`, `hidden`: of the embeddings and of the MLP's layers.
    - `writes_start`: an item's id and bias begin where its fields say, not where all begin.
    - `pretrain_epochs`, `pretrain_rate`, `batch_size`, `weight_decay`: of pre-training, by Adam; `shrinkage` of old items' own ids
      and biases.
    - `smooth`, `drop`, `tastes`: how fields are read in pre-training, see `items.training.field_regularization.Reading`.
    - `average`: what is learned is the mean over this share of pre-training's steps, the last ones.
    - `adapt`: 'adam', `warm_steps` at `warm_rate` on all events at once; 'bayes' and 'descent' as in EmerG, their prior (`spread`
      at first, in `rounds` linearisations) or rates (`warm_rate` at first) learned in `meta_epochs` of episodes.
    - `history`: a warm-up sees the phase's events, or 'all' so far.
    - `deviation`: of embeddings at the start.
    - `seed`, `device`: of all chance; a GPU if there is one by default.
    """

    name = "id-tuning"

    @checked
    def __init__(
        self,
        schema: Schema,
        *,
        backbone: Tower = "deepfm",
        width: Count = 16,
        hidden: list[Count] = [128, 64],  # noqa: B006  # settings are JSON; never changed
        writes_start: bool = False,
        pretrain_epochs: Count = 2,
        pretrain_rate: Rate = 1e-3,
        batch_size: Count = 512,
        weight_decay: NotNegative = 2.9e-7,
        shrinkage: NotNegative = 0.0,
        smooth: dict[str, Rate] = {},  # noqa: B006
        drop: dict[str, Share] = {},  # noqa: B006
        tastes: bool = False,
        average: Share = 0.0,
        adapt: Rule = "adam",
        meta_epochs: Times = 4,
        spread: Rate = 0.3,
        rounds: Count = 2,
        warm_rate: Rate = 1e-2,
        warm_steps: Count = 12,
        history: History = "phase",
        deviation: Rate = 0.01,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(
            schema,
            Pretraining(
                pretrain_epochs, batch_size, pretrain_rate, weight_decay, shrinkage, own_graphs=False, average=average
            ),
            learning_the_rule(meta_epochs),
            adaptation(adapt, spread, rounds, warm_rate, warm_steps, warm_rate, warm_steps),
            history,
            seed,
            device,
            Reading(smooth, tastes, drop),
        )
        self.width, self.hidden, self.deviation = width, hidden, deviation
        self.writes_start, self.backbone = writes_start, backbone

    def _build(self, item_sizes: Sequence[FieldSize], row_sizes: Sequence[FieldSize]) -> TowerNetwork:
        return TowerNetwork(
            item_sizes, row_sizes, self.width, self.hidden, self.deviation, self.writes_start, self.backbone
        )
