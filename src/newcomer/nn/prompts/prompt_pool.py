"""Prompt pool of L2P (Wang et al., CVPR 2022, section 4): prompts selected by their keys.

A query is a frozen feature. It gets the prompts of the N keys with the highest cosine similarity, concatenated, the nearest first.
Keys are trained by Σ (1 − cos) over the selected ones.
"""

import torch
from torch import nn
from torch.nn import functional as F

from newcomer.shapes import Float, Int, Tensor

START = 0.01
"""Keys and prompts are initialized uniformly in [0, this], as in the authors' code."""


class PromptPool(nn.Module):
    """`size` prompts of `rows` rows, each with a key; `draw` initializes them."""

    def __init__(self, size: int, rows: int, width_query: int, width: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.zeros(size, width_query))
        self.prompts = nn.Parameter(torch.zeros(size, rows, width))

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Initialize keys and prompts."""
        for part in (self.keys, self.prompts):
            part.copy_(random_init(part.shape, generator))

    def choose(self, query: Float[Tensor, "batch width_query"], count: int) -> Int[Tensor, "batch selected"]:
        """Indices of the prompts with the nearest keys, the nearest first."""
        return cosines(query, self.keys).topk(count, dim=1).indices

    def forward(
        self, query: Float[Tensor, "batch width_query"], count: int
    ) -> tuple[Float[Tensor, "batch row width"], Float[Tensor, " batch"]]:
        """Rows of the `count` selected prompts, and their key distance Σ (1 − cos)."""
        selected = self.choose(query, count)
        distance = (1 - cosines(query, self.keys).gather(1, selected)).sum(1)
        return self.prompts[selected].flatten(1, 2), distance


def cosines(
    query: Float[Tensor, "batch width_query"], keys: Float[Tensor, "prompt width_query"]
) -> Float[Tensor, "batch prompt"]:
    """Cosine similarity of every query with every key.

    >>> cosines(torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    tensor([[1., 0.]])
    """
    return F.normalize(query, dim=1) @ F.normalize(keys, dim=1).T


def random_init(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Uniform between 0 and `START`, on the CPU."""
    return torch.rand(shape, generator=generator) * START
