"""Base class of click models with per-item parameters (the item state)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.padding import PaddedBatch
from newcomer.nn.ctr.field_embeddings import FieldEmbeddings, FieldSize
from newcomer.nn.optim.analytic_gradients import RowGradient
from newcomer.seeds import spawn
from newcomer.shapes import Float, Int, Tensor

State = Mapping[str, Tensor]
"""Per-item parameters by name, Float[item …]: id embedding, bias, graph. Only these are adapted in warm-up."""

ItemFeatures = Values | Tensor
"""Values of the items' fields; or their embeddings, Float[item field width], where several passes need them."""

TrainedPart = Literal["all", "rule", "start"]


class ItemNetwork(nn.Module, ABC):
    """Shared embeddings of all fields but the item's id, and the initial id embedding and bias of an item.

    A new item's id and bias are `start`, plus a linear map of its field embeddings (`init_generator`) if `generate_init`.
    Field order, as in the schema's nodes: item id, item fields, user id, user fields, context fields.
    """

    statistics: tuple[str, ...] = ()
    """Keys of a state that are computed from events (`update_statistics`), not tuned by gradients."""

    state_is_estimate = True
    """Whether the tuned part of a state is what the adaptation estimated: `after_adaptation` does not change it."""

    def __init__(
        self,
        item_sizes: Sequence[FieldSize],
        row_sizes: Sequence[FieldSize],
        width: int,
        init_std: float,
        generate_init: bool,
    ) -> None:
        super().__init__()
        self.fields, self.width, self.init_std = 1 + len(item_sizes) + len(row_sizes), width, init_std
        self.item_fields = FieldEmbeddings(item_sizes, width, init_std)
        self.row_fields = FieldEmbeddings(row_sizes, width, init_std)
        self.start = nn.Parameter(torch.zeros(width + 1))
        self.init_generator: nn.Linear | None = None
        if generate_init and item_sizes:
            self.init_generator = nn.Linear(len(item_sizes) * width, width + 1, bias=False)
            nn.init.zeros_(self.init_generator.weight)
        self.scales = nn.ParameterDict()

    def add_scales(self, begin: float) -> None:
        """Add a learned positive scale per tuned entry of a state: a prior std or a learning rate."""
        for key, shape in self.tuned_shapes().items():
            self.scales[key] = nn.Parameter(torch.full(shape, begin).log())

    def positive_scales(self) -> dict[str, Tensor]:
        return {key: scale.exp() for key, scale in self.scales.items()}

    def tuned_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tuned parts of a state, by key."""
        return {"id": (self.width,), "bias": (1,)}

    def split_state(self, state: State) -> tuple[State, State]:
        """The state's statistics, and its tuned part."""
        return {key: state[key] for key in self.statistics}, {key: state[key] for key in self.tuned_shapes()}

    def update_statistics(self, state: State, clicks: Clicks, batch: PaddedBatch, after_others: bool = False) -> State:
        """Statistics of a batch's items after these events, before adaptation.

        `after_others`: `state` has the statistics of earlier events that are not in the batch, even with `warmup_events` 'all'.
        """
        return self.split_state(state)[0]

    def after_adaptation(self, state: State) -> State:
        """Transform of states right after adaptation; identity by default."""
        return state

    def meta_parameters(self, trained: TrainedPart) -> nn.Module:
        """Module whose parameters meta-learning trains."""
        return self if trained == "all" else self.scales

    @abstractmethod
    def initial_state(self, item_features: ItemFeatures, items: int) -> State:
        """States of `items` items without events, differentiable in the shared weights."""

    @abstractmethod
    def forward(self, state: State, item_features: ItemFeatures, rows: Values) -> Float[Tensor, "item row"]:
        """Logits. `item_features` has one entry per item; `rows` (user and context fields) is grouped by item."""

    @abstractmethod
    def forward_rows(
        self, state: State, item_features: ItemFeatures, of: Int[Tensor, " row"], rows: Values
    ) -> Float[Tensor, " row"]:
        """Logits of rows in any order: row j belongs to item `of[j]` of `state` and `item_features`."""

    def precompute(self, state: State) -> State:
        """Values derived from states alone, which `forward` uses if they are in `state`; see `GraphCache`."""
        return {}

    def row_gradient(self) -> RowGradient | None:
        """Analytic gradient of one row's logit on views of the weights; None if only autograd can."""
        return None

    @property
    def is_sharded(self) -> bool:
        """Whether the rows of some table are spread over processes: then all of them do each step and each answer together."""
        return self.item_fields.is_sharded or self.row_fields.is_sharded

    @property
    def has_views(self) -> bool:
        """Whether numpy can view the weights in place: float32 on the CPU, and whole in this process."""
        return not self.is_sharded and self.start.device.type == "cpu" and self.start.dtype == torch.float32

    def initial_id_and_bias(self, item_features: ItemFeatures, items: int) -> dict[str, Tensor]:
        """Initial id embeddings and biases."""
        begin = self.start.expand(items, -1)
        if self.init_generator is not None:
            begin = begin + self.init_generator(self.embed_items(item_features).flatten(1))
        return {"id": begin[:, :-1], "bias": begin[:, -1:]}

    def embed(
        self, ids: Float[Tensor, "item width"], item_features: ItemFeatures, rows: Values
    ) -> Float[Tensor, "item field row width"]:
        """H⁰: one vector per field; an item's vectors are repeated over its rows."""
        of_items = self._with_ids(ids, item_features)
        of_rows = self.row_fields(rows)
        of_rows = of_rows.view(len(ids), -1, *of_rows.shape[1:]).transpose(1, 2)
        return torch.cat([of_items[:, :, None].expand(-1, -1, of_rows.shape[2], -1), of_rows], dim=1)

    def embed_rows(
        self, ids: Float[Tensor, "item width"], item_features: ItemFeatures, of: Int[Tensor, " row"], rows: Values
    ) -> Float[Tensor, "row field width"]:
        """Like `embed`, for rows of mixed items; see `forward_rows`."""
        of_items = self._with_ids(ids, item_features).flatten(1)
        of_rows = [self.row_fields.vectors(field, value) for field, value in enumerate(rows)]
        return torch.cat([of_items.index_select(0, of), *of_rows], dim=1).view(len(of), self.fields, self.width)

    def embed_items(self, item_features: ItemFeatures) -> Float[Tensor, "item field width"]:
        """Embeddings of the items' fields; those that are given stay."""
        return item_features if isinstance(item_features, Tensor) else self.item_fields(item_features)

    def _with_ids(self, ids: Tensor, item_features: ItemFeatures) -> Float[Tensor, "item field width"]:
        of_items = ids[:, None]
        return torch.cat([of_items, self.embed_items(item_features)], dim=1) if len(item_features) else of_items


@contextmanager
def seeded_rng(seed: int, *address: str | int) -> Iterator[None]:
    """Seed torch's CPU generator from (seed, address) inside the context, for layer initialization.

    It is restored afterwards; generators of other devices, which `torch.manual_seed` would reseed, are not touched.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(spawn(seed, *address).initial_seed())
        yield


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose keys start with `prefix`, keyed without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
