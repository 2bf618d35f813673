"""The prompt pool of L2P (Wang et al., CVPR 2022, section 4): prompts that are found by their keys.

A query is a frozen feature. It is given the prompts of the N keys with the highest cosine, one after the other, the nearest
first. Keys learn from Σ (1 − cos) over the chosen ones, which draws them to the queries that chose them.
"""

import torch
from torch import nn
from torch.nn import functional as F

from newcomer.shapes import Float, Int, Tensor

START = 0.01
"""Keys and prompts start uniform between 0 and this, as the authors' code draws them."""


class PromptPool(nn.Module):
    """So many prompts of so many rows, each with a key; `draw` gives them their start."""

    def __init__(self, size: int, rows: int, width_query: int, width: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.zeros(size, width_query))
        self.prompts = nn.Parameter(torch.zeros(size, rows, width))

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Start anew."""
        for part in (self.keys, self.prompts):
            part.copy_(drawn(part.shape, generator))

    def choose(self, query: Float[Tensor, "batch width_query"], count: int) -> Int[Tensor, "batch chosen"]:
        """The prompts with the nearest keys, the nearest first."""
        return cosines(query, self.keys).topk(count, dim=1).indices

    def forward(
        self, query: Float[Tensor, "batch width_query"], count: int
    ) -> tuple[Float[Tensor, "batch row width"], Float[Tensor, " batch"]]:
        """The rows of the `count` prompts chosen, and how far their keys are, Σ (1 − cos)."""
        chosen = self.choose(query, count)
        distance = (1 - cosines(query, self.keys).gather(1, chosen)).sum(1)
        return self.prompts[chosen].flatten(1, 2), distance


def cosines(
    query: Float[Tensor, "batch width_query"], keys: Float[Tensor, "prompt width_query"]
) -> Float[Tensor, "batch prompt"]:
    """The cosine of every query with every key.

    >>> cosines(torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    tensor([[1., 0.]])
    """
    return F.normalize(query, dim=1) @ F.normalize(keys, dim=1).T


def drawn(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Uniform between 0 and `START`, on the CPU."""
    return torch.rand(shape, generator=generator) * START
