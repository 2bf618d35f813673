"""Throughput of one model shared by threads: inputs per second with two threads over one, a batch at a time each.

Every thread computes on one core, so the ratio is at most 2, on two free cores. With a very small backbone, as by default, most of
the time goes into decoding and Python, which threads do in turns.

python benchmarks/speed/threads.py [--backbone FOLDER]
"""

import argparse
import statistics
import time
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from models import measurement

from measurement import Measurement, emit
from newcomer.classes.learner import ClassLearner
from newcomer.classes.methods.l2p import L2P
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.datasets.digits import digits

COMMAND = "python benchmarks/speed/threads.py"
LEARNERS: tuple[Any, ...] = (SDLoRA, L2P)
"""One with adapted weights, one with prompts."""
BATCH = 32
TARGET = 1.6


def throughput(learner: ClassLearner, inputs: list[Any], threads: int, seconds: float) -> float:
    """Inputs per second of all threads together."""
    done = [0] * threads
    start = time.perf_counter()

    def predict(number: int) -> None:
        while time.perf_counter() < start + seconds:
            learner.logits(inputs)
            done[number] += len(inputs)

    workers = [Thread(target=predict, args=(number,)) for number in range(threads)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    return sum(done) / (time.perf_counter() - start)


def measurements(backbone: str, repeats: int, seconds: float) -> list[Measurement]:
    train, _ = digits()
    examples = train.select(range(0, len(train), 20))
    inputs, results = [examples.inputs[i] for i in range(BATCH)], list[Measurement]()
    for kind in LEARNERS:
        learner = kind(backbone, epochs=1).learn(examples)
        learner.logits(inputs)
        pairs = [[throughput(learner, inputs, threads, seconds) for threads in (1, 2)] for _ in range(repeats)]
        one, ratios = statistics.median(pair[0] for pair in pairs), [two / one for one, two in pairs]
        gain, std = statistics.median(ratios), statistics.stdev(ratios)
        print(f"{learner.name}: {one:.0f} images a second with one thread, {gain:.2f} ± {std:.2f} times that with two")
        results.append(
            measurement(
                f"threads {learner.name} on {Path(backbone).name}, two / one",
                round(gain, 3),
                COMMAND,
                TARGET,
                round(std, 3),
                better="higher",
            )
        )
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="micro-vit")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    emit(measurements(args.backbone, args.repeats, args.seconds))
