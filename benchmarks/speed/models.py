"""Shared parts of the speed benchmarks: randomly initialised encoders, banks of many tasks, interleaved timing."""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel

sys.path.insert(0, str(Path(__file__).parents[1]))
from measurement import Better, Measurement
from newcomer.experiments.run import commit, machine
from newcomer.nn.lora.decoupled_lora import DecoupledLoRA

SHAPES: dict[str, dict[str, Any]] = {
    "ViT-Tiny": {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
    "ViT-B": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
}
RANK = 10


def encoder(shape: str, size: int) -> ViTModel:
    """A frozen vision transformer of 12 blocks for images of `size` × `size` pixels."""
    torch.manual_seed(0)
    model = ViTModel(ViTConfig(**SHAPES[shape], image_size=size), add_pooling_layer=False)
    model.requires_grad_(False)
    model.train(False)
    return model


def images(count: int, size: int) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def query_value(model: nn.Module) -> list[str]:
    return [
        name for name, _ in model.named_modules() if name.rpartition(".")[2] in ("q_proj", "v_proj", "query", "value")
    ]


def bank_of(model: nn.Module, tasks: int, leave_open: bool) -> DecoupledLoRA:
    """A bank of this many tasks with random directions; with `leave_open` the last one is still trained."""
    bank = DecoupledLoRA(model, query_value(model))
    generator = torch.Generator().manual_seed(2)
    for task in range(tasks):
        bank.open(RANK, generator)
        with torch.no_grad():
            for up in bank.open_up:
                up.copy_(0.02 * torch.randn(up.shape, generator=generator))
        if task < tasks - 1 or not leave_open:
            bank.close()
    return bank


def in_turns(actions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each action, `repeats` times, the actions in turns, after one warm-up call each."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():
        action()
    for _ in range(repeats):
        for name, action in actions.items():
            start = time.process_time()
            action()
            seconds[name].append(time.process_time() - start)
    return seconds


def measurement(
    name: str,
    value: float,
    command: str,
    target: float | None = None,
    std: float | None = None,
    unit: str = "1",
    better: Better = "lower",
) -> Measurement:
    """A measurement on this machine, of this state of the library."""
    return Measurement(name, value, unit, command, [0], machine(), commit(), target, std, better)


def ratio(over: list[float], under: list[float]) -> tuple[float, float]:
    """Median and standard deviation of the ratio over turns."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return statistics.median(ratios), statistics.stdev(ratios)
