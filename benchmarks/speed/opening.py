"""Seconds to load a store of 20 tasks on a ViT-B backbone, beyond loading the backbone.

python benchmarks/speed/opening.py
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
from models import RANK, encoder, measurement
from PIL import Image
from transformers import ViTImageProcessorPil

from measurement import emit
from newcomer.backbones.backbone import Backbone
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.examples import Examples

COMMAND = "python benchmarks/speed/opening.py"
TASKS, SIZE, REPEATS = 20, 32, 5


def write_store(folder: Path) -> None:
    """Save a model of 20 tasks of 10 classes, each trained by one step on small images: only sizes matter here."""
    encoder("ViT-B", SIZE).save_pretrained(folder / "vit-b")
    ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(folder / "vit-b")
    model = SDLoRA(str(folder / "vit-b"), rank=RANK, epochs=1, batch_size=20, head="lda")
    for task in range(TASKS):
        images = [Image.effect_noise((SIZE, SIZE), 60) for _ in range(20)]
        model.learn(Examples(images, [f"{task}-{i % 10}" for i in range(20)]))
    model.save(folder / "store")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_store(folder)
        beyond = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            Backbone(str(folder / "vit-b"))
            loaded = time.perf_counter()
            SDLoRA.load(folder / "store").linear_classifier()
            beyond.append((time.perf_counter() - loaded) - (loaded - start))
    print(f"beyond the backbone: {statistics.median(beyond):.2f} ± {statistics.stdev(beyond):.2f} s")
    emit(
        [
            measurement(
                "opening a store of 20 tasks, ViT-B",
                round(statistics.median(beyond), 3),
                COMMAND,
                2.0,
                round(statistics.stdev(beyond), 3),
                "s",
            )
        ]
    )
