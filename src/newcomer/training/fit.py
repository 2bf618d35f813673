"""The training loop: gradient steps, batches, schedules."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from newcomer.errors import LearnerError
from newcomer.nn.ctr.row_shards import RowShard
from newcomer.seeds import shuffled
from newcomer.training.processes import Processes

Batch = TypeVar("Batch")


def fit(
    batches: Iterable[Batch],
    loss: Callable[[Batch], Tensor | Iterable[Tensor]],
    optimizer: torch.optim.Optimizer,
    processes: Processes | None = None,
) -> Iterator[dict[str, float]]:
    """One gradient step a batch; yields the metrics after each.

    `loss` may give parts that add up to a batch's loss; each part's gradient is taken before the next one is asked for. With
    `processes` the losses and gradients of all of them are added up, so that all take the same step.
    Raises LearnerError when the loss is no longer a number.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for batch in batches:
        for parameter in parameters:  # `optimizer.zero_grad` takes ten times as long
            parameter.grad = None
        found = loss(batch)
        loss_value = 0.0
        for part in [found] if isinstance(found, Tensor) else found:
            loss_value += part.item()
            part.backward()
        if processes and processes.count > 1:
            loss_value = _together(loss_value, optimizer, processes)
        finite(loss_value)
        optimizer.step()
        yield {"loss": loss_value}


def _together(loss_value: float, optimizer: torch.optim.Optimizer, processes: Processes) -> float:
    """Add up losses and gradients; a parameter that has no gradient in any process has none, as in one process.

    The gradients of a shard are those of all processes already (`nn.ctr.row_shards`).
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if not isinstance(p, RowShard)]
    dense = torch.tensor([float(p.grad is not None and not p.grad.is_sparse) for p in parameters])
    sparse = torch.tensor([float(p.grad is not None and p.grad.is_sparse) for p in parameters])
    total = torch.tensor([loss_value], device=processes.device)
    dense, sparse = dense.to(total), sparse.to(total)
    processes.add_up([total, dense, sparse])
    by_rows = [p for p, count in zip(parameters, sparse.tolist(), strict=True) if count]
    whole = [p for p, count in zip(parameters, dense.tolist(), strict=True) if count]
    for p in whole:
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    processes.add_up([p.grad for p in whole])
    for p in by_rows:
        p.grad = processes.add_up_rows(p.grad, p)
    return total.item()


def finite(loss_value: float) -> float:
    """The loss, checked to be finite.

    Raises LearnerError when it is no number.
    """
    if not math.isfinite(loss_value):
        raise LearnerError(f"the loss became {loss_value}; lower the learning rate")
    return loss_value


def batches(count: int, size: int, epochs: int, seed: int, *address: str | int) -> list[list[int]]:
    """Indices of every batch of every epoch, shuffled each epoch; the last batch of an epoch may be smaller.

    >>> [len(batch) for batch in batches(5, 2, 1, 0)]
    [2, 2, 1]
    """
    found: list[list[int]] = []
    for epoch in range(epochs):
        order = shuffled(count, seed, *address, "epoch", epoch)
        found += [order[start : start + size] for start in range(0, count, size)]
    return found


def cosine(steps: int) -> Callable[[int], float]:
    """Cosine schedule: factor of the learning rate at each step, from 1 to 0."""
    return lambda step: 0.5 * (1 + math.cos(math.pi * min(step, steps) / max(steps, 1)))


def one_cycle(steps: int, rise: float = 0.3) -> Callable[[int], float]:
    """One-cycle schedule: factor of the learning rate, rising from 0 over a share of all steps, then falling, along half cosines.

    Smith and Topin 2018, whose share of the rise is the same.
    """

    def factor(step: int) -> float:
        done = min(step / max(steps, 1), 1.0)
        return 0.5 * (1 - math.cos(math.pi * (done / rise if done < rise else 1 + (done - rise) / (1 - rise))))

    return factor


_MODES = Lock()
_BORROWED: dict[nn.Module, int] = {}
"""Modules in training mode whose mode is overridden by `evaluating`, with the number of overrides."""


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Within: evaluation mode, no gradients; afterwards the previous mode.

    Where several threads are within, the last one to leave gives the mode back.
    """
    with _MODES:
        parts = [p for module in modules for p in module.modules() if p.training or p in _BORROWED]
        for part in parts:
            _BORROWED[part] = _BORROWED.get(part, 0) + 1
            part.training = False
    try:
        with torch.inference_mode():
            yield
    finally:
        with _MODES:
            for part in parts:
                _BORROWED[part] -= 1
                if not _BORROWED[part]:
                    del _BORROWED[part]
                    part.training = True


def compiled(module: nn.Module) -> nn.Module:
    """A compiled copy of the module; the module itself stays eager."""
    return cast(nn.Module, torch.compile(module))


def freeze(module: nn.Module) -> None:
    """Disable gradients of all parameters."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def chunks(count: int, size: int) -> Sequence[range]:
    """Consecutive ranges of 0 … count − 1 of at most `size`.

    >>> chunks(5, 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
