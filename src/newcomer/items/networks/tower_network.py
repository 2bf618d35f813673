"""A click model over all fields side by side, in which an item's own are its id's embedding and a bias."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from newcomer.items.encoding.encoder import Values
from newcomer.items.networks.item_network import ItemNetwork, State
from newcomer.nn.ctr.autoint import AttentiveInteractions
from newcomer.nn.ctr.dcn_v2 import CrossNetwork
from newcomer.nn.ctr.deepfm import DeepFactorisation
from newcomer.nn.ctr.field_embeddings import FieldSize
from newcomer.nn.optim.analytic_gradients import RowSlopes, TowerSlopes
from newcomer.shapes import Float, Int, Tensor

Tower = Literal["deepfm", "dcn-v2", "autoint"]

TOWERS: dict[Tower, type[nn.Module]] = {
    "deepfm": DeepFactorisation,
    "dcn-v2": CrossNetwork,
    "autoint": AttentiveInteractions,
}


class TowerNetwork(ItemNetwork):
    """One of `TOWERS` reads the vectors of all fields; the item's bias is added."""

    def __init__(
        self,
        item_sizes: Sequence[FieldSize],
        row_sizes: Sequence[FieldSize],
        width: int,
        hidden: Sequence[int],
        deviation: float,
        writes_start: bool = False,
        backbone: Tower = "deepfm",
    ) -> None:
        super().__init__(item_sizes, row_sizes, width, deviation, writes_start)
        self.tower = TOWERS[backbone](self.fields, width, hidden)

    def begin(self, own: Values, items: int) -> State:
        return self.named(own, items)

    @property
    def inputs(self) -> int:
        """How many numbers `characteristics` gives of an item."""
        return max(len(self.item_fields.sizes), 1) * self.width

    def characteristics(self, own: Values, items: int) -> Float[Tensor, "item input"]:
        """The embeddings of an item's own fields, one after the other; zeros where it has none."""
        if not own:
            return self.start.new_zeros(items, self.inputs)
        found: Tensor = self.item_fields(own).transpose(0, 1).flatten(1)
        return found

    def warmed(self, state: State, own: Values) -> State:
        """Id and bias as the tower gets to see them."""
        return state

    def forward(self, state: State, own: Values, rows: Values) -> Float[Tensor, "item row"]:
        seen = self.warmed(state, own)
        return self.tower(self.vectors(seen["id"], own, rows)) + seen["bias"]  # type: ignore[no-any-return]

    def row_slopes(self) -> RowSlopes | None:
        if not self.has_views or not isinstance(self.tower, DeepFactorisation):
            return None
        return RowSlopes(None, TowerSlopes.of(self.tower))

    def pooled(self, state: State, own: Values, of: Int[Tensor, " row"], rows: Values) -> Float[Tensor, " row"]:
        seen = self.warmed(state, own)
        vectors = self.mixed_vectors(seen["id"], own, of, rows)
        return self.tower(vectors[None])[0] + seen["bias"][of, 0]  # type: ignore[no-any-return]
