"""Calibration of new items by what earlier ones have shown (`ItemLearner.calibrate`), as a service with `--calibrate-every` has it.

    python benchmarks/quality/calibration_in_service.py ml-latest-small --seeds 0 1 2
    python benchmarks/quality/calibration_in_service.py ml-1m --order random --seeds 0 1 2

The new items of the cold-start protocol in ten parts, each of which is scored in every phase by the calibration of training,
and by that of `calibrate`; on the query events of the protocol, and on the events that came next. `--order time`: parts by the
items' first events, calibrated on what came before the first event of the part; the first part, before which nothing came, is
not scored. `--order random`, for logs without true times: random parts, each calibrated on the others. Reported are clicks
expected over clicks that came, the expected calibration error and the AUC.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
from measurement import Measurement, emit, one_line
from newcomer.data.click_log import ClickLog
from newcomer.errors import LearnerError
from newcomer.experiments.recipe import Recipe, read_recipe
from newcomer.experiments.run import commit, machine
from newcomer.items.calibration import Calibration
from newcomer.items.learner import ItemLearner
from newcomer.metrics.calibration import calibration, calibration_error
from newcomer.metrics.ranking import auc
from newcomer.streams.cold_start import NewEvents, NewItems

PHASES = ("cold", "warm-a", "warm-b", "warm-c")
PARTS = 10

Floats = NDArray[np.float64]


def calibrations(learner: ItemLearner, known: Iterable[ClickLog]) -> Iterator[Calibration]:
    """For each of these logs the calibration by it, or the one of training where it is too little."""
    trained = len(learner.entries)
    for log in known:
        learner.fitted_calibration = Calibration.from_json(learner.entries[0].info["calibration"])
        try:
            learner.calibrate(log)
        except LearnerError as error:
            print(error, file=sys.stderr, flush=True)
        del learner.entries[trained:]
        yield learner.fitted_calibration


def results(recipe: Recipe, by_time: bool) -> Iterator[tuple[str, str, float]]:
    """Of one seed: phase, metric and value."""
    source = recipe.family.sources[recipe.data["name"]]
    log = source(**{key: value for key, value in recipe.data.items() if key != "name"})
    stream = recipe.family.streams["cold-start"](log, **recipe.stream, seed=recipe.seed)
    learner = recipe.build_learner(stream)
    assert isinstance(learner, ItemLearner)
    rows = np.concatenate([part.row for part in (*stream.new.phases, stream.new.query)])
    lives = log.take(np.isin(log.row, rows))
    begin = np.full(len(log.items), np.iinfo(np.int64).max)
    np.minimum.at(begin, lives.item, lives.time)
    new = np.unique(lives.item)
    order = (
        np.argsort(begin[new], kind="stable") if by_time else np.random.default_rng(recipe.seed).permutation(len(new))
    )
    parts, number = np.array_split(new[order], PARTS), np.full(len(log.items), -1)
    for n, part in enumerate(parts):
        number[part] = n
    known = [lives.time < begin[part].min() if by_time else number[lives.item] != n for n, part in enumerate(parts)]
    fitted: list[Calibration] = []
    for stage in stream:
        if isinstance(stage.train, (NewItems, NewEvents)) and not fitted:
            first = learner.fitted_calibration
            fitted = [*calibrations(learner, map(lives.take, known))]
            learner.fitted_calibration = Calibration()
        for _ in learner.fit_stage(stage):
            pass
        if stage.name not in PHASES:
            continue
        following = [*stream.new.phases, stream.new.query][PHASES.index(stage.name)]
        for which, events in (("query", stream.new.query), ("next events", following)):
            p = np.clip(learner.score(events), 1e-12, 1 - 1e-12)
            count = np.array([learner.counts[learner.known[events.items.ids[item]]] for item in events.item])
            logit, of = np.log(p / (1 - p)), number[events.item]
            anew = np.select([of == n for n in range(PARTS)], [one(logit, count) for one in fitted])
            later = of > 0 if by_time else of >= 0
            for name, values in (("trained", first(logit, count)), ("anew", anew)):
                label, probability = events.label[later], 1 / (1 + np.exp(-values[later]))
                yield stage.name, f"{which}, ratio, {name}", calibration(label, probability)
                yield stage.name, f"{which}, error, {name}", calibration_error(label, probability)
                yield stage.name, f"{which}, auc, {name}", auc(label, probability)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--order", choices=["time", "random"], default="time")
    parser.add_argument("--set", action="append", default=[], dest="changes")
    args = parser.parse_args()
    recipe = read_recipe(args.recipe, [*args.changes, "learner.calibrate=true"]).with_chosen()
    found: dict[tuple[str, str], list[float]] = {}
    for seed in args.seeds:
        for phase, metric, value in results(recipe.with_seed(seed), args.order == "time"):
            found.setdefault((phase, metric), []).append(value)
            print(f"seed {seed}, {phase}, {metric}: {value:.4f}", file=sys.stderr, flush=True)
    seeds = " ".join(map(str, args.seeds))
    command = f"python benchmarks/quality/calibration_in_service.py {args.recipe} --order {args.order} --seeds {seeds}"
    emit(
        Measurement(
            name=f"{args.recipe}, {phase}: {metric}",
            value=round(float(np.mean(values)), 4),
            unit="1",
            command=command,
            seeds=args.seeds,
            machine=machine(),
            commit=commit(),
            std=round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None,
            better="higher" if "auc" in metric else "lower",
        )
        for (phase, metric), values in found.items()
    )


if __name__ == "__main__":
    with one_line():
        main()
