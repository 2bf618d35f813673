"""Run every benchmark in turn; the measurements go to benchmarks/measurements.jsonl.

This takes hours from scratch; finished runs in runs/ are reused. A benchmark without its data is skipped, and its measurements
stay as they were.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measurement import DATA_MISSING

HERE = Path(__file__).parent
MEASUREMENTS = HERE / "measurements.jsonl"
LATEST_SMALL = [
    *("--set", 'data.name="movielens-latest"', "--set", "data.path=ml-latest-small"),
    *("--set", "stream.min_old_events=60", "--set", "stream.phase_events=8"),
]
"""Options to run a recipe for MovieLens-1M on MovieLens-latest-small."""
COMMANDS = [
    ["speed/demos.py"],
    ["quality/run.py", "digits"],
    ["quality/run.py", "world"],
    ["quality/run.py", "world", "--set", "data.planted=false", "--out", "world-without"],
    ["quality/run.py", "ml-latest-small"],
    ["quality/run.py", "ml-1m-parts", *LATEST_SMALL, "--out", "ml-latest-small-parts"],
    ["quality/planted.py"],
    ["quality/exploration.py"],
    ["quality/exploration.py", "--planted"],
    ["quality/exploration_true_prior.py"],
    ["quality/calibration_in_service.py", "ml-latest-small", "--order", "time", "--seeds", "0", "1", "2"],
    ["quality/calibration_in_service.py", "ml-latest-small", "--order", "random", "--seeds", "0", "1", "2"],
    ["quality/calibration_in_service.py", "ml-1m", "--order", "random", "--seeds", "0", "1", "2"],
    ["quality/coverage.py", "ml-latest-small", "--seeds", "0", "1", "2"],
    ["quality/run.py", "ml-1m"],
    ["quality/by_item.py", "ml-1m", "emerg", "shared-graph"],
    ["quality/by_item.py", "ml-latest-small", "emerg", "shared-graph"],
    ["quality/run.py", "cifar100-vit-tiny"],
    ["quality/run.py", "cifar100-vit-tiny-10-tasks"],
    ["quality/run.py", "banking77-minilm"],
    ["quality/heads.py", "cifar100-vit-tiny"],
    ["quality/heads.py", "banking77-minilm"],
    ["quality/exports.py"],
    ["speed/inference.py"],
    ["speed/threads.py"],
    ["speed/training_step.py"],
    ["speed/memory.py"],
    ["speed/opening.py"],
    ["speed/startup.py"],
    ["speed/bank.py"],
    ["speed/items_training.py"],
    ["speed/recipe.py"],
    ["speed/items_service.py"],
    ["speed/events.py"],
    ["speed/reading.py", "--kinds", "csv"],
    ["scale/classes.py"],
    ["scale/users.py"],
    ["scale/shards.py"],
    ["serving/latency.py"],
    ["serving/one_request.py"],
    ["serving/rates.py"],
    ["serving/soak.py"],
    ["serving/roll_out.py"],
    ["serving/kills.py"],
    ["serving/million.py"],
    ["gpu.py"],
]


def is_missed(measurement: Mapping[str, Any]) -> bool:
    """Whether a measurement is worse than its target."""
    value, target = measurement["value"], measurement["target"]
    return target is not None and (value > target if measurement["better"] == "lower" else value < target)


def main() -> int:
    lines = MEASUREMENTS.read_text(encoding="utf-8").splitlines() if MEASUREMENTS.exists() else []
    measurements = {json.loads(line)["name"]: line for line in lines}
    failed = 0
    for script, *arguments in COMMANDS:
        print(f"── {script} {' '.join(arguments)}", flush=True)
        command = [sys.executable, str(HERE / script), *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None  # it is a pipe
            for line in process.stdout:
                print(line, end="", flush=True)
                if line.startswith('{"name"'):
                    measurements[json.loads(line)["name"]] = line.rstrip("\n")
        failed += process.returncode not in (0, DATA_MISSING)
        MEASUREMENTS.write_text("".join(line + "\n" for line in measurements.values()), encoding="utf-8")
    for missed in filter(is_missed, map(json.loads, measurements.values())):
        sign = "≤" if missed["better"] == "lower" else "≥"
        print(f"missed: {missed['name']} {missed['value']} {missed['unit']}, to reach {sign} {missed['target']}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
