"""One model that answers several threads: inputs a second with two threads over those with one, a batch at a time each.

Every thread computes on one core, so that the ratio says what threads bring beside what cores bring: on two free cores at most 2.

python benchmarks/speed/threads.py
"""

import argparse
import statistics
import time
from threading import Thread
from typing import Any

import torch
from models import figure

from figure import Figure, emit
from newcomer.classes.learner import ClassLearner
from newcomer.classes.methods.l2p import L2P
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.datasets.digits import digits

COMMAND = "python benchmarks/speed/threads.py"
LEARNERS: tuple[Any, ...] = (SDLoRA, L2P)
"""One that adapts weights, one that prompts."""
BATCH = 32


def answered(learner: ClassLearner, inputs: list[Any], threads: int, seconds: float) -> float:
    """Inputs a second by so many threads together."""
    done = [0] * threads
    start = time.perf_counter()

    def ask(number: int) -> None:
        while time.perf_counter() < start + seconds:
            learner.logits(inputs)
            done[number] += len(inputs)

    several = [Thread(target=ask, args=(number,)) for number in range(threads)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()
    return sum(done) / (time.perf_counter() - start)


def figures(repeats: int, seconds: float) -> list[Figure]:
    train, _ = digits()
    lesson = train.at(range(0, len(train), 20))
    inputs, found = [lesson.inputs[i] for i in range(BATCH)], list[Figure]()
    for kind in LEARNERS:
        learner = kind("micro-vit", epochs=1).learn(lesson)
        learner.logits(inputs)
        pairs = [[answered(learner, inputs, threads, seconds) for threads in (1, 2)] for _ in range(repeats)]
        one, ratios = statistics.median(pair[0] for pair in pairs), [two / one for one, two in pairs]
        gain, spread = statistics.median(ratios), statistics.stdev(ratios)
        print(
            f"{learner.name}: {one:.0f} pictures a second with one thread, {gain:.2f} ± {spread:.2f} times that with two"
        )
        found.append(figure(f"threads {learner.name} two / one", round(gain, 3), COMMAND, None, round(spread, 3)))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    emit(figures(given.repeats, given.seconds))
