"""The same search for every row that is trained: learning rates at full length, judged on validation examples only.

    python benchmarks/quality/search.py cifar100-vit-tiny        # goes on where it was cut off

Each try is a run of its own in runs/search/<recipe>/; the table goes to benchmarks/quality/<recipe>/search.json.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from newcomer.recipe import Recipe, read_recipe
from newcomer.report.runs import find_runs
from newcomer.run import perform

RATES = (2e-3, 4e-3, 8e-3, 1e-3)
SEED = 100
"""Another class order than those that are reported."""


def tries(name: str) -> list[Recipe]:
    """Every trained row of the recipe at every rate, with exams made of validation examples."""
    base = read_recipe(name, ['stream.exam="validation"'], SEED)
    rows = [row for row in base.rows() if "learning_rate" in row.learner]
    return [replace(row, learner={**row.learner, "learning_rate": rate}) for rate in RATES for row in rows]


def main(names: Sequence[str]) -> None:
    for name in names:
        table: dict[str, dict[str, float]] = {}
        for recipe in tries(name):
            rate = recipe.learner["learning_rate"]
            folder = Path("runs/search") / name / f"{recipe.row}-{rate:g}"
            for _ in perform(recipe, folder):
                pass
            (run,) = find_runs([folder])
            table.setdefault(recipe.row, {})[f"{rate:g}"] = round(run.figures()["Acc"], 2)
            print(f"{name} {recipe.row} learning_rate {rate:g}: validation Acc {run.figures()['Acc']:.1f}", flush=True)
        out = Path(__file__).parent / name / "search.json"
        out.parent.mkdir(exist_ok=True)
        out.write_text(json.dumps({"seed": SEED, "validation Acc by learning rate": table}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
