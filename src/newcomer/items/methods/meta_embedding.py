"""Meta-Embedding: a generator writes where a new item's id begins, so that a step from there leads far (Pan et al., SIGIR 2019)."""

from collections.abc import Sequence

import torch
from torch import nn

from newcomer.data.schema import Schema
from newcomer.items.adaptation.rules import Rule, adaptation
from newcomer.items.encoding.encoder import Values
from newcomer.items.inference import History
from newcomer.items.learner import ItemLearner
from newcomer.items.networks.id_bias import beside, silent, state_of
from newcomer.items.networks.item_network import State, Trained
from newcomer.items.networks.tower_network import Tower, TowerNetwork
from newcomer.items.training.meta_learning import MetaLearning
from newcomer.items.training.pretraining import Pretraining
from newcomer.nn.ctr.field_embeddings import FieldSize
from newcomer.settings import checked
from newcomer.shapes import Float, Tensor
from newcomer.training.settings import Count, NotNegative, Rate, Share, Times


class MetaEmbeddingNetwork(TowerNetwork):
    """An item begins at the common start + reach · tanh(W ē), ē the mean of its fields' embeddings; W is zero at first."""

    def __init__(
        self,
        item_sizes: Sequence[FieldSize],
        row_sizes: Sequence[FieldSize],
        width: int,
        hidden: Sequence[int],
        deviation: float,
        backbone: Tower,
        reach: float,
    ) -> None:
        super().__init__(item_sizes, row_sizes, width, hidden, deviation, backbone=backbone)
        with beside():
            self.generator = silent(nn.Linear(width, width + 1))
        self.reach = reach

    def begin(self, own: Values, items: int) -> State:
        return state_of(self.start + self.written(own, items))

    def written(self, own: Values, items: int) -> Float[Tensor, "item number"]:
        """What the generator adds to id and bias, from the fields alone."""
        mean = self.characteristics(own, items).view(items, -1, self.width).mean(dim=1)
        return self.reach * torch.tanh(self.generator(mean))

    def learned_in_episodes(self, trained: Trained) -> nn.Module:
        if trained == "start":
            return nn.ModuleList([self.generator, self.scales])
        return super().learned_in_episodes(trained)


class MetaEmbedding(ItemLearner):
    """Pre-trained as `IdTuning`; then old items play new ones, and the generator of their ids alone is trained (MetaE).

    What is minimised is `support_share` · loss of the support before + the rest · loss of the query after one step of gradient
    descent on the support. Old items keep their ids. The generator writes a bias too, and adds both to the mean of the old
    items'; in the paper it writes the id alone.

    - `reach`: how far from that mean a number can be written.
    - `meta_epochs`, `meta_rate`: of the generator's training, by Adam; `episodes_per_step`, each with at most `episode_events`
      in its support and as many in its query.
    - `inner_rate`: of the step within an episode; `second_order`: its gradient is differentiated too, as in the paper.
    - `adapt`, `warm_rate`, `warm_steps`: of events in service, as in `IdTuning`; what 'bayes' or 'descent' learns is learned in
      the same episodes, in which it takes the step's place.
    - all others: see `IdTuning`.
    """

    name = "meta-embedding"

    @checked
    def __init__(
        self,
        schema: Schema,
        *,
        backbone: Tower = "deepfm",
        width: Count = 16,
        hidden: list[Count] = [128, 64],  # noqa: B006  # settings are JSON; never changed
        reach: Rate = 1.0,
        pretrain_epochs: Count = 2,
        pretrain_rate: Rate = 1e-3,
        batch_size: Count = 512,
        weight_decay: NotNegative = 2.9e-7,
        shrinkage: NotNegative = 0.0,
        meta_epochs: Times = 4,
        meta_rate: Rate = 1e-2,
        episodes_per_step: Count = 24,
        episode_events: Count = 20,
        support_share: Share = 0.1,
        inner_rate: Rate = 1e-2,
        second_order: bool = True,
        adapt: Rule = "adam",
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
            Pretraining(pretrain_epochs, batch_size, pretrain_rate, weight_decay, shrinkage, own_graphs=False),
            MetaLearning(
                meta_epochs,
                meta_rate,
                weight_decay=0.0,
                trains="start",
                per_step=episodes_per_step,
                support=episode_events,
                query=episode_events,
                varied=False,
                support_share=support_share,
                second_order=second_order,
            ),
            adaptation(adapt, spread, rounds, inner_rate, 1, warm_rate, warm_steps),
            history,
            seed,
            device,
        )
        self.width, self.hidden, self.deviation = width, hidden, deviation
        self.backbone, self.reach = backbone, reach

    def _build(self, item_sizes: Sequence[FieldSize], row_sizes: Sequence[FieldSize]) -> MetaEmbeddingNetwork:
        return MetaEmbeddingNetwork(
            item_sizes, row_sizes, self.width, self.hidden, self.deviation, self.backbone, self.reach
        )
