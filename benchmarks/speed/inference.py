"""Merged inference beside the plain backbone at 1, 20 and 100 tasks: the same cost; and beside the loop over tasks: equal outputs.

python benchmarks/speed/inference.py
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from loop import looped
from models import bank_of, encoder, figure, in_turns, pictures, ratio
from torch import Tensor

from figure import Figure, emit
from newcomer.nn.lora.decoupled_lora import DecoupledLoRA

COMMAND = "python benchmarks/speed/inference.py"
TASKS = (1, 20, 100)


def seeing(model: Any, x: Tensor, bank: DecoupledLoRA | None = None) -> Callable[[], Tensor]:
    """One pass without gradients, merged where there is a bank."""

    def plain() -> Tensor:
        with torch.no_grad():
            return model(pixel_values=x).last_hidden_state  # type: ignore[no-any-return]

    def merged() -> Tensor:
        assert bank is not None
        with torch.no_grad(), bank.applied():
            return model(pixel_values=x).last_hidden_state  # type: ignore[no-any-return]

    return merged if bank else plain


def figures(shape: str, batch: int, size: int, repeats: int) -> list[Figure]:
    x = pictures(batch, size)
    plain, found = seeing(encoder(shape, size), x), []
    for tasks in TASKS:
        model = encoder(shape, size)
        bank = bank_of(model, tasks, leave_open=False)
        merged = seeing(model, x, bank)
        apart = (merged() - seeing(looped(encoder(shape, size), bank), x)()).abs().max().item()
        times = in_turns({"merged": merged, "plain": plain}, repeats)
        cost, spread = ratio(times["merged"], times["plain"])
        print(f"{shape}, {tasks:3} tasks: merged / plain {cost:.3f} ± {spread:.3f}, apart from the loop by {apart:.1e}")
        name = f"inference {shape} {tasks} tasks"
        found += [
            figure(f"{name} merged / plain", round(cost, 4), COMMAND, 1.01, round(spread, 4)),
            figure(f"{name} largest difference", float(f"{apart:.2e}"), COMMAND, 1e-5),
        ]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    emit(
        f
        for shape, batch, size in (("ViT-Tiny", 20, 112), ("ViT-B", 2, 224))
        for f in figures(shape, batch, size, given.repeats)
    )
