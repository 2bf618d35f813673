"""Gradient steps: the loop that every learner that is trained shares."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from newcomer.errors import LearnerError
from newcomer.seeds import shuffled

Batch = TypeVar("Batch")


def fit(
    batches: Iterable[Batch], loss: Callable[[Batch], Tensor], optimizer: torch.optim.Optimizer
) -> Iterator[dict[str, float]]:
    """One gradient step a batch; yields what was seen after each.

    Raises LearnerError when the loss is no longer a number.
    """
    for batch in batches:
        value = loss(batch)
        seen = finite(value)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield {"loss": seen}


def finite(loss: Tensor) -> float:
    """The loss as a number.

    Raises LearnerError when it is none.
    """
    seen = loss.item()
    if not math.isfinite(seen):
        raise LearnerError(f"the loss became {seen}; lower the learning rate")
    return seen


def batches(count: int, size: int, epochs: int, seed: int, *address: str | int) -> list[list[int]]:
    """Indices of every batch of every epoch, each epoch in an order of its own; the last batch of one may be smaller.

    >>> [len(batch) for batch in batches(5, 2, 1, 0)]
    [2, 2, 1]
    """
    found: list[list[int]] = []
    for epoch in range(epochs):
        order = shuffled(count, seed, *address, "epoch", epoch)
        found += [order[start : start + size] for start in range(0, count, size)]
    return found


def cosine(steps: int) -> Callable[[int], float]:
    """The factor on the learning rate at each step, from 1 down to 0 along half a cosine."""
    return lambda step: 0.5 * (1 + math.cos(math.pi * min(step, steps) / max(steps, 1)))


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Within: no dropout, no gradients; afterwards each module is in the mode it was in."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def freeze(module: nn.Module) -> None:
    """No parameter of the module receives a gradient any more."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def pick_device(name: str | None) -> torch.device:
    """The device of this name, else the GPU if there is one, else the CPU.

    Raises LearnerError for a device that torch does not know or see.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise LearnerError(f"device '{name}' cannot be used ({str(error).splitlines()[0]})") from None
    return device


def chunks(count: int, size: int) -> Sequence[range]:
    """0 .. count − 1 in consecutive runs of at most `size`.

    >>> chunks(5, 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
