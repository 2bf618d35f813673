"""Gradient checkpointing: blocks of a model keep their inputs alone, and compute the rest once more in the backward pass.

Chen et al. 2016, "Training deep nets with sublinear memory cost": memory of one block instead of all, for one more forward pass.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from newcomer.nn.forward_context import ForwardContext, captured

_CHECKPOINTED: ForwardContext[bool] = ForwardContext()


@contextmanager
def checkpointed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Within, passes with gradients through these blocks are checkpointed, for the current thread only."""
    for block in blocks:
        kind: Any = type(block)
        block.__class__ = _checkpointing(kind)  # stays, as hooks do: others may be in a pass
    with _CHECKPOINTED.override(dict.fromkeys(blocks, True)):
        yield


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a model: the first list of at least two modules of one class that have linear layers.

    >>> layer = nn.TransformerEncoderLayer(8, 1)
    >>> len(blocks_of(nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)))
    3
    """
    for part in model.modules():
        if isinstance(part, (nn.ModuleList, nn.Sequential)) and len(part) > 1:
            blocks = list(part)
            if len({type(block) for block in blocks}) == 1 and any(
                isinstance(m, nn.Linear) for m in blocks[0].modules()
            ):
                return blocks
    return []


@functools.cache
def _checkpointing(kind: type[nn.Module]) -> type[nn.Module]:
    """This class of blocks, whose passes are checkpointed where `_CHECKPOINTED` says so; copies of a block are of it, too."""
    if hasattr(kind, "is_checkpointed"):
        return kind

    class Checkpointed(kind):  # type: ignore[valid-type, misc]
        is_checkpointed = True

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            plain = super().forward
            if _CHECKPOINTED.of(self) is None or not torch.is_grad_enabled():
                return plain(*args, **kwargs)
            again = captured()  # the backward pass may run after the overrides' end, and on a GPU in another thread
            return checkpoint(plain, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), again()), **kwargs)

    Checkpointed.__name__, Checkpointed.__qualname__, Checkpointed.__module__ = (
        kind.__name__,
        kind.__qualname__,
        kind.__module__,
    )
    return Checkpointed
