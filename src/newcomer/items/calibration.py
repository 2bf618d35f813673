"""Calibration of click probabilities by an item's number of events: beta calibration whose parameters depend on it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from newcomer.settings import Json

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Logit z of an item with n events → offset(n) + scale(n) · (z − u) + upper_scale(n) · u + shift, u = log(1 + eᶻ) − log 2.

    Beta calibration (Kull et al. 2017): unlikely clicks, z far below 0, are scaled by `scale`, likely ones by `upper_scale`; where
    both are equal it is Platt scaling (Platt 1999), scale · z + offset. None for `upper_scale`: they are.

    At n in `events` the parameters are given. Between these they are linear in log(1 + n); beyond the last one they approach
    1 and 0 as 1 / (1 + n), because an item's own events then tell what the model missed. Scales are positive, so that the order of
    scores of items with equally many events is kept. `shift`: log of the share of negatives that the log has, which the logits of a
    model that was trained on it lack (King & Zeng 2001; He et al. 2014, eq. 4).

    >>> Calibration((0, 3), scale=(0.5, 1.0), offset=(-0.4, -0.2))([2.0, 2.0, 2.0, 2.0], [0, 1, 3, 7]).tolist()
    [0.6, 1.2, 1.8, 1.9]
    >>> Calibration(scale=(1.0,), upper_scale=(0.5,))([-20.0, 0.0, 20.0], [0, 0, 0]).round(1).tolist()
    [-19.7, 0.0, 10.3]

    Raises ValueError for numbers that are no calibration.
    """

    events: tuple[int, ...] = (0,)
    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    upper_scale: tuple[float, ...] | None = None
    shift: float = 0.0

    def __post_init__(self) -> None:
        numbers = np.array([*self.scale, *self.upper, *self.offset, self.shift])
        increasing = self.events[:1] == (0,) and all(np.diff(self.events) > 0)
        fits = len(self.events) == len(self.scale) == len(self.upper) == len(self.offset)
        if not (increasing and fits and np.isfinite(numbers).all() and min(*self.scale, *self.upper) > 0):
            raise ValueError(f"no calibration: {self}")

    @property
    def upper(self) -> tuple[float, ...]:
        """Scales of likely clicks."""
        return self.scale if self.upper_scale is None else self.upper_scale

    def __call__(self, logits: ArrayLike, events: ArrayLike) -> _Floats:
        """Calibrated logits; `events`: the item's number of events, row by row."""
        logit, bend = np.asarray(logits, dtype=np.float64), self._bend(events)
        found: _Floats = self._at(events, self.scale, 1.0) * logit + self._at(events, self.offset, 0.0) + self.shift
        return found + bend * (np.logaddexp(0, logit) - math.log(2)) if np.any(bend) else found

    def slope(self, logits: ArrayLike, events: ArrayLike) -> _Floats:
        """Derivative by the logit: the factor on small differences of logits, and so on their stds."""
        p = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
        found: _Floats = self._at(events, self.scale, 1.0) + self._bend(events) * p
        return found

    def parameters(self, events: int) -> tuple[float, float, float]:
        """Offset, scale and upper scale at this number of events."""
        offset, scale, upper = (
            self._at(events, *of) for of in ((self.offset, 0.0), (self.scale, 1.0), (self.upper, 1.0))
        )
        return float(offset), float(scale), float(upper)

    def _bend(self, events: ArrayLike) -> _Floats:
        """How much larger the scale of likely clicks is."""
        return self._at(events, tuple(np.subtract(self.upper, self.scale).tolist()), 0.0)

    def _at(self, events: ArrayLike, values: tuple[float, ...], limit: float) -> _Floats:
        after, last = 1.0 + np.asarray(events, dtype=np.float64), 1.0 + self.events[-1]
        between = np.interp(np.log(after), np.log1p(self.events), values)
        found: _Floats = limit + (between - limit) * np.minimum(last / after, 1.0)
        return found

    def to_json(self) -> dict[str, Json]:
        """What was fitted; the shift is a setting."""
        found: dict[str, Json] = {"events": list(self.events), "scale": list(self.scale), "offset": list(self.offset)}
        return found if self.upper_scale is None else {**found, "upper_scale": list(self.upper_scale)}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        upper = given.get("upper_scale")
        return cls(
            tuple(given["events"]),
            tuple(given["scale"]),
            tuple(given["offset"]),
            None if upper is None else tuple(upper),
        )
