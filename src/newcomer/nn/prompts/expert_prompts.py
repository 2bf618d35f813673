"""Prompts of DualPrompt (Wang et al., ECCV 2022, section 4): a general prefix, and an expert prefix a task.

Both are prefixes. The general one is trained by every task, in the first layers; task t trains its own expert and key k_t,
which is trained towards its queries by 1 − cos(q, k_t), in the layers after them. Without an open task every query is
given the expert of the nearest key.
"""

import torch
from torch import nn

from newcomer.nn.prompts.prefixes import Prefix
from newcomer.nn.prompts.prompt_pool import cosines, random_init
from newcomer.shapes import Float, Int, Tensor


class ExpertPrompts(nn.Module):
    """The general prompt and the experts of all tasks; `draw` initializes the general one.

    Axes of a prompt: layer, keys and values, row, width.
    """

    keys: Float[Tensor, "task width_query"]
    experts: Float[Tensor, "task layer two row width"]

    def __init__(self, general: tuple[int, int], expert: tuple[int, int], width_query: int, width: int) -> None:
        """`general` and `expert`: number of layers and rows."""
        super().__init__()
        self.general = nn.Parameter(torch.zeros(general[0], 2, general[1], width))
        self.register_buffer("keys", torch.zeros(0, width_query))
        self.register_buffer("experts", torch.zeros(0, expert[0], 2, expert[1], width))
        self.fresh = nn.ParameterDict()
        """Key and expert of the open task."""

    @property
    def tasks(self) -> int:
        """Number of closed experts."""
        return len(self.keys)

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Reset, and initialize the general prompt."""
        self.keys, self.experts, self.fresh = self.keys[:0], self.experts[:0], nn.ParameterDict()
        self.general = nn.Parameter(random_init(self.general.shape, generator).to(self.general))

    def open(self, generator: torch.Generator) -> None:
        """Add a task's key, and its expert, initialized with the last task's."""
        self.fresh["key"] = nn.Parameter(random_init(self.keys.shape[1:], generator).to(self.keys))
        first = random_init(self.experts.shape[1:], generator).to(self.experts)
        self.fresh["expert"] = nn.Parameter(self.experts[-1].clone() if self.tasks else first)

    def close(self) -> None:
        """Freeze the open task's key and expert."""
        self.append(self.fresh["key"].detach(), self.fresh["expert"].detach())
        self.fresh = nn.ParameterDict()

    def append(self, key: Float[Tensor, " width_query"], expert: Float[Tensor, "layer two row width"]) -> None:
        """Append the key and the expert of a closed task."""
        self.keys = torch.cat([self.keys, key.to(self.keys)[None]])
        self.experts = torch.cat([self.experts, expert.to(self.experts)[None]])

    def choose(self, query: Float[Tensor, "batch width_query"]) -> Int[Tensor, " batch"]:
        """Index of the closed task with the nearest key."""
        return cosines(query, self.keys).argmax(1)

    def forward(
        self, query: Float[Tensor, "batch width_query"]
    ) -> tuple[list[Prefix], list[Prefix], Float[Tensor, " batch"]]:
        """Prefixes of the general prompt and of the experts, one a layer, and the open task's key distance 1 − cos.

        There are no experts before the first task; without an open task the distance is 0.
        """
        general = _prefixes(self.general.expand(len(query), *self.general.shape))
        if len(self.fresh):
            expert = self.fresh["expert"]
            distance = 1 - cosines(query, self.fresh["key"][None])[:, 0]
            return general, _prefixes(expert.expand(len(query), *expert.shape)), distance
        nothing = query.new_zeros(len(query))
        return general, _prefixes(self.experts[self.choose(query)]) if self.tasks else [], nothing


def _prefixes(prompts: Float[Tensor, "batch layer two row width"]) -> list[Prefix]:
    return [Prefix(layer[:, 0], layer[:, 1]) for layer in prompts.unbind(1)]
