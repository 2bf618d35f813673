"""What networks of this family share: shared weights, and of every item a small state of its own."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from newcomer.items.encoding import Values
from newcomer.nn.field_embeddings import FieldEmbeddings
from newcomer.seeds import spawn
from newcomer.shapes import Float, Tensor

State = Mapping[str, Tensor]
"""What items have of their own, by name: Float[item …]. Only this is adapted when they warm up."""


class ItemNetwork(nn.Module, ABC):
    """Shared embeddings of all fields but the item's id; `id_start` is the embedding of the id of an item nobody has clicked yet.

    Fields stand in the order of the schema's nodes: the item's id, its fields, the user's id and fields, the context's.
    """

    def __init__(self, item_sizes: Sequence[int], row_sizes: Sequence[int], width: int, deviation: float) -> None:
        super().__init__()
        self.fields, self.width, self.deviation = 1 + len(item_sizes) + len(row_sizes), width, deviation
        self.item_fields = FieldEmbeddings(item_sizes, width, deviation)
        self.row_fields = FieldEmbeddings(row_sizes, width, deviation)
        self.id_start = nn.Parameter(torch.zeros(width))

    @abstractmethod
    def begin(self, own: Values, items: int) -> State:
        """The states of so many items of which only the fields are known, as functions of the shared weights."""

    @abstractmethod
    def forward(self, state: State, own: Values, rows: Values) -> Float[Tensor, "item row"]:
        """Logits. `own`: the items' fields, one thing an item; `rows`: the rows', those of the first item first."""

    @abstractmethod
    def pooled(self, ids: Float[Tensor, "row width"], own: Values, rows: Values) -> Float[Tensor, " row"]:
        """Logits of rows about any items, with nothing of an item's own but its id's embedding: how pre-training sees them."""

    def vectors(
        self, ids: Float[Tensor, "item width"], own: Values, rows: Values
    ) -> Float[Tensor, "item field row width"]:
        """H⁰: one vector a field, the item's repeated for all its rows."""
        of_items = torch.cat([ids[None], self.item_fields(own)]) if own else ids[None]
        of_rows = self.row_fields(rows)
        of_rows = of_rows.view(len(of_rows), len(ids), -1, self.width).transpose(0, 1)
        return torch.cat([of_items.transpose(0, 1)[:, :, None].expand(-1, -1, of_rows.shape[2], -1), of_rows], dim=1)


@contextmanager
def chance(seed: int, *address: str | int) -> Iterator[None]:
    """Within, torch's own source of chance starts from this address, so that layers start there; outside it goes on unmoved."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spawn(seed, *address).initial_seed())
        yield


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin so, by the rest of their names."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
