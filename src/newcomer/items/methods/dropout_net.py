"""DropoutNet: a click model that has learned to do without an item's own id (Volkovs et al., NeurIPS 2017)."""

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


class DropoutNet(ItemLearner):
    """As `IdTuning`, but in pre-training a row sees its item with probability `dropout` as if it were new.

    Such a row's id and bias are those that new items begin with, which so are learned with all else. The paper drops users' own
    parts too; here only items are new.

    - `dropout`: the share of rows; with 0 this is `IdTuning` to the bit.
    - all others: see `IdTuning`.
    """

    name = "dropout-net"

    @checked
    def __init__(
        self,
        schema: Schema,
        *,
        backbone: Tower = "deepfm",
        width: Count = 16,
        hidden: list[Count] = [128, 64],  # noqa: B006  # settings are JSON; never changed
        writes_start: bool = False,
        dropout: Share = 0.5,
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
                pretrain_epochs,
                batch_size,
                pretrain_rate,
                weight_decay,
                shrinkage,
                own_graphs=False,
                dropout=dropout,
                average=average,
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
