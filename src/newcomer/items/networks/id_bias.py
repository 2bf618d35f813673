"""An item's id embedding and bias as one vector, and initializers of modules added to a pre-trained network."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from newcomer.items.networks.item_network import State, seeded_rng
from newcomer.shapes import Float, Tensor


def pack(state: State) -> Float[Tensor, "item number"]:
    """State → id embedding and bias, concatenated."""
    return torch.cat([state["id"], state["bias"]], dim=1)


def unpack(vector: Float[Tensor, "item number"]) -> dict[str, Tensor]:
    """Inverse of `pack`."""
    return {"id": vector[:, :-1], "bias": vector[:, -1:]}


def zero_init(layer: nn.Linear) -> nn.Linear:
    """Zero-initialize the layer, so that it adds nothing before training."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


@contextmanager
def isolated_rng() -> Iterator[None]:
    """Initialize extra layers from a separate random stream, so that the rest is initialized as without them."""
    with seeded_rng(torch.initial_seed(), "beside"):
        yield
