"""The same search for every row that is trained: learning rates and epochs at full length, judged on validation examples only.

    python benchmarks/quality/search.py cifar100-vit-tiny        # goes on where it was cut off

Each try is a run of its own in runs/search/<recipe>/; the table goes to benchmarks/quality/<recipe>/search.json.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from newcomer.recipe import Recipe, read_recipe
from newcomer.report.runs import find_runs
from newcomer.run import perform

SEED = 100
"""Another class order than those that are reported."""


def tries(name: str, rates: Sequence[float], epochs: Sequence[int], only: Sequence[str]) -> list[Recipe]:
    """Every trained row of the recipe (or those named) with every choice, and exams made of validation examples."""
    rows = [
        row
        for row in read_recipe(name, ['stream.exam="validation"'], SEED).rows()
        if "learning_rate" in row.learner and (row.row in only or not only)
    ]
    return [
        replace(row, learner={**row.learner, "learning_rate": rate, "epochs": passes or row.learner["epochs"]})
        for passes in epochs or [0]
        for rate in rates
        for row in rows
    ]


def search(name: str, rates: Sequence[float], epochs: Sequence[int], only: Sequence[str]) -> None:
    """Run all tries of one recipe and write them into its table, which keeps what it had of others."""
    out = Path(__file__).parent / name / "search.json"
    table: dict[str, dict[str, float]] = json.loads(out.read_text())["validation Acc"] if out.exists() else {}
    for recipe in tries(name, rates, epochs, only):
        choice = f"learning_rate {recipe.learner['learning_rate']:g}, epochs {recipe.learner['epochs']}"
        folder = Path("runs/search") / name / f"{recipe.row}, {choice}".replace(", ", "-").replace(" ", "-")
        for _ in perform(recipe, folder):
            pass
        (run,) = find_runs([folder])
        table.setdefault(recipe.row, {})[choice] = round(run.figures()["Acc"], 2)
        print(f"{name} {recipe.row}, {choice}: validation Acc {run.figures()['Acc']:.1f}", flush=True)
        out.parent.mkdir(exist_ok=True)
        out.write_text(json.dumps({"seed": SEED, "validation Acc": table}, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-3, 4e-3, 8e-3, 1e-3])
    parser.add_argument("--epochs", type=int, nargs="+", default=[], help="the recipe's by default")
    parser.add_argument("--rows", nargs="+", default=[], help="only these; all that are trained by default")
    given = parser.parse_args()
    for recipe_name in given.recipes:
        search(recipe_name, given.rates, given.epochs, given.rows)
