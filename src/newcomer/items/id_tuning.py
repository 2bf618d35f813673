"""DeepFM with the new item's id embedding and bias alone tuned on its events: the plain row that every method here must beat."""

from collections.abc import Sequence

from newcomer.data.schema import Schema
from newcomer.items.adaptation import Rule, adaptation
from newcomer.items.encoding import Values
from newcomer.items.learner import ItemLearner
from newcomer.items.meta import MetaLearning
from newcomer.items.network import ItemNetwork, State
from newcomer.items.pretrain import Pretraining
from newcomer.items.warm import History
from newcomer.nn.deep_factorisation import DeepFactorisation
from newcomer.nn.field_embeddings import FieldSize
from newcomer.nn.slopes import RowSlopes, TowerSlopes
from newcomer.settings import checked
from newcomer.shapes import Float, Int, Tensor
from newcomer.training.settings import Count, NotNegative, Rate, Times


class DeepFMNetwork(ItemNetwork):
    """A DeepFM over all fields; an item's own are its id's embedding and a bias."""

    def __init__(
        self,
        item_sizes: Sequence[FieldSize],
        row_sizes: Sequence[FieldSize],
        width: int,
        hidden: Sequence[int],
        deviation: float,
        writes_start: bool,
    ) -> None:
        super().__init__(item_sizes, row_sizes, width, deviation, writes_start)
        self.tower = DeepFactorisation(self.fields, width, hidden)

    def begin(self, own: Values, items: int) -> State:
        return self.named(own, items)

    def forward(self, state: State, own: Values, rows: Values) -> Float[Tensor, "item row"]:
        return self.tower(self.vectors(state["id"], own, rows)) + state["bias"]  # type: ignore[no-any-return]

    def row_slopes(self) -> RowSlopes | None:
        return RowSlopes(None, TowerSlopes.of(self.tower)) if self.has_views else None

    def pooled(self, state: State, own: Values, of: Int[Tensor, " row"], rows: Values) -> Float[Tensor, " row"]:
        vectors = self.mixed_vectors(state["id"], own, of, rows)
        return self.tower(vectors[None])[0] + state["bias"][of, 0]  # type: ignore[no-any-return]


class DeepFM(ItemLearner):
    """Pre-trained on the old items; a new item's id embedding and bias begin where all do and are tuned, all else stays as it is.

    - `width`, `hidden`: of the embeddings and of the MLP's layers.
    - `writes_start`: an item's id and bias begin where its fields say, not where all begin.
    - `pretrain_epochs`, `pretrain_rate`, `batch_size`, `weight_decay`: of pre-training, by Adam; `shrinkage` of old items' own ids
      and biases.
    - `adapt`: 'adam', `warm_steps` at `warm_rate` on all events at once; 'bayes' and 'descent' as in EmerG, their prior (`spread`
      at first, in `rounds` linearisations) or rates (`warm_rate` at first) learned in `meta_epochs` of episodes.
    - `history`: a warm-up sees the phase's events, or 'all' so far.
    - `deviation`: of embeddings at the start.
    - `seed`, `device`: of all chance; a GPU if there is one by default.
    """

    name = "deepfm"

    @checked
    def __init__(
        self,
        schema: Schema,
        *,
        width: Count = 16,
        hidden: list[Count] = [128, 64],  # noqa: B006  # settings are JSON; never changed
        writes_start: bool = False,
        pretrain_epochs: Count = 2,
        pretrain_rate: Rate = 1e-3,
        batch_size: Count = 512,
        weight_decay: NotNegative = 2.9e-7,
        shrinkage: NotNegative = 0.0,
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
            Pretraining(pretrain_epochs, batch_size, pretrain_rate, weight_decay, shrinkage, own_graphs=False),
            MetaLearning(
                meta_epochs,
                rate=5e-2,
                weight_decay=0.0,
                trains="rule",
                per_step=24,
                support=60,
                query=40,
                varied=True,
                support_share=0.0,
                second_order=False,
            ),
            adaptation(adapt, spread, rounds, warm_rate, warm_steps, warm_rate, warm_steps),
            history,
            seed,
            device,
        )
        self.width, self.hidden, self.writes_start, self.deviation = width, hidden, writes_start, deviation

    def _build(self, item_sizes: Sequence[FieldSize], row_sizes: Sequence[FieldSize]) -> DeepFMNetwork:
        return DeepFMNetwork(item_sizes, row_sizes, self.width, self.hidden, self.deviation, self.writes_start)
