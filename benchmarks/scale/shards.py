"""Memory and steps of processes that train a click model of many users together, each with all rows of the users' table or a share.

python benchmarks/scale/shards.py [--users 1000000] [--processes 2]

EmerG, in one pass and not calibrated, on a log of one event a user, batches of 512 of all processes, gloo on CPUs. Memory: all
tensors with a row for each user that a process holds between steps, the most of any. Step: the median over 200 steps after the
first 50, in CPU seconds of a process and in seconds on the clock, which depend on cores that nobody else uses.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
from models import measurement
from users import ROWS, SCHEMA, SKIPPED, STEPS, bytes_by_user, log_of

from measurement import emit
from newcomer.items.methods.emerg import EmerG
from newcomer.streams.cold_start import OldItems
from newcomer.streams.stage import Stage
from newcomer.training.launcher import world

COMMAND = "python benchmarks/scale/shards.py"


def train(users: int, shard: bool, folder: Path) -> None:
    """One of the processes: writes its bytes and seconds."""
    torch.set_num_threads(1)
    learner = EmerG(SCHEMA, device="cpu", shard_tables=shard, pretrain_epochs=1, calibrate=False)
    old = OldItems(learner._to_log(log_of(users, max(users, ROWS))))
    gc.collect()
    cpu, clock = list[float](), list[float]()
    for number, _ in enumerate(training := learner.fit_stage(Stage("old", old, {}))):
        cpu.append(time.process_time())
        clock.append(time.perf_counter())
        if number == SKIPPED + STEPS:
            break
    rows = len(learner.network.row_fields.tables[0])
    found = {"bytes": bytes_by_user(rows), "cpu": _median_step(cpu), "clock": _median_step(clock)}
    (folder / f"{world()[1]}.json").write_text(json.dumps(found))
    learner.processes.agree("end")
    training.close()  # type: ignore[attr-defined]


def _median_step(times: list[float]) -> float:
    return statistics.median(
        after - before for before, after in zip(times[SKIPPED:], times[SKIPPED + 1 :], strict=False)
    )


def measured(users: int, processes: int, shard: bool) -> dict[str, float]:
    """The largest of all processes' values."""
    with tempfile.TemporaryDirectory() as folder:
        words = [__file__, "--users", str(users), "--train", folder, *(["--shard"] if shard else [])]
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        subprocess.run([sys.executable, *launcher, *words], check=True)
        found = [json.loads(path.read_text()) for path in Path(folder).glob("*.json")]
    return {key: max(one[key] for one in found) for key in found[0]}


def main(users: int, processes: int) -> None:
    whole, shared = (measured(users, processes, shard) for shard in (False, True))
    for name, one in (("all rows", whole), ("a share", shared)):
        print(
            f"{name} in each of {processes}: {one['bytes'] / 2**20:.1f} MiB, a step {1000 * one['cpu']:.2f} ms of CPU, "
            f"{1000 * one['clock']:.2f} ms"
        )
    found = {
        f"memory of {users} users' rows in each of {processes} processes / all rows": (
            shared["bytes"] / whole["bytes"],
            1.1 / processes,
        ),
        f"CPU of a step with sharded rows / with all rows, {processes} processes": (shared["cpu"] / whole["cpu"], 1.3),
    }
    emit(measurement(name, round(value, 3), COMMAND, target, unit="ratio") for name, (value, target) in found.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--shard", action="store_true")
    given = parser.parse_args()
    if given.train:
        train(given.users, given.shard, given.train)
    else:
        main(given.users, given.processes)
