"""What is an item's alone, its id's embedding and its bias, as one vector: what methods write, scale and encode."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from newcomer.items.networks.item_network import State, chance
from newcomer.shapes import Float, Tensor


def vector_of(state: State) -> Float[Tensor, "item number"]:
    """The id's embedding, then the bias."""
    return torch.cat([state["id"], state["bias"]], dim=1)


def state_of(vector: Float[Tensor, "item number"]) -> dict[str, Tensor]:
    """The state of which `vector_of` makes this."""
    return {"id": vector[:, :-1], "bias": vector[:, -1:]}


def silent(layer: nn.Linear) -> nn.Linear:
    """The layer, with weights and bias of zero: what it is added to stays as it is until something was learned."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


@contextmanager
def beside() -> Iterator[None]:
    """Within, layers start from a chance of their own, so that a model with them starts, and is pre-trained, as one without."""
    with chance(torch.initial_seed(), "beside"):
        yield
