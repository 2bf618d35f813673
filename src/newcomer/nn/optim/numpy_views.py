"""Looking at a module's weights from numpy, where they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from newcomer.shapes import Tensor

Array = NDArray[np.float32]


def view(weights: Tensor) -> Array:
    """The same numbers in the same memory; of a float32 tensor on the CPU."""
    found: Array = weights.detach().numpy()
    return found


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Which parts and parameters a module had, and where in memory these were: as long as that holds, so do views of them.

    >>> layer = nn.Linear(1, 1)
    >>> then = Whereabouts.of(layer)
    >>> _ = layer.weight.data.fill_(2)
    >>> then.hold()
    True
    >>> layer.weight = nn.Parameter(layer.weight.detach().clone())
    >>> then.hold()
    False
    """

    things: tuple[tuple[Mapping[str, Any], str, Any], ...]
    places: tuple[tuple[Tensor, int], ...]

    @classmethod
    def of(cls, module: nn.Module) -> "Whereabouts":
        tables: list[Mapping[str, Any]] = [
            table for part in module.modules() for table in (part._modules, part._parameters)
        ]
        things = tuple((table, name, thing) for table in tables for name, thing in table.items())
        return cls(things, tuple((parameter, parameter.data_ptr()) for parameter in module.parameters()))

    def hold(self) -> bool:
        stay = all(parameter.data_ptr() == place for parameter, place in self.places)
        return stay and all(table.get(name) is thing for table, name, thing in self.things)
