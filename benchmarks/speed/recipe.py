"""What the recipe `ml-1m` costs as shipped: CPU time of pre-training a million rows of MovieLens-1M, beside the default model.

    python benchmarks/speed/recipe.py

The recipe regularizes fields (`user_history`, `smoothing_bandwidth`, `field_dropout`) and averages weights. Batches of 512, the
default, and of 4,096; one thread; both models in turns.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from itertools import islice

import torch
from models import measurement

from measurement import Measurement, emit, one_line
from newcomer.experiments.recipe import read_recipe
from newcomer.training.learner import Step

COMMAND = "python benchmarks/speed/recipe.py"
TARGET = 40.0
"""Seconds a million rows, of the recipe in batches of 4,096."""
PLAIN = ("user_history=false", "smoothing_bandwidth={}", "field_dropout={}", "weight_averaging=0.0")
ROWS = 81_920
"""Rows of a turn."""
WARM_UP = 4
"""Steps that are not timed."""


def steps(batch_size: int, changes: tuple[str, ...]) -> Iterator[Step]:
    """Steps of pre-training."""
    settings = ["calibrate=false", "pretrain_epochs=4", f"batch_size={batch_size}", *changes]
    recipe = read_recipe("ml-1m", [f"learner.{setting}" for setting in settings])
    stream = recipe.build_stream()
    learner = recipe.build_learner(stream)
    return (step for step in learner.fit_stage(next(iter(stream))) if step.part == "pretrain")


def measurements(turns: int) -> Iterator[Measurement]:
    torch.set_num_threads(1)
    for batch_size in (512, 4096):
        models = {"the recipe ml-1m": steps(batch_size, ()), "the default model": steps(batch_size, PLAIN)}
        for model in models.values():
            next(islice(model, WARM_UP, None))
        seconds: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(turns):
            for name, model in models.items():
                begin = time.process_time()
                next(islice(model, ROWS // batch_size - 1, None))
                seconds[name].append((time.process_time() - begin) / ROWS * 1e6)
        for name, values in seconds.items():
            title = f"pre-training {name} batches of {batch_size}: million rows"
            target = TARGET if batch_size > 512 and name.startswith("the recipe") else None
            std = round(statistics.stdev(values), 1)
            yield measurement(title, round(statistics.median(values), 1), COMMAND, target, std, unit="s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    with one_line():
        emit(measurements(parser.parse_args().turns))
