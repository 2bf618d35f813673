"""A text field read by a frozen encoder: one vector a text, instead of the set of its words."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.data.click_log import Column
from newcomer.data.running_stats import Spread
from newcomer.data.vocabulary import VectorScale
from newcomer.errors import DataError, StoreError
from newcomer.settings import Json
from newcomer.store.folder import differing
from newcomer.training.processes import pick_device

if TYPE_CHECKING:
    from newcomer.backbones.backbone import Backbone

_LOADED: dict[str, "Backbone"] = {}
MOST_LOADED = 3
"""Encoders that stay in memory, each under its name and under what a store says of it."""

BATCH = 64
"""Texts that are encoded at once, those of like length together."""


@dataclass(frozen=True)
class Sentences:
    """The texts of one field as the features of a backbone, which is named with what tells it from others and not kept.

    The backbone is loaded when there is a text to read, so that known items are scored without it.
    """

    scale: VectorScale
    encoder: str
    fingerprint: str
    identity: Mapping[str, Json] | None = None
    """All that the features depend on (`Backbone.identity`); None in what was learned when only weights were told apart."""

    @classmethod
    def fit(cls, field: str, column: Column, encoder: str, times: NDArray[np.int64] | None = None) -> Self:
        """The column's rows stand for so many `times`, or for one each.

        Raises DataError for an encoder that cannot be loaded, or reads pictures.
        """
        backbone = _loaded(encoder)
        scale = VectorScale.of(field, Spread.of(_vectors(column, backbone).values, times))
        return cls(scale, encoder, backbone.fingerprint, backbone.identity())

    def __len__(self) -> int:
        """Numbers in a vector."""
        return len(self.scale)

    def encode(self, column: Column) -> NDArray[np.float32]:
        """A row a value of the column; NaN where there is none.

        Raises StoreError where the encoder is another than the one that was learned with.
        """
        if not (column.values >= 0).any():
            return np.full((len(column.values), len(self)), np.nan, dtype=np.float32)
        found = _loaded(self.encoder, self._named())
        if found.fingerprint != self.fingerprint:
            raise StoreError(
                f"column '{self.scale.field}': encoder '{self.encoder}' has the fingerprint {found.fingerprint}, but the model "
                f"learned with {self.fingerprint}; put that encoder in its place, or teach a new model"
            )
        for key, (was, now) in differing({"encoder": self._named()}, {"encoder": found.identity()}).items():
            raise StoreError(
                f"column '{self.scale.field}': encoder '{self.encoder}' has changed: {key} was {was!r}, is {now!r}; "
                "put the encoder that was learned with in its place, or teach a new model"
            )
        return self.scale.encode(_vectors(column, found))

    def _named(self) -> Mapping[str, Json]:
        return self.identity or {"name": self.encoder, "fingerprint": self.fingerprint}

    def to_json(self) -> dict[str, Json]:
        said = {"encoder": self.encoder, "fingerprint": self.fingerprint}
        return self.scale.to_json() | said | ({"identity": dict(self.identity)} if self.identity else {})

    @classmethod
    def from_json(cls, table: Mapping[str, Json]) -> Self:
        return cls(VectorScale.from_json(table), table["encoder"], table["fingerprint"], table.get("identity"))


def _loaded(name: str, identity: Mapping[str, Json] | None = None) -> "Backbone":
    """The backbone of this name as it is now, or the one that a store names by its identity; the last few stay loaded."""
    from newcomer.backbones.backbone import Backbone  # whoever has no text field does not load transformers
    from newcomer.backbones.reopening import reopened

    key = json.dumps(identity, sort_keys=True) if identity else name
    if key not in _LOADED:
        backbone = reopened(identity) if identity else Backbone(name)
        if backbone.pictures:
            raise DataError(f"encoder '{name}' reads pictures; give one that reads texts")
        while len(_LOADED) > MOST_LOADED:
            _LOADED.pop(next(iter(_LOADED)), None)
        _LOADED[key] = _LOADED[json.dumps(backbone.identity(), sort_keys=True)] = backbone.to(pick_device(None))
    return _LOADED[key]


def _vectors(column: Column, encoder: "Backbone") -> Column:
    """The features of the column's texts; each that occurs is encoded once."""
    used = np.unique(column.values[column.values >= 0])
    features = _features(tuple(column.names[name] for name in used), encoder)
    vectors = np.full((len(column.values), features.shape[1]), np.nan, dtype=np.float32)
    known = column.values >= 0
    vectors[known] = features[np.searchsorted(used, column.values[known])]
    return Column.of_vectors(vectors)


@lru_cache(maxsize=1)  # what a coding was fitted on is what is encoded next
def _features(texts: tuple[str, ...], backbone: "Backbone") -> NDArray[np.float32]:
    order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
    features = np.empty((len(texts), backbone.width), dtype=np.float32)
    with torch.inference_mode():
        for begin in range(0, len(order), BATCH):
            batch = order[begin : begin + BATCH]
            features[batch] = backbone(backbone.encode([texts[n] for n in batch])).cpu().numpy()
    return features
