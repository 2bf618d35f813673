"""Of how many new items of the simulated world the heaviest edge, of all pairs of fields, is the interaction that was planted.

    python benchmarks/quality/planted.py        # reads the models that run.py world has left, or runs it first

As written from an item's features alone, before any event.
"""

import numpy as np
from run import run_all

from figure import Figure, emit, one_line
from newcomer.items.emerg import EmerG
from newcomer.items.findings import analyse
from newcomer.report.runs import find_runs

SEEDS = (0, 1, 2)
COMMAND = "python benchmarks/quality/planted.py"


def found(folder: str) -> float:
    """Share of the items of one model."""
    look = analyse(EmerG.load(folder))
    try:
        while True:
            next(look)
    except StopIteration as end:
        planted = end.value["planted"]
    return float(planted["found cold"] / planted["items"])


if __name__ == "__main__":
    with one_line():
        records = run_all("world", list(SEEDS), [], "world", ["emerg"])
        start = find_runs([records / "emerg"])[0].events[0]
        shares = [found(f"runs/quality/world/emerg/seed-{seed}/store") for seed in SEEDS]
        print(", ".join(f"{share:.3f}" for share in shares))
        mean, spread = round(float(np.mean(shares)), 4), round(float(np.std(shares, ddof=1)), 4)
        name = "world emerg share of items whose planted pair is the heaviest edge"
        emit([Figure(name, mean, "1", COMMAND, SEEDS, start["machine"], start["commit"], 0.9, spread)])
