"""numpy views of a module's weights, without copies."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from newcomer.shapes import Tensor

Array = NDArray[np.float32]


def view(weights: Tensor) -> Array:
    """A float32 CPU tensor as a numpy array on the same memory."""
    found: Array = weights.detach().numpy()
    return found


@dataclass(frozen=True, slots=True)
class ModuleViews:
    """Submodules, parameters and their addresses at some time: while `valid`, numpy views of the parameters are valid.

    >>> layer = nn.Linear(1, 1)
    >>> then = ModuleViews.of(layer)
    >>> _ = layer.weight.data.fill_(2)
    >>> then.valid()
    True
    >>> layer.weight = nn.Parameter(layer.weight.detach().clone())
    >>> then.valid()
    False
    """

    members: tuple[tuple[Mapping[str, Any], str, Any], ...]
    addresses: tuple[tuple[Tensor, int], ...]

    @classmethod
    def of(cls, module: nn.Module) -> "ModuleViews":
        tables: list[Mapping[str, Any]] = [
            table for part in module.modules() for table in (part._modules, part._parameters)
        ]
        members = tuple((table, name, member) for table in tables for name, member in table.items())
        return cls(members, tuple((parameter, parameter.data_ptr()) for parameter in module.parameters()))

    def valid(self) -> bool:
        unmoved = all(parameter.data_ptr() == address for parameter, address in self.addresses)
        return unmoved and all(table.get(name) is member for table, name, member in self.members)
