"""Compare all rows of a recipe over several seeds; the records go to benchmarks/quality/<recipe>/.

    python benchmarks/quality/run.py cifar100-vit-tiny --processes 2    # goes on where it was cut off
    python benchmarks/quality/run.py ml-1m --seeds 0 1 2 --set stream.old_items=400

The comparison runs in runs/quality/<recipe>/. Kept of it are the records of its runs without step events, and comparison.json
with every trial and the chosen settings. On another machine it is resumed from these files; to run it from scratch, remove both
folders.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from measurement import Measurement, emit, one_line
from newcomer.errors import RecipeError
from newcomer.experiments.comparison import JobResult, compare
from newcomer.experiments.recipe import read_recipe
from newcomer.experiments.report.comparison import comparison_tables, read_comparison, write_comparison
from newcomer.experiments.report.runs import COMPARISON, RECORD, Run, by_row, find_runs
from newcomer.experiments.run import STORE, run_recipe

HERE = Path(__file__).parent
RUNS = Path("runs/quality")
HIGHER = ("auc", "item_auc", "user_auc", "f1", "Acc", "micro", "AAA")
"""Last words of the metrics of which more is better."""
TARGETS = json.loads((HERE / "targets.json").read_text(encoding="utf-8"))
"""Recipe → row → metric → the value to reach."""


def run_all(
    name: str,
    seeds: Sequence[int],
    changes: Sequence[str],
    out: str,
    only: Sequence[str],
    processes: int = 1,
    budget: int | None = None,
) -> Path:
    """Run the unfinished trials and runs of all rows, or of `only` these; returns the folder of the records."""
    recipe, folder, kept = read_recipe(name, changes), RUNS / out, HERE / out
    if not folder.exists() and (kept / COMPARISON).exists():
        shutil.copytree(kept, folder)
    for job, event in compare(recipe, folder, seeds, budget, processes, only):
        if isinstance(event, JobResult):
            outcome = event.failure or f"{event.score:.4g}, {event.seconds:.0f} s"
            print(f"{event.done} of {event.count}: {job.title}: {outcome}", flush=True)
    for row, runs in read_comparison(folder).runs.items():
        for run in (run for run in runs if run.finished and (row in only or not only)):
            path = Path(row) / run.folder.name / RECORD
            _keep(folder / path, kept / path)
    kept.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / COMPARISON, kept / COMPARISON)
    return kept


def with_models(
    name: str, rows: Sequence[str], seeds: Sequence[int], changes: Sequence[str] = (), out: str | None = None
) -> dict[str, list[Run]]:
    """The finished runs of these rows with their models; a run without a model is repeated."""
    out = out or Path(name).stem
    run_all(name, seeds, changes, out, rows)
    comparison, runs = read_comparison(RUNS / out), {}
    for row in (row for row in read_recipe(name, changes).rows() if row.row in rows):
        finished = comparison.finished(row.row)
        if failed := [seed for seed in seeds if seed not in finished]:
            raise RecipeError(f"{RUNS / out}: row '{row.row}' failed with seed {failed[0]}; leave it out of --seeds")
        runs[row.row] = [finished[seed] for seed in seeds]
        for run in runs[row.row]:
            if not (run.folder / STORE).exists():
                (run.folder / RECORD).unlink()
                chosen = comparison.rows[row.row]["chosen"] or {}
                again = replace(row, learner={**row.learner, **chosen}).with_seed(run.recipe["seed"])
                for _ in run_recipe(again, run.folder):
                    pass
    return runs


def _keep(record: Path, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
    kept.write_text("".join(line for line in lines if json.loads(line)["event"] != "step"), encoding="utf-8")


def measurements(rows: dict[str, list[Run]], out: str, command: str) -> list[Measurement]:
    """Every metric of every row: mean and standard deviation over seeds."""
    results = []
    for row, runs in rows.items():
        start = runs[0].events[0]
        for name in runs[0].metrics():
            values = np.array([run.metrics()[name] for run in runs])
            if np.isnan(values).any():
                continue
            results.append(
                Measurement(
                    name=f"{out} {row} {name}",
                    value=round(float(values.mean()), 5),
                    unit=_unit(name, runs[0]),
                    command=command,
                    seeds=[run.recipe["seed"] for run in runs],
                    machine=start["machine"],
                    commit=start["commit"],
                    target=TARGETS.get(out, {}).get(row, {}).get(name),
                    std=round(float(values.std(ddof=1)), 5) if len(values) > 1 else None,
                    better="higher" if name.split()[-1] in HIGHER else "lower",
                )
            )
    return results


def _unit(name: str, run: Run) -> str:
    if name == "seconds":
        return "s"
    return "%" if run.recipe["family"] == "classes" else "nats" if name.endswith("logloss") else "1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=1, help="runs at a time; 1 for comparable seconds")
    parser.add_argument("--budget", type=int, help="trials per row; the recipe's by default")
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--out", help="name of the folder of records; the recipe's by default")
    parser.add_argument("--rows", nargs="+", default=[], help="only these rows; the records of others are kept")
    args = parser.parse_args()
    out = args.out or Path(args.recipe).stem
    folder = run_all(args.recipe, args.seeds, args.changes, out, args.rows, args.processes, args.budget)
    rows = next(iter(by_row(find_runs([folder])).values()))
    print(write_comparison(RUNS / out))
    for table in comparison_tables(read_comparison(RUNS / out)):
        print(f"\n{table.title}\n\n{table.markdown()}\n\n{table.note}\n")
    changes = "".join(f" --set {change}" for change in args.changes) + (f" --out {out}" if args.out else "")
    emit(measurements(rows, out, f"python benchmarks/quality/run.py {args.recipe}{changes}"))


if __name__ == "__main__":
    with one_line():
        main()
