"""AUC within items of one row minus that of another: paired t test over items, averaged over seeds.

    python benchmarks/quality/by_item.py ml-1m emerg shared-graph      # makes the models that run.py has not left

The AUC is computed after each phase for every new item whose query set has clicks and non-clicks, with both rows' models of the
same seed. An item's difference is its mean over seeds; the standard deviation of a measurement is over items.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Float
from run import with_models

from measurement import Measurement, emit, one_line
from newcomer.errors import RecipeError
from newcomer.experiments.recipe import Recipe, read_recipe
from newcomer.experiments.report.runs import Run
from newcomer.experiments.run import STORE
from newcomer.items.learner import ItemLearner
from newcomer.metrics.paired import paired_test
from newcomer.metrics.ranking import auc


def within_items(recipe: Recipe, run: Run) -> Iterator[tuple[str, dict[str, float]]]:
    """The name of each phase and the AUC of every item that has one."""
    kind = cast(type[ItemLearner], recipe.family.learners[run.recipe["learner"]["name"]])
    for number, stage in enumerate(recipe.with_seed(run.recipe["seed"]).build_stream(), 1):
        if "query" not in stage.eval_sets:
            continue
        data = stage.eval_sets["query"]
        score = kind.load(run.folder / STORE, stages=number).score(data)
        order = np.argsort(data.item, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(data.item[order])) + 1)
        aucs = {data.items.ids[data.item[rows[0]]]: auc(data.label[rows], score[rows]) for rows in groups}
        yield stage.name, {item: value for item, value in aucs.items() if not np.isnan(value)}


def differences(recipe: Recipe, one: Sequence[Run], other: Sequence[Run]) -> dict[str, Float[np.ndarray, " item"]]:
    """AUC of `one` minus AUC of `other` in each phase, item by item, averaged over seeds."""
    by_phase: dict[str, dict[str, list[float]]] = {}
    for first, second in zip(one, other, strict=True):
        if first.recipe["seed"] != second.recipe["seed"]:
            raise RecipeError(f"{second.folder}: not the seed of {first.folder}; run both rows on the same seeds")
        for (phase, here), (_, there) in zip(within_items(recipe, first), within_items(recipe, second), strict=True):
            for item in here.keys() & there.keys():
                by_phase.setdefault(phase, {}).setdefault(item, []).append(here[item] - there[item])
    return {phase: np.array([np.mean(seeds) for seeds in items.values()]) for phase, items in by_phase.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("row")
    parser.add_argument("other")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--out", help="name of the comparison's folder; the recipe's by default")
    args = parser.parse_args()
    recipe, out = read_recipe(args.recipe, args.changes), args.out or Path(args.recipe).stem
    rows = with_models(args.recipe, [args.row, args.other], args.seeds, args.changes, out)
    one, other = rows[args.row], rows[args.other]
    changes = "".join(f" --set {change}" for change in args.changes) + (f" --out {out}" if args.out else "")
    command = f"python benchmarks/quality/by_item.py {args.recipe} {args.row} {args.other}{changes}"
    measurements = []
    for phase, values in differences(recipe, one, other).items():
        test = paired_test(values)
        print(
            f"{phase}: {test.mean:+.4f}, {test.low:+.4f} to {test.high:+.4f} over {len(values)} items, p {test.p:.3g}"
        )
        start = one[0].events[0]
        measurements.append(
            Measurement(
                name=f"{out} {args.row} above {args.other} within items, {phase}",
                value=round(test.mean, 5),
                unit="1",
                command=command,
                seeds=[run.recipe["seed"] for run in one],
                machine=start["machine"],
                commit=start["commit"],
                std=round(float(values.std(ddof=1)), 5),
                better="higher",
            )
        )
    emit(measurements)


if __name__ == "__main__":
    with one_line():
        main()
