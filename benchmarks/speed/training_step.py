"""Cost of a training step at 20 tasks relative to 1 task, and of the same step as a loop over tasks.

    python benchmarks/speed/training_step.py

The losses of both implementations are compared before they are timed.
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from loop import looped
from models import bank_of, encoder, images, in_turns, measurement, ratio
from torch import Tensor

from measurement import Better, Measurement, emit
from newcomer.nn.lora.decoupled_lora import DecoupledLoRA

COMMAND = "python benchmarks/speed/training_step.py"
COMPARED: dict[str, tuple[str, str, float, Better]] = {
    "20 tasks / 1 task": ("20", "1", 1.05, "lower"),
    "loop / bank at 20 tasks": ("loop", "20", 2.5, "higher"),
}


def training_step(
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


def measurements(shape: str, batch: int, size: int, repeats: int) -> list[Measurement]:
    x, actions = images(batch, size), {}
    for tasks in (1, 20):
        model = encoder(shape, size)
        bank = bank_of(model, tasks, leave_open=True)
        actions[f"{tasks}"] = training_step(model, bank, x, bank.applied)
    actions["loop"] = training_step(looped(encoder(shape, size), bank), bank, x, nullcontext)
    assert abs(actions["loop"]() - actions["20"]()) < 1e-4 * abs(actions["20"]())  # two implementations of one function
    times = in_turns(actions, repeats)
    results = []
    for name, (over, under, target, better) in COMPARED.items():
        cost, std = ratio(times[over], times[under])
        print(f"{shape}, {batch} images of {size}: {name} {cost:.3f} ± {std:.3f}")
        results.append(
            measurement(f"step {shape} {name}", round(cost, 4), COMMAND, target, round(std, 4), better=better)
        )
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    emit(
        f
        for shape, batch, size, repeats in (
            ("ViT-Tiny", 20, 112, args.repeats),
            ("ViT-B", 8, 224, max(args.repeats // 3, 2)),
        )
        for f in measurements(shape, batch, size, repeats)
    )
