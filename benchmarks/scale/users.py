"""A training step of a click model, and its memory, with a thousand and with a million users.

python benchmarks/scale/users.py [--users 1000000]

EmerG with its defaults on a log of one event a user (as many rows in both cases), batches of 512. CPU time of a step: the median
over 200 steps after the first 50, in one process. Memory: the peak of an epoch above what was resident at its first step, with the
user table, against table and optimizer states.
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

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
from models import measurement

from measurement import emit
from newcomer.data.schema import Field, Schema
from newcomer.items.methods.emerg import EmerG
from newcomer.streams.cold_start import OldItems
from newcomer.streams.stage import Stage

COMMAND = "python benchmarks/scale/users.py"
SCHEMA = Schema(
    "item", "user", "click", "time", (Field("genre", "item"), Field("year", "item"), Field("device", "context"))
)
ITEMS, FEW, SKIPPED, STEPS, WIDTH, BATCH = 500, 1000, 50, 200, 16, 512


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


def memory(which: str) -> int:
    """Resident memory in bytes, now (VmRSS) or at its peak (VmHWM)."""
    return 1024 * int(Path("/proc/self/status").read_text(encoding="ascii").split(f"{which}:")[1].split()[0])


def steps(users: int, rows: int, last: int) -> tuple[float, float]:
    """CPU seconds of a step, and bytes that so many steps added."""
    learner = EmerG(SCHEMA, device="cpu")
    old = OldItems(learner._to_log(log_of(users, rows)))
    gc.collect()
    seconds, first, begin = list[float](), 0, 0.0
    for number, _ in enumerate(training := learner.fit_stage(Stage("old", old, {}))):
        seconds.append(time.process_time() - begin)
        if number == 0:
            first = memory("VmRSS")
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
        if number == last:
            break
        begin = time.process_time()
    training.close()  # type: ignore[attr-defined]
    return statistics.median(seconds[SKIPPED : SKIPPED + STEPS]), memory("VmHWM") - first


def main(users: int) -> None:
    torch.set_num_threads(1)
    few, _ = steps(FEW, users, SKIPPED + STEPS)
    many, added = steps(users, users, -(-users // BATCH))  # the first of the second epoch
    states = 4 * users * (2 * WIDTH + 2)
    table = 4 * users * WIDTH
    print(
        f"a step: {1000 * few:.2f} ms with {FEW} users, {1000 * many:.2f} ms with {users}; {added / 2**20:.0f} MiB added"
    )
    found = {
        f"a step with {users} users / with {FEW}": (many / few, 1.3),
        f"memory of {users} users / table and states": ((table + max(added, 0)) / (table + states), 1.1),
    }
    emit(measurement(name, round(value, 3), COMMAND, target, unit="ratio") for name, (value, target) in found.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=1_000_000)
    main(parser.parse_args().users)
