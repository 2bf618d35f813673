"""Text fields encoded by a frozen text encoder: one vector per text."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray

from newcomer.data.click_log import Column
from newcomer.data.running_stats import RunningStats
from newcomer.data.vocabulary import VectorScaler
from newcomer.errors import DataError, StoreError
from newcomer.settings import Json
from newcomer.store.folder import differing
from newcomer.training.processes import pick_device

if TYPE_CHECKING:
    from newcomer.backbones.backbone import Backbone

_LOADED: dict[str, "Backbone"] = {}
MOST_LOADED = 3
"""Maximum number of cached encoders; each is cached by name and by identity."""

BATCH = 64
"""Texts per batch, sorted by length."""


@dataclass(frozen=True)
class TextEncoder:
    """Features of a field's texts from a backbone, which is stored by name and fingerprint, not by weights.

    The backbone is loaded when there is a text to encode, so that known items are scored without it.
    """

    scale: VectorScaler
    encoder: str
    fingerprint: str
    identity: Mapping[str, Json] | None = None
    """All that the features depend on (`Backbone.identity`); None in older stores, which have the fingerprint alone."""

    @classmethod
    def fit(cls, field: str, column: Column, encoder: str, times: NDArray[np.int64] | None = None) -> Self:
        """Fit the scale of the features; `times`: weight of each row, 1 by default.

        Raises DataError for an encoder that cannot be loaded, or that encodes images.
        """
        backbone = _loaded(encoder)
        scale = VectorScaler.of(field, RunningStats.of(_vectors(column, backbone).values, times))
        return cls(scale, encoder, backbone.fingerprint, backbone.identity())

    def __len__(self) -> int:
        """Dimension of the vectors."""
        return len(self.scale)

    def encode(self, column: Column) -> NDArray[np.float32]:
        """One row per value of the column; NaN for missing texts.

        Raises StoreError if the encoder differs from the one used in training.
        """
        if not (column.values >= 0).any():
            return np.full((len(column.values), len(self)), np.nan, dtype=np.float32)
        backbone = _loaded(self.encoder, self._identity())
        if backbone.fingerprint != self.fingerprint:
            raise StoreError(
                f"column '{self.scale.field}': encoder '{self.encoder}' has the fingerprint {backbone.fingerprint}, but the model "
                f"learned with {self.fingerprint}; put that encoder in its place, or train a new model"
            )
        for key, (was, now) in differing({"encoder": self._identity()}, {"encoder": backbone.identity()}).items():
            raise StoreError(
                f"column '{self.scale.field}': encoder '{self.encoder}' has changed: {key} was {was!r}, is {now!r}; "
                "put the encoder that was learned with in its place, or train a new model"
            )
        return self.scale.encode(_vectors(column, backbone))

    def _identity(self) -> Mapping[str, Json]:
        return self.identity or {"name": self.encoder, "fingerprint": self.fingerprint}

    def to_json(self) -> dict[str, Json]:
        info = {"encoder": self.encoder, "fingerprint": self.fingerprint}
        return self.scale.to_json() | info | ({"identity": dict(self.identity)} if self.identity else {})

    @classmethod
    def from_json(cls, table: Mapping[str, Json]) -> Self:
        return cls(VectorScaler.from_json(table), table["encoder"], table["fingerprint"], table.get("identity"))


def _loaded(name: str, identity: Mapping[str, Json] | None = None) -> "Backbone":
    """The backbone of this name, or the one that a store identifies; the last `MOST_LOADED` are cached."""
    from newcomer.backbones.backbone import Backbone  # whoever has no text field does not load transformers
    from newcomer.backbones.reloading import reload_backbone

    key = json.dumps(identity, sort_keys=True) if identity else name
    if key not in _LOADED:
        backbone = reload_backbone(identity) if identity else Backbone(name)
        if backbone.reads_images:
            raise DataError(f"encoder '{name}' reads images; give one that reads texts")
        while len(_LOADED) > MOST_LOADED:
            _LOADED.pop(next(iter(_LOADED)), None)
        _LOADED[key] = _LOADED[json.dumps(backbone.identity(), sort_keys=True)] = backbone.to(pick_device(None))
    return _LOADED[key]


def _vectors(column: Column, encoder: "Backbone") -> Column:
    """Features of the column's texts; each distinct text is encoded once."""
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
