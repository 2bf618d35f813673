"""A training step at 20 tasks beside one at 1 task, and beside the same step written as a loop over tasks.

    python benchmarks/speed/training_step.py

Losses of both ways are compared before they are timed.
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from loop import looped
from models import bank_of, encoder, figure, in_turns, pictures, ratio
from torch import Tensor

from figure import Figure, emit
from newcomer.nn.lora.decoupled_lora import DecoupledLoRA

COMMAND = "python benchmarks/speed/training_step.py"
COMPARED = {"20 tasks / 1 task": ("20", "1", 1.05), "loop / bank at 20 tasks": ("loop", "20", 2.5)}


def stepping(
    model: Any, bank: DecoupledLoRA, x: Tensor, applied: Callable[[], AbstractContextManager[None]]
) -> Callable[[], float]:
    """One training step: forward, backward, Adam."""
    optimizer = torch.optim.Adam([p for group in bank.trainable().values() for p in group], lr=0.0)

    def step() -> float:
        optimizer.zero_grad()
        with applied():
            loss: Tensor = model(pixel_values=x).last_hidden_state[:, 0].square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()

    return step


def figures(shape: str, batch: int, size: int, repeats: int) -> list[Figure]:
    x, actions = pictures(batch, size), {}
    for tasks in (1, 20):
        model = encoder(shape, size)
        bank = bank_of(model, tasks, leave_open=True)
        actions[f"{tasks}"] = stepping(model, bank, x, bank.applied)
    actions["loop"] = stepping(looped(encoder(shape, size), bank), bank, x, nullcontext)
    assert abs(actions["loop"]() - actions["20"]()) < 1e-4 * abs(actions["20"]())  # the same function, written twice
    times = in_turns(actions, repeats)
    found = []
    for name, (over, under, target) in COMPARED.items():
        cost, spread = ratio(times[over], times[under])
        print(f"{shape}, {batch} pictures of {size}: {name} {cost:.3f} ± {spread:.3f}")
        found.append(figure(f"step {shape} {name}", round(cost, 4), COMMAND, target, round(spread, 4)))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    emit(
        f
        for shape, batch, size, repeats in (
            ("ViT-Tiny", 20, 112, given.repeats),
            ("ViT-B", 8, 224, max(given.repeats // 3, 2)),
        )
        for f in figures(shape, batch, size, repeats)
    )
