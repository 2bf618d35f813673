"""Calibration of click probabilities by an item's number of events: Platt scaling whose scale and offset depend on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from newcomer.settings import Json

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Logit z of an item with n events → scale(n) · z + offset(n) + shift. Platt 1999, with parameters by number of events.

    At n in `events` scale and offset are given. Between these they are linear in log(1 + n); beyond the last one they approach
    1 and 0 as 1 / (1 + n), because an item's own events then tell what the model missed. `scale` is positive, so that the order of
    scores of items with equally many events is kept. `shift`: log of the share of negatives that the log has, which the logits of a
    model that was trained on it lack (King & Zeng 2001; He et al. 2014, eq. 4).

    >>> Calibration((0, 3), scale=(0.5, 1.0), offset=(-0.4, -0.2))([2.0, 2.0, 2.0, 2.0], [0, 1, 3, 7]).tolist()
    [0.6, 1.2, 1.8, 1.9]

    Raises ValueError for numbers that are no calibration.
    """

    events: tuple[int, ...] = (0,)
    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    shift: float = 0.0

    def __post_init__(self) -> None:
        numbers = np.array([*self.scale, *self.offset, self.shift])
        increasing = self.events[:1] == (0,) and all(np.diff(self.events) > 0)
        fits = len(self.events) == len(self.scale) == len(self.offset)
        if not (increasing and fits and np.isfinite(numbers).all() and min(self.scale) > 0):
            raise ValueError(f"no calibration: {self}")

    def __call__(self, logits: ArrayLike, events: ArrayLike) -> _Floats:
        """Calibrated logits; `events`: the item's number of events, row by row."""
        scaled: _Floats = self.scale_at(events) * np.asarray(logits) + self._at(events, self.offset, 0.0) + self.shift
        return scaled

    def scale_at(self, events: ArrayLike) -> _Floats:
        """Factor on differences of logits, and so on their stds."""
        return self._at(events, self.scale, 1.0)

    def _at(self, events: ArrayLike, values: tuple[float, ...], limit: float) -> _Floats:
        after, last = 1.0 + np.asarray(events, dtype=np.float64), 1.0 + self.events[-1]
        between = np.interp(np.log(after), np.log1p(self.events), values)
        found: _Floats = limit + (between - limit) * np.minimum(last / after, 1.0)
        return found

    def to_json(self) -> dict[str, Json]:
        """What was fitted; the shift is a setting."""
        return {"events": list(self.events), "scale": list(self.scale), "offset": list(self.offset)}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        return cls(tuple(given["events"]), tuple(given["scale"]), tuple(given["offset"]))
