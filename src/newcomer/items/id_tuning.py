"""DeepFM with the new item's id embedding alone tuned on its events: the plain row that every method here must beat."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from torch import nn

from newcomer.data.schema import Schema
from newcomer.items.encoding import Clicks, Values
from newcomer.items.learner import ItemLearner
from newcomer.items.network import ItemNetwork, State
from newcomer.items.pretrain import Pretraining, pretrain
from newcomer.items.warm import History, WarmUp
from newcomer.settings import checked
from newcomer.shapes import Float, Tensor
from newcomer.training.learner import Step
from newcomer.training.settings import Count, NotNegative, Rate


class DeepFMNetwork(ItemNetwork):
    """Linear terms, all pairs of fields by a factorisation machine, and an MLP, added up (Guo et al., IJCAI 2017).

    A field's linear term is wᵀ of its embedding, which is as free as a weight of its own for every value.
    """

    def __init__(
        self, item_sizes: Sequence[int], row_sizes: Sequence[int], width: int, hidden: Sequence[int], deviation: float
    ) -> None:
        super().__init__(item_sizes, row_sizes, width, deviation)
        self.linear = nn.Linear(self.fields * width, 1)
        sizes = [self.fields * width, *hidden]
        layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
        self.deep = nn.Sequential(*(part for layer in layers for part in layer), nn.Linear(sizes[-1], 1, bias=False))

    def begin(self, own: Values, items: int) -> State:
        return {"id": self.id_start.expand(items, -1)}

    def forward(self, state: State, own: Values, rows: Values) -> Float[Tensor, "item row"]:
        return self._logits(self.vectors(state["id"], own, rows))

    def pooled(self, ids: Float[Tensor, "row width"], own: Values, rows: Values) -> Float[Tensor, " row"]:
        return self._logits(self.vectors(ids, own, rows))[:, 0]

    def _logits(self, vectors: Float[Tensor, "item field row width"]) -> Float[Tensor, "item row"]:
        total = vectors.sum(dim=1)
        pairs = (total.square() - vectors.square().sum(dim=1)).sum(dim=-1) / 2
        together = vectors.transpose(1, 2).flatten(2)
        logits: Tensor = (self.linear(together) + self.deep(together))[..., 0] + pairs
        return logits


class DeepFM(ItemLearner):
    """Pre-trained on the old items; a new item's id embedding begins at their mean and is tuned, all else stays as it is.

    - `width`, `hidden`: of the embeddings and of the MLP's layers.
    - `pretrain_epochs`, `pretrain_rate`, `batch_size`, `weight_decay`: of pre-training, by Adam.
    - `warm_rate`, `warm_steps`: Adam on all of a phase's events at once; `history`: the phase's events, or 'all' so far.
    - `deviation`: of embeddings at the start.
    - `seed`, `device`: of all chance; a GPU if there is one by default.
    """

    name = "deepfm"
    keeps_ids = True

    @checked
    def __init__(
        self,
        schema: Schema,
        *,
        width: Count = 16,
        hidden: list[Count] = [128, 64],  # noqa: B006  # settings are JSON; never changed
        pretrain_epochs: Count = 2,
        pretrain_rate: Rate = 1e-3,
        batch_size: Count = 512,
        weight_decay: NotNegative = 2.9e-7,
        warm_rate: Rate = 1e-2,
        warm_steps: Count = 12,
        history: History = "phase",
        deviation: Rate = 0.01,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(schema, WarmUp(warm_rate, warm_steps), history, seed, device)
        self.width, self.hidden, self.deviation = width, hidden, deviation
        self.pretraining = Pretraining(pretrain_epochs, batch_size, pretrain_rate, weight_decay)

    def _build(self, item_sizes: Sequence[int], row_sizes: Sequence[int]) -> DeepFMNetwork:
        return DeepFMNetwork(item_sizes, row_sizes, self.width, self.hidden, self.deviation)

    def _teach(
        self, stage: str, ids: nn.Embedding, own: Values, clicks: Clicks, epoch_done: Callable[[ItemNetwork], None]
    ) -> Iterator[Step]:
        yield from pretrain(self.network, ids, own, clicks, self.pretraining, self.seed, stage, epoch_done)
