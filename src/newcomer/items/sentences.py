"""A text field read by a frozen encoder: one vector a text, instead of the set of its words."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.data.log import Column
from newcomer.data.spread import Spread
from newcomer.data.vocabulary import VectorScale
from newcomer.errors import DataError, StoreError
from newcomer.settings import Json
from newcomer.training.processes import pick_device

if TYPE_CHECKING:
    from newcomer.backbones.backbone import Backbone

BATCH = 64
"""Texts that are encoded at once, those of like length together."""


@dataclass(frozen=True)
class Sentences:
    """The texts of one field as the features of a backbone, which is named with a fingerprint and not kept.

    The backbone is loaded when there is a text to read, so that known items are scored without it.
    """

    scale: VectorScale
    encoder: str
    fingerprint: str

    @classmethod
    def fit(cls, field: str, column: Column, encoder: str, times: NDArray[np.int64] | None = None) -> Self:
        """The column's rows stand for so many `times`, or for one each.

        Raises DataError for an encoder that cannot be loaded, or reads pictures.
        """
        scale = VectorScale.of(field, Spread.of(_vectors(column, encoder).values, times))
        return cls(scale, encoder, _loaded(encoder).fingerprint)

    def __len__(self) -> int:
        """Numbers in a vector."""
        return len(self.scale)

    def encode(self, column: Column) -> NDArray[np.float32]:
        """A row a value of the column; NaN where there is none.

        Raises StoreError where the encoder is another than the one that was learned with.
        """
        if not (column.values >= 0).any():
            return np.full((len(column.values), len(self)), np.nan, dtype=np.float32)
        if (found := _loaded(self.encoder).fingerprint) != self.fingerprint:
            raise StoreError(
                f"column '{self.scale.field}': encoder '{self.encoder}' has the fingerprint {found}, but the model learned with "
                f"{self.fingerprint}; put that encoder in its place, or teach a new model"
            )
        return self.scale.encode(_vectors(column, self.encoder))

    def to_json(self) -> dict[str, Json]:
        return self.scale.to_json() | {"encoder": self.encoder, "fingerprint": self.fingerprint}

    @classmethod
    def from_json(cls, table: Mapping[str, Json]) -> Self:
        return cls(VectorScale.from_json(table), table["encoder"], table["fingerprint"])


@lru_cache(maxsize=2)
def _loaded(name: str) -> "Backbone":
    from newcomer.backbones.backbone import Backbone  # whoever has no text field does not load transformers

    backbone = Backbone(name)
    if backbone.pictures:
        raise DataError(f"encoder '{name}' reads pictures; give one that reads texts")
    return backbone.to(pick_device(None))


def _vectors(column: Column, encoder: str) -> Column:
    """The features of the column's texts; each that occurs is encoded once."""
    used = np.unique(column.values[column.values >= 0])
    features = _features(tuple(column.names[name] for name in used), encoder)
    vectors = np.full((len(column.values), features.shape[1]), np.nan, dtype=np.float32)
    known = column.values >= 0
    vectors[known] = features[np.searchsorted(used, column.values[known])]
    return Column.of_vectors(vectors)


@lru_cache(maxsize=1)  # what a coding was fitted on is what is encoded next
def _features(texts: tuple[str, ...], encoder: str) -> NDArray[np.float32]:
    backbone = _loaded(encoder)
    order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
    features = np.empty((len(texts), backbone.width), dtype=np.float32)
    with torch.inference_mode():
        for begin in range(0, len(order), BATCH):
            batch = order[begin : begin + BATCH]
            features[batch] = backbone(backbone.encode([texts[n] for n in batch])).cpu().numpy()
    return features
