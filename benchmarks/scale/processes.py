"""A click model trained on MovieLens-1M by one process and by two: seconds on the clock, and what both reach.

    python benchmarks/scale/processes.py [--processes 2] [--rounds 1] [--set learner.batch_size=4096]

`newcomer run ml-1m` for one seed, with the recipe's settings and those of `--set`, one process after the other way in each round; a
process computes with one thread. To be read on a machine with as many idle cores as processes: what they can do at once at best is
measured as well, by as many trainings that do not know of each other.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
from models import measurement

from measurement import Measurement, emit

COMMAND = "python benchmarks/scale/processes.py"


def trained(processes: int, words: Sequence[str]) -> tuple[float, dict[str, float]]:
    """Seconds of pre-training and meta-learning, and the AUC of every later stage."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *(launcher if processes > 1 else []), "-m", "newcomer", "run", "ml-1m"]
        subprocess.run(
            [*command, "--seeds", "1", "--out", folder, *words],
            check=True,
            stdout=sys.stderr,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        (record,) = Path(folder).rglob("*.jsonl")
        events = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    seconds = next(event["train_seconds"] for event in events if event["event"] == "stage")
    scores = [event for event in events if event["event"] == "score" and event["eval_set"] == "query"]
    return seconds, {event["stage"]: event["values"]["auc"] for event in scores}


def measurements(processes: int, rounds: int, words: Sequence[str]) -> Iterator[Measurement]:
    ratios, limits, differences = list[float](), list[float](), list[float]()
    for _ in range(rounds):
        (alone, by_one), (together, by_many) = (trained(count, words) for count in (1, processes))
        ratios.append(together / alone)
        with ThreadPoolExecutor(processes) as pool:
            at_once = pool.map(trained, [1] * processes, [words] * processes)
            limits.append(statistics.mean(seconds for seconds, _ in at_once) / processes / alone)
        differences.append(max(abs(by_one[stage] - by_many[stage]) for stage in by_one))
        print(f"{alone:.1f} s and {together:.1f} s; AUC {by_one} and {by_many}", file=sys.stderr)
    title = " ".join([f"{processes} processes train MovieLens-1M / one", *words])
    command = " ".join([COMMAND, *words])
    yield measurement(f"{title}, seconds", round(statistics.median(ratios), 3), command, 0.6, unit="ratio")
    name = f"{processes} trainings at once that share nothing, a training / one alone"
    yield measurement(name, round(statistics.median(limits), 3), command, unit="ratio")
    yield measurement(f"{title}, AUC, largest difference", round(max(differences), 5), command, 0.0005)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    emit(measurements(given.processes, given.rounds, [word for one in given.set for word in ("--set", one)]))
