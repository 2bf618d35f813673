"""What grows with classes and tasks: a task, a store, saving, opening and memory, at 100 and 1,000 classes of 768 features.

python benchmarks/scale/classes.py [--head lda] [--classes 1000]

A frozen backbone (one transformer block of width 768, random weights) learns tasks of ten classes, ten images of 16 × 16 pixels
each, and is saved after every task. CPU time of the task after 100 classes and of the last tasks; of saving and of opening
with one prediction, against the same classes in a tenth of the tasks; size of the store against its last state; resident memory
after the last task against that after the first.
"""

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import ViTConfig, ViTImageProcessor, ViTModel

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
from models import measurement

from measurement import emit
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.data.examples import Examples

COMMAND = "python benchmarks/scale/classes.py"
SIZE, IMAGES, CLASSES_A_TASK, REPEATS = 16, 10, 10, 5


def write_backbone(folder: Path) -> str:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=768,
        num_attention_heads=12,
        intermediate_size=768,
        num_hidden_layers=1,
        image_size=SIZE,
        patch_size=8,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return str(folder)


def task(first: int, classes: int) -> Examples:
    """Images of so many new classes: a pattern for each class, with noise."""
    draw = np.random.default_rng(first)
    patterns = draw.integers(0, 256, (classes, 1, SIZE, SIZE, 3))
    noisy = patterns + draw.normal(0, 60, (classes, IMAGES, SIZE, SIZE, 3))
    names = [f"class {first + k}" for k in range(classes) for _ in range(IMAGES)]
    return Examples(noisy.clip(0, 255).astype(np.uint8).reshape(-1, SIZE, SIZE, 3), names)


def cpu_seconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def resident() -> float:
    """Resident memory in MiB."""
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main(head: str, classes: int) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        backbone = write_backbone(folder / "backbone")
        learner = FrozenBackbone(backbone, head=head)  # type: ignore[arg-type]
        seconds_of_tasks, saving = [], []
        for first in range(0, classes, CLASSES_A_TASK):
            examples = task(first, CLASSES_A_TASK)
            seconds_of_tasks.append(cpu_seconds(lambda data=examples: learner.learn(data)))  # type: ignore[misc]
            saving.append(cpu_seconds(lambda: learner.save(folder / "many")))
            if first == 0:
                memory = resident()
        grown = resident()
        few = FrozenBackbone(backbone, head=head)  # type: ignore[arg-type]
        saving_few = []
        for first in range(0, classes, 10 * CLASSES_A_TASK):
            few.learn(task(first, 10 * CLASSES_A_TASK))
            saving_few.append(cpu_seconds(lambda: few.save(folder / "few")))
        (image,) = task(0, 1).select([0]).inputs
        opening: dict[str, list[float]] = {"many": [], "few": []}
        for _ in range(REPEATS + 1):
            for which, seconds in opening.items():
                seconds.append(cpu_seconds(lambda w=which: FrozenBackbone.load(folder / w).predict(image)))  # type: ignore[misc]
        store = sum(file.stat().st_size for file in (folder / "many").glob("*.safetensors"))
        last = max((folder / "many").glob("state-*")).stat().st_size
    at_100 = statistics.median(seconds_of_tasks[10 : 10 + REPEATS])
    at_end = statistics.median(seconds_of_tasks[-REPEATS:])
    print(
        f"a task: {at_100:.2f} s after 100 classes, {at_end:.2f} s after {classes}; memory {memory:.0f}, {grown:.0f} MiB"
    )
    found = {
        "a task": (at_end / at_100, 2.0),
        "store / its last state": (store / last, 3.0),
        "saving, 10 × the tasks": (statistics.median(saving[-REPEATS:]) / statistics.median(saving_few[-2:]), 1.2),
        "opening and one prediction, 10 × the tasks": (
            statistics.median(opening["many"][1:]) / statistics.median(opening["few"][1:]),
            1.2,
        ),
        "memory / after the first task": (grown / memory, 1.2),
    }
    emit(
        measurement(f"{what}, {classes} classes ({head})", round(value, 3), COMMAND, target, unit="ratio")
        for what, (value, target) in found.items()
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--head", default="lda")
    parser.add_argument("--classes", type=int, default=1000)
    given = parser.parse_args()
    main(given.head, given.classes)
