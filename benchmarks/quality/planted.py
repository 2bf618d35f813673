"""Recovery of planted interactions on simulated clicks: the share of items whose heaviest edge is the planted pair of fields.

    python benchmarks/quality/planted.py        # goes on where it was cut off; models go to runs/quality/planted/

Measured on cold graphs, generated from an item's features alone, of models with the recipe's defaults; with their AUCs. Over
seeds and over CPU instruction sets: rounding alone decides which kinds of items are recovered.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from run import RUNS

from measurement import Measurement, emit, one_line
from newcomer.experiments.recipe import read_recipe
from newcomer.experiments.report.runs import find_runs
from newcomer.experiments.run import STORE, run_recipe
from newcomer.items.analysis.item_graphs import analyse
from newcomer.items.methods.emerg import EmerG

SEEDS = (0, 1, 2, 3, 4, 5)
INSTRUCTIONS: Mapping[str, Mapping[str, str]] = {
    "as it is": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "SSE4.2": {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}
"""Environment variables that limit the instruction sets of torch and MKL, set before they are imported."""

COMMAND = "python benchmarks/quality/planted.py"
SHARE = "share of items whose planted pair is the heaviest edge"


def recovered(folder: Path) -> float:
    """Share of the items of one model whose heaviest cold edge is the planted one."""
    steps = analyse(EmerG.load(folder))
    try:
        while True:
            next(steps)
    except StopIteration as end:
        planted = end.value["planted"]
    return float(planted["found cold"] / planted["items"])


def metrics_of(seed: int, instructions: str) -> dict[str, float]:
    """The share and the AUCs of the recipe's first row on this seed, computed by this process."""
    folder = RUNS / "planted" / instructions.replace(" ", "-") / f"seed-{seed}"
    for _ in run_recipe(read_recipe("world").with_seed(seed), folder):
        pass
    (run,) = find_runs([folder])
    aucs = {name: value for name, value in run.metrics().items() if name.endswith(" auc")}
    return {SHARE: recovered(folder / STORE), **aucs}


def metrics_of_all_seeds(instructions: str) -> list[dict[str, float]]:
    """`metrics_of` for every seed, computed in a process that is limited to these instructions."""
    env = {**os.environ, **INSTRUCTIONS[instructions]}
    done = subprocess.run([sys.executable, __file__, instructions], env=env, check=True, capture_output=True, text=True)
    measured: list[dict[str, float]] = json.loads(done.stdout)
    return measured


def summary(name: str, measured: list[float]) -> Measurement:
    start = find_runs([RUNS / "planted"])[0].events[0]
    return Measurement(
        name=f"world emerg at its own rates, {name}",
        value=round(float(np.mean(measured)), 4),
        unit="1",
        command=COMMAND,
        seeds=SEEDS,
        machine=start["machine"],
        commit=start["commit"],
        target=0.9 if name == SHARE else None,
        std=round(float(np.std(measured, ddof=1)), 4),
        better="higher",
    )


if __name__ == "__main__":
    with one_line():
        if sys.argv[1:]:
            print(json.dumps([metrics_of(seed, sys.argv[1]) for seed in SEEDS]))
            sys.exit()
        by_set = {name: metrics_of_all_seeds(name) for name in INSTRUCTIONS}
        runs = [run for measured in by_set.values() for run in measured]
        emit(summary(name, [run[name] for run in runs]) for name in runs[0])
        emit(summary(f"{SHARE}, {name}", [run[SHARE] for run in measured]) for name, measured in by_set.items())
