"""A logistic regression: one weight a value of each field, and a bias an item."""

from collections.abc import Sequence
from typing import Literal

import torch

from newcomer.items.encoding.encoder import Values
from newcomer.items.networks.item_network import ItemFeatures, ItemNetwork, State
from newcomer.nn.ctr.field_embeddings import FieldSize
from newcomer.shapes import Float, Int, Tensor
from newcomer.training.fit import freeze

LinearFields = Literal["none", "user", "all"]


class LinearNetwork(ItemNetwork):
    """Logit of a row: the item's bias, which begins at `start`, plus the weights of its values. Embeddings have width 1.

    `used`: of which fields: of 'none', of the 'user' id, or of 'all'. Its parameters are found by `items.training.linear_fit`, not
    by gradient steps on batches.
    """

    def __init__(
        self, item_sizes: Sequence[FieldSize], row_sizes: Sequence[FieldSize], used: LinearFields, item_std: float
    ) -> None:
        super().__init__(item_sizes, row_sizes, width=1, init_std=item_std, generate_init=False)
        self.used_item_fields = range(len(item_sizes)) if used == "all" else range(0)
        self.used_row_fields = range({"none": 0, "user": 1, "all": len(row_sizes)}[used])  # the user's id is the first
        for table in (*self.item_fields.tables, *self.row_fields.tables):
            torch.nn.init.zeros_(table)
        freeze(self)

    def add_scales(self, begin: float) -> None:
        super().add_scales(begin)
        freeze(self.scales)

    def tuned_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"bias": (1,)}

    def initial_state(self, item_features: ItemFeatures, items: int) -> State:
        return {"bias": self.start[-1:].expand(items, 1)}

    def forward(self, state: State, item_features: ItemFeatures, rows: Values) -> Float[Tensor, "item row"]:
        items = len(state["bias"])
        of_items = state["bias"] + self.item_logits(item_features, items)[:, None]
        return of_items + self.row_logits(rows, items).view(items, -1)

    def forward_rows(
        self, state: State, item_features: ItemFeatures, of: Int[Tensor, " row"], rows: Values
    ) -> Float[Tensor, " row"]:
        of_items = state["bias"][:, 0] + self.item_logits(item_features, len(state["bias"]))
        return of_items[of] + self.row_logits(rows, len(of))

    def item_logits(self, item_features: ItemFeatures, items: int) -> Float[Tensor, " item"]:
        """Sum of the weights of the items' own values."""
        if not self.used_item_fields:
            return self.start.new_zeros(items)
        return self.embed_items(item_features)[..., 0].sum(dim=1)  # all fields are used

    def row_logits(self, rows: Values, count: int) -> Float[Tensor, " row"]:
        """Sum of the weights of user and context."""
        zeros = self.start.new_zeros(len(rows[0]) if rows else count)
        return sum((self.row_fields.vectors(field, rows[field])[:, 0] for field in self.used_row_fields), start=zeros)
