"""A training step of a click model, and its memory, with a thousand and with a million users.

python benchmarks/scale/users.py [--users 1000000]

EmerG, in one pass and not calibrated, on a log of an event or more a user (as many rows in both cases), batches of 512. CPU time
of a step: the median over 200 steps after the first 50, in one process. Memory: all tensors with a row for each user that live
between steps (a dense gradient would be one), against the table and its two moments.
"""

import argparse
import gc
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
from models import measurement

from measurement import emit
from newcomer.data.schema import Field, Schema
from newcomer.items.methods.emerg import EmerG
from newcomer.nn.ctr.row_shards import RowShard
from newcomer.streams.cold_start import OldItems
from newcomer.streams.stage import Stage

COMMAND = "python benchmarks/scale/users.py"
SCHEMA = Schema(
    "item", "user", "click", "time", (Field("genre", "item"), Field("year", "item"), Field("device", "context"))
)
ITEMS, FEW, SKIPPED, STEPS, WIDTH = 500, 1000, 50, 200, 16
ROWS = 512 * (SKIPPED + STEPS + 2)
"""Least number of events: the steps are all of pre-training."""


def log_of(users: int, rows: int) -> pl.DataFrame:
    """`rows` events of so many users."""
    draw = np.random.default_rng(0)
    item, user, device = draw.integers(ITEMS, size=rows), draw.permutation(rows) % users, draw.integers(3, size=rows)
    return pl.DataFrame(
        {
            "item": item,
            "user": user,
            "click": (draw.random(rows) < np.where(item % 3 == device, 0.5, 0.2)).astype(int),
            "time": np.arange(rows),
            "genre": [f"g{n}" for n in item % 7],
            "year": [f"y{n}" for n in item % 40],
            "device": [f"d{n}" for n in device],
        }
    )


def bytes_by_user(users: int) -> int:
    """Size of all tensors with a row for each user."""
    kinds = (torch.Tensor, nn.Parameter, RowShard)
    tensors = [one for one in gc.get_objects() if type(one) in kinds and one.ndim == 2]
    large = [one for one in tensors if users <= len(one) <= users + 2 and one.layout == torch.strided]
    beside = [state for state in gc.get_objects() if type(state) is dict and "last" in state and "rate" in state]
    rows = sum(state[name].numel() * 4 for state in beside for name in ("last", "rate"))
    found: int = sum({one.data_ptr(): one.nbytes for one in large}.values()) + rows
    return found


def steps(users: int, rows: int) -> tuple[float, int]:
    """CPU seconds of a step, and the bytes of tensors with a row for each user."""
    learner = EmerG(SCHEMA, device="cpu", pretrain_epochs=1, calibrate=False)
    old = OldItems(learner._to_log(log_of(users, rows)))
    gc.collect()
    seconds, begin = list[float](), 0.0
    for number, _ in enumerate(training := learner.fit_stage(Stage("old", old, {}))):
        seconds.append(time.process_time() - begin)
        if number == SKIPPED + STEPS:
            break
        begin = time.process_time()
    found = bytes_by_user(users)
    training.close()  # type: ignore[attr-defined]
    return statistics.median(seconds[SKIPPED:]), found


def main(users: int) -> None:
    torch.set_num_threads(1)
    rows = max(users, ROWS)
    few, _ = steps(FEW, rows)
    many, found_bytes = steps(users, rows)
    print(f"a step: {1000 * few:.2f} ms with {FEW} users, {1000 * many:.2f} ms with {users}")
    found = {
        f"a step with {users} users / with {FEW}": (many / few, 1.3),
        f"memory of {users} users / table and states": (found_bytes / (3 * 4 * users * WIDTH), 1.1),
    }
    emit(measurement(name, round(value, 3), COMMAND, target, unit="ratio") for name, (value, target) in found.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=1_000_000)
    main(parser.parse_args().users)
