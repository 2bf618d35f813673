"""Peak memory of training steps at 1 and at 20 tasks.

python benchmarks/speed/memory.py
"""

import resource
import subprocess
import sys

import torch
from models import bank_of, encoder, images, measurement

from measurement import Measurement, emit

COMMAND = "python benchmarks/speed/memory.py"
IMAGES = {"ViT-Tiny": (20, 112), "ViT-B": (16, 224)}


def peak(shape: str, tasks: int) -> float:
    """Peak resident MiB of this process after three training steps."""
    torch.set_num_threads(1)
    batch, size = IMAGES[shape]
    model, x = encoder(shape, size), images(batch, size)
    bank = bank_of(model, tasks, leave_open=True)
    optimizer = torch.optim.Adam([p for group in bank.trainable().values() for p in group])
    for _ in range(3):
        with bank.applied():
            loss = model(pixel_values=x).last_hidden_state[:, 0].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measurements(shape: str) -> list[Measurement]:
    sizes = []
    for tasks in (1, 20):
        done = subprocess.run([sys.executable, __file__, shape, str(tasks)], capture_output=True, text=True, check=True)
        sizes.append(float(done.stdout))
    print(f"{shape}: {sizes[1]:.0f} MiB at 20 tasks / {sizes[0]:.0f} MiB at 1 task = {sizes[1] / sizes[0]:.3f}")
    return [measurement(f"memory {shape} 20 tasks / 1 task", round(sizes[1] / sizes[0], 4), COMMAND, 1.10)]


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(peak(sys.argv[1], int(sys.argv[2])))
    else:
        emit(f for shape in IMAGES for f in measurements(shape))
