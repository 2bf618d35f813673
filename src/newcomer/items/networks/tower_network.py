"""DeepFM, DCN-V2 or AutoInt as click model; an item's state is its id embedding and bias."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from newcomer.items.encoding.encoder import Values
from newcomer.items.networks.item_network import ItemFeatures, ItemNetwork, State
from newcomer.nn.ctr.autoint import AutoInt
from newcomer.nn.ctr.dcn_v2 import DCNv2
from newcomer.nn.ctr.deepfm import DeepFM
from newcomer.nn.ctr.field_embeddings import FieldSize
from newcomer.nn.optim.analytic_gradients import RowGradient, TowerGradient
from newcomer.shapes import Float, Int, Tensor
from newcomer.training.settings import Rate, Width

Tower = Literal["deepfm", "dcn-v2", "autoint"]

TOWERS: dict[Tower, type[nn.Module]] = {
    "deepfm": DeepFM,
    "dcn-v2": DCNv2,
    "autoint": AutoInt,
}


@dataclass(frozen=True)
class TowerConfig:
    """A click model over all fields.

    - `backbone`: 'deepfm', 'dcn-v2' or 'autoint'.
    - `width`: of the embeddings; `hidden`: of the MLP's layers; `init_std`: of the embeddings at initialization.
    """

    backbone: Tower = "deepfm"
    width: Width = 16
    hidden: tuple[Width, ...] = (128, 64)
    init_std: Rate = 0.01


class TowerNetwork(ItemNetwork):
    """One of `TOWERS` over all field embeddings, plus the item's bias."""

    def __init__(
        self,
        item_sizes: Sequence[FieldSize],
        row_sizes: Sequence[FieldSize],
        config: TowerConfig = TowerConfig(),
        generate_init: bool = False,
    ) -> None:
        super().__init__(item_sizes, row_sizes, config.width, config.init_std, generate_init)
        self.tower = TOWERS[config.backbone](self.fields, config.width, config.hidden)

    def initial_state(self, item_features: ItemFeatures, items: int) -> State:
        return self.initial_id_and_bias(item_features, items)

    @property
    def item_embedding_width(self) -> int:
        """Length of an item's vector from `item_embeddings`."""
        return max(len(self.item_fields.sizes), 1) * self.width

    def item_embeddings(self, item_features: ItemFeatures, items: int) -> Float[Tensor, "item input"]:
        """Concatenated embeddings of the items' fields; zeros if items have no fields."""
        if not len(item_features):
            return self.start.new_zeros(items, self.item_embedding_width)
        embeddings: Tensor = self.embed_items(item_features).flatten(1)
        return embeddings

    def warm_id_and_bias(self, state: State, item_features: ItemFeatures) -> State:
        """The id and bias that the tower uses; MWUF transforms them."""
        return state

    def forward(self, state: State, item_features: ItemFeatures, rows: Values) -> Float[Tensor, "item row"]:
        id_and_bias = self.warm_id_and_bias(state, item_features)
        return self.tower(self.embed(id_and_bias["id"], item_features, rows)) + id_and_bias["bias"]  # type: ignore[no-any-return]

    def row_gradient(self) -> RowGradient | None:
        if not self.has_views or not isinstance(self.tower, DeepFM):
            return None
        return RowGradient(None, TowerGradient.of(self.tower))

    def forward_rows(
        self, state: State, item_features: ItemFeatures, of: Int[Tensor, " row"], rows: Values
    ) -> Float[Tensor, " row"]:
        id_and_bias = self.warm_id_and_bias(state, item_features)
        vectors = self.embed_rows(id_and_bias["id"], item_features, of, rows)
        return self.tower(vectors[:, :, None])[:, 0] + id_and_bias["bias"][of, 0]  # type: ignore[no-any-return]
