"""What networks of this family share: shared weights, and of every item a small state of its own."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.padding import Padded
from newcomer.nn.ctr.field_embeddings import FieldEmbeddings, FieldSize
from newcomer.nn.optim.analytic_gradients import RowSlopes
from newcomer.seeds import spawn
from newcomer.shapes import Float, Int, Tensor

State = Mapping[str, Tensor]
"""What items have of their own, by name: Float[item …]. Only this is adapted when they warm up."""

Trained = Literal["all", "rule", "start"]


class ItemNetwork(nn.Module, ABC):
    """Shared embeddings of all fields but the item's id, and where the id's embedding and the item's bias begin.

    An item that nobody has clicked yet begins at `start`, moved by what its own fields say (`prior`, a linear map, unless
    `writes_start` is false). Fields stand in the order of the schema's nodes: the item's id, its fields, the user's id and fields,
    the context's.
    """

    kept: tuple[str, ...] = ()
    """Names of those parts of a state that no gradient moves: what events say of an item besides (`noted`)."""

    def __init__(
        self,
        item_sizes: Sequence[FieldSize],
        row_sizes: Sequence[FieldSize],
        width: int,
        deviation: float,
        writes_start: bool,
    ) -> None:
        super().__init__()
        self.fields, self.width, self.deviation = 1 + len(item_sizes) + len(row_sizes), width, deviation
        self.item_fields = FieldEmbeddings(item_sizes, width, deviation)
        self.row_fields = FieldEmbeddings(row_sizes, width, deviation)
        self.start = nn.Parameter(torch.zeros(width + 1))
        self.prior: nn.Linear | None = None
        if writes_start and item_sizes:
            self.prior = nn.Linear(len(item_sizes) * width, width + 1, bias=False)
            nn.init.zeros_(self.prior.weight)
        self.scales = nn.ParameterDict()

    def learn_scales(self, begin: float) -> None:
        """From now on there is a positive number, learned, for each number of a state: how far, or how fast, it may move."""
        for key, shape in self.shapes().items():
            self.scales[key] = nn.Parameter(torch.full(shape, begin).log())

    def scales_now(self) -> dict[str, Tensor]:
        return {key: scale.exp() for key, scale in self.scales.items()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """What of an item is tuned."""
        return {"id": (self.width,), "bias": (1,)}

    def divided(self, state: State) -> tuple[State, State]:
        """What is only kept, and what is tuned by gradients."""
        return {key: state[key] for key in self.kept}, {key: state[key] for key in self.shapes()}

    def noted(self, state: State, clicks: Clicks, batch: Padded) -> State:
        """What is only kept of the items of a batch, after these events and before any tuning on them."""
        return self.divided(state)[0]

    def settled(self, state: State) -> State:
        """What becomes of states that have just been tuned."""
        return state

    def learned_in_episodes(self, trained: Trained) -> nn.Module:
        """Whose parameters these are; here an item's start is learned in pre-training, and with 'all'."""
        return self if trained == "all" else self.scales

    @abstractmethod
    def begin(self, own: Values, items: int) -> State:
        """The states of so many items of which only the fields are known, as functions of the shared weights."""

    @abstractmethod
    def forward(self, state: State, own: Values, rows: Values) -> Float[Tensor, "item row"]:
        """Logits. `own`: the items' fields, one thing an item; `rows`: the rows', those of the first item first."""

    @abstractmethod
    def pooled(self, state: State, own: Values, of: Int[Tensor, " row"], rows: Values) -> Float[Tensor, " row"]:
        """Logits of rows that are mixed: row j is about the item `of[j]` of those that `state` and `own` are of."""

    def prepared(self, state: State) -> State:
        """What follows from states and from nothing else, and what `forward` does not work out anew where `state` has it."""
        return {}

    def row_slopes(self) -> RowSlopes | None:
        """One row's logit and its slopes by formulas, on the weights as they are; None where only autograd knows them."""
        return None

    @property
    def has_views(self) -> bool:
        """Whether numpy can look at the weights where they are."""
        return self.start.device.type == "cpu" and self.start.dtype == torch.float32

    def named(self, own: Values, items: int) -> dict[str, Tensor]:
        """Id and bias where they begin."""
        begin = self.start.expand(items, -1)
        if self.prior is not None:
            begin = begin + self.prior(self.item_fields(own).transpose(0, 1).flatten(1))
        return {"id": begin[:, :-1], "bias": begin[:, -1:]}

    def vectors(
        self, ids: Float[Tensor, "item width"], own: Values, rows: Values
    ) -> Float[Tensor, "item field row width"]:
        """H⁰: one vector a field, the item's repeated for all its rows."""
        of_items = self._of_items(ids, own)
        of_rows = self.row_fields(rows)
        of_rows = of_rows.view(len(of_rows), len(ids), -1, self.width).transpose(0, 1)
        return torch.cat([of_items.transpose(0, 1)[:, :, None].expand(-1, -1, of_rows.shape[2], -1), of_rows], dim=1)

    def mixed_vectors(
        self, ids: Float[Tensor, "item width"], own: Values, of: Int[Tensor, " row"], rows: Values
    ) -> Float[Tensor, "field row width"]:
        """The same where each row is about an item of any: see `pooled`."""
        return torch.cat([self._of_items(ids, own)[:, of], self.row_fields(rows)])

    def _of_items(self, ids: Tensor, own: Values) -> Float[Tensor, "field item width"]:
        return torch.cat([ids[None], self.item_fields(own)]) if own else ids[None]


@contextmanager
def chance(seed: int, *address: str | int) -> Iterator[None]:
    """Within, torch's own source of chance on the CPU starts from this address, so that layers start there.

    Outside it goes on unmoved; those of other devices, which `torch.manual_seed` starts anew, are not touched.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(spawn(seed, *address).initial_seed())
        yield


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin so, by the rest of their names."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
