"""Merged inference at 1, 20 and 100 tasks: cost relative to the plain backbone, outputs compared with the loop over tasks.

python benchmarks/speed/inference.py
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from loop import looped
from models import bank_of, encoder, images, in_turns, measurement, ratio
from torch import Tensor

from measurement import Measurement, emit
from newcomer.nn.lora.decoupled_lora import DecoupledLoRA

COMMAND = "python benchmarks/speed/inference.py"
TASKS = (1, 20, 100)


def forward_pass(model: Any, x: Tensor, bank: DecoupledLoRA | None = None) -> Callable[[], Tensor]:
    """One forward pass without gradients, with the bank's merged weights if there is one."""

    def plain() -> Tensor:
        with torch.no_grad():
            return model(pixel_values=x).last_hidden_state  # type: ignore[no-any-return]

    def merged() -> Tensor:
        assert bank is not None
        with torch.no_grad(), bank.applied():
            return model(pixel_values=x).last_hidden_state  # type: ignore[no-any-return]

    return merged if bank else plain


def measurements(shape: str, batch: int, size: int, repeats: int) -> list[Measurement]:
    x = images(batch, size)
    plain, results = forward_pass(encoder(shape, size), x), []
    for tasks in TASKS:
        model = encoder(shape, size)
        bank = bank_of(model, tasks, leave_open=False)
        merged = forward_pass(model, x, bank)
        difference = (merged() - forward_pass(looped(encoder(shape, size), bank), x)()).abs().max().item()
        times = in_turns({"merged": merged, "plain": plain}, repeats)
        cost, std = ratio(times["merged"], times["plain"])
        print(
            f"{shape}, {tasks:3} tasks: merged / plain {cost:.3f} ± {std:.3f}, difference to the loop {difference:.1e}"
        )
        name = f"inference {shape} {tasks} tasks"
        results += [
            measurement(f"{name} merged / plain", round(cost, 4), COMMAND, 1.01, round(std, 4)),
            measurement(f"{name} largest difference", float(f"{difference:.2e}"), COMMAND, 1e-5),
        ]
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    emit(
        f
        for shape, batch, size in (("ViT-Tiny", 20, 112), ("ViT-B", 2, 224))
        for f in measurements(shape, batch, size, args.repeats)
    )
