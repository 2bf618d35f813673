"""Whether one row of a comparison of item methods ranks better than another within items: paired over items and seeds.

    python benchmarks/quality/by_item.py ml-1m emerg shared-graph      # makes the models that run.py has not left

After each phase, the AUC within every new item whose query has clicks and non-clicks, by both rows' models of the same seed.
An item's difference is its mean over seeds; the t test is over items, and so is the spread of a figure.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Float
from run import with_models

from figure import Figure, emit, one_line
from newcomer.errors import RecipeError
from newcomer.experiments.recipe import Recipe, read_recipe
from newcomer.experiments.report.runs import Run
from newcomer.experiments.run import STORE
from newcomer.items.learner import ItemLearner
from newcomer.metrics.paired import paired_test
from newcomer.metrics.ranking import auc


def within_items(recipe: Recipe, run: Run) -> Iterator[tuple[str, dict[str, float]]]:
    """After each phase, its name and the AUC of every item that has one."""
    kind = cast(type[ItemLearner], recipe.family.learners[run.recipe["learner"]["name"]])
    for number, stage in enumerate(recipe.with_seed(run.recipe["seed"]).build_stream(), 1):
        if "query" not in stage.exams:
            continue
        exam = stage.exams["query"]
        score = kind.load(run.folder / STORE, stages=number).score(exam)
        order = np.argsort(exam.item, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(exam.item[order])) + 1)
        found = {exam.items.ids[exam.item[rows[0]]]: auc(exam.label[rows], score[rows]) for rows in parts}
        yield stage.name, {item: value for item, value in found.items() if not np.isnan(value)}


def differences(recipe: Recipe, one: Sequence[Run], other: Sequence[Run]) -> dict[str, Float[np.ndarray, " item"]]:
    """Of each phase, what `one` is above `other`, item by item, each item's mean over the seeds."""
    found: dict[str, dict[str, list[float]]] = {}
    for first, second in zip(one, other, strict=True):
        if first.recipe["seed"] != second.recipe["seed"]:
            raise RecipeError(f"{second.folder}: not the seed of {first.folder}; run both rows on the same seeds")
        for (phase, here), (_, there) in zip(within_items(recipe, first), within_items(recipe, second), strict=True):
            for item in here.keys() & there.keys():
                found.setdefault(phase, {}).setdefault(item, []).append(here[item] - there[item])
    return {phase: np.array([np.mean(seeds) for seeds in items.values()]) for phase, items in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("row")
    parser.add_argument("other")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--out", help="name of the comparison's folder; the recipe's by default")
    given = parser.parse_args()
    recipe, out = read_recipe(given.recipe, given.changes), given.out or Path(given.recipe).stem
    rows = with_models(given.recipe, [given.row, given.other], given.seeds, given.changes, out)
    one, other = rows[given.row], rows[given.other]
    changes = "".join(f" --set {change}" for change in given.changes) + (f" --out {out}" if given.out else "")
    command = f"python benchmarks/quality/by_item.py {given.recipe} {given.row} {given.other}{changes}"
    found = []
    for phase, values in differences(recipe, one, other).items():
        test = paired_test(values)
        print(
            f"{phase}: {test.mean:+.4f}, {test.low:+.4f} to {test.high:+.4f} over {len(values)} items, p {test.p:.3g}"
        )
        start = one[0].events[0]
        found.append(
            Figure(
                name=f"{out} {given.row} above {given.other} within items, {phase}",
                value=round(test.mean, 5),
                unit="1",
                command=command,
                seeds=[run.recipe["seed"] for run in one],
                machine=start["machine"],
                commit=start["commit"],
                spread=round(float(values.std(ddof=1)), 5),
            )
        )
    emit(found)


if __name__ == "__main__":
    with one_line():
        main()
