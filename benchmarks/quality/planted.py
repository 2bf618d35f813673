"""Of how many new items of the simulated world the heaviest edge, of all pairs of fields, is the interaction that was planted.

    python benchmarks/quality/planted.py        # goes on where it was cut off; models go to runs/quality/planted/

As written from an item's features alone, before any event, by models at the recipe's own rates; what these score besides. Over
seeds and over the arithmetic of several processors: rounding alone decides which kinds of items are found.
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

from figure import Figure, emit, one_line
from newcomer.experiments.recipe import read_recipe
from newcomer.experiments.report.runs import find_runs
from newcomer.experiments.run import STORE, perform
from newcomer.items.analysis.item_graphs import analyse
from newcomer.items.methods.emerg import EmerG

SEEDS = (0, 1, 2, 3, 4, 5)
INSTRUCTIONS: Mapping[str, Mapping[str, str]] = {
    "as it is": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "SSE4.2": {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}
"""What torch and MKL are told to compute with, before they are imported."""

COMMAND = "python benchmarks/quality/planted.py"
SHARE = "share of items whose planted pair is the heaviest edge"


def found(folder: Path) -> float:
    """Share of the items of one model."""
    look = analyse(EmerG.load(folder))
    try:
        while True:
            next(look)
    except StopIteration as end:
        planted = end.value["planted"]
    return float(planted["found cold"] / planted["items"])


def figures_of(seed: int, instructions: str) -> dict[str, float]:
    """The share, and the AUCs of the recipe's first row on this seed; computed with what this process was told to."""
    folder = RUNS / "planted" / instructions.replace(" ", "-") / f"seed-{seed}"
    for _ in perform(read_recipe("world").with_seed(seed), folder):
        pass
    (run,) = find_runs([folder])
    aucs = {name: value for name, value in run.figures().items() if name.endswith(" auc")}
    return {SHARE: found(folder / STORE), **aucs}


def of_all_seeds(instructions: str) -> list[dict[str, float]]:
    """What a process says that computes with these instructions."""
    told = {**os.environ, **INSTRUCTIONS[instructions]}
    done = subprocess.run(
        [sys.executable, __file__, instructions], env=told, check=True, capture_output=True, text=True
    )
    measured: list[dict[str, float]] = json.loads(done.stdout)
    return measured


def summary(name: str, measured: list[float]) -> Figure:
    start = find_runs([RUNS / "planted"])[0].events[0]
    return Figure(
        name=f"world emerg at its own rates, {name}",
        value=round(float(np.mean(measured)), 4),
        unit="1",
        command=COMMAND,
        seeds=SEEDS,
        machine=start["machine"],
        commit=start["commit"],
        target=0.9 if name == SHARE else None,
        spread=round(float(np.std(measured, ddof=1)), 4),
    )


if __name__ == "__main__":
    with one_line():
        if sys.argv[1:]:
            print(json.dumps([figures_of(seed, sys.argv[1]) for seed in SEEDS]))
            sys.exit()
        by_set = {name: of_all_seeds(name) for name in INSTRUCTIONS}
        runs = [run for measured in by_set.values() for run in measured]
        emit(summary(name, [run[name] for run in runs]) for name in runs[0])
        emit(summary(f"{SHARE}, {name}", [run[SHARE] for run in measured]) for name, measured in by_set.items())
