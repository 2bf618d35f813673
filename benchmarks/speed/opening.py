"""Opening a store of 20 tasks on a backbone of ViT-B's size, beyond loading the backbone.

python benchmarks/speed/opening.py
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
from models import RANK, encoder, figure
from PIL import Image
from transformers import ViTImageProcessorPil

from figure import emit
from newcomer.backbones.backbone import Backbone
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.examples import Examples

COMMAND = "python benchmarks/speed/opening.py"
TASKS, SIZE, REPEATS = 20, 32, 5


def taught(folder: Path) -> None:
    """A model of 20 tasks of 10 classes, each taught by one step on small pictures: only sizes matter here."""
    encoder("ViT-B", SIZE).save_pretrained(folder / "vit-b")
    ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(folder / "vit-b")
    model = SDLoRA(str(folder / "vit-b"), rank=RANK, epochs=1, batch_size=20, head="lda")
    for task in range(TASKS):
        lesson = [Image.effect_noise((SIZE, SIZE), 60) for _ in range(20)]
        model.learn(Examples(lesson, [f"{task}-{i % 10}" for i in range(20)]))
    model.save(folder / "store")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        taught(folder)
        beyond = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            Backbone(str(folder / "vit-b"))
            loaded = time.perf_counter()
            SDLoRA.load(folder / "store").folded_head()
            beyond.append((time.perf_counter() - loaded) - (loaded - start))
    print(f"beyond the backbone: {statistics.median(beyond):.2f} ± {statistics.stdev(beyond):.2f} s")
    emit(
        [
            figure(
                "opening a store of 20 tasks, ViT-B",
                round(statistics.median(beyond), 3),
                COMMAND,
                2.0,
                round(statistics.stdev(beyond), 3),
                "s",
            )
        ]
    )
