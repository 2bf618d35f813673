"""Of how many new items of the simulated world the heaviest edge, of all pairs of fields, is the interaction that was planted.

    python benchmarks/quality/planted.py        # goes on where it was cut off; models go to runs/quality/planted/

As written from an item's features alone, before any event, by models at the recipe's own rates; what these score besides.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from run import RUNS

from figure import Figure, emit, one_line
from newcomer.items.emerg import EmerG
from newcomer.items.findings import analyse
from newcomer.recipe import read_recipe
from newcomer.report.runs import Run, find_runs
from newcomer.run import STORE, perform

SEEDS = (0, 1, 2)
COMMAND = "python benchmarks/quality/planted.py"


def found(folder: Path) -> float:
    """Share of the items of one model."""
    look = analyse(EmerG.load(folder))
    try:
        while True:
            next(look)
    except StopIteration as end:
        planted = end.value["planted"]
    return float(planted["found cold"] / planted["items"])


def trained(seed: int) -> Run:
    """The run of the recipe's first row on this seed."""
    folder = RUNS / "planted" / f"seed-{seed}"
    for _ in perform(read_recipe("world").with_seed(seed), folder):
        pass
    return find_runs([folder])[0]


if __name__ == "__main__":
    with one_line():
        runs = [trained(seed) for seed in SEEDS]
        start = runs[0].events[0]
        share = "share of items whose planted pair is the heaviest edge"
        told = {share: [found(run.folder / STORE) for run in runs]}
        told |= {name: [run.figures()[name] for run in runs] for name in runs[0].figures() if name.endswith(" auc")}
        emit(
            [
                Figure(
                    name=f"world emerg at its own rates, {name}",
                    value=round(float(np.mean(values)), 4),
                    unit="1",
                    command=COMMAND,
                    seeds=SEEDS,
                    machine=start["machine"],
                    commit=start["commit"],
                    target=0.9 if name == share else None,
                    spread=round(float(np.std(values, ddof=1)), 4),
                )
                for name, values in told.items()
            ]
        )
