"""Coverage of new items' intervals on a real log: does the std of a logit say how far held-back items are from their scores?

    python benchmarks/quality/coverage.py ml-latest-small --seeds 0 1 2

The new items of the cold-start protocol are scored in every phase with the std of the logit. The clicks of an item's query events
are then counted, and an interval for that number is drawn from the scores: the item's logits are shifted together by z stds, z ~
N(0, 1), and clicks are drawn from the probabilities. Reported is the share of items whose clicks lie in the 90 % interval, and the
same with stds of 0, where all spread is that of the clicks. Items with fewer than 10 query events are left out. Ties count by their
share, so that an interval of whole numbers has 90 % where it is right.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
from measurement import Measurement, emit, one_line
from newcomer.data.click_log import ClickLog
from newcomer.experiments.recipe import Recipe, read_recipe
from newcomer.experiments.run import commit, machine
from newcomer.items.learner import ItemLearner
from newcomer.items.serving.service import ItemService
from newcomer.streams.cold_start import NewEvents, NewItems

PHASES = ("cold", "warm-a", "warm-b", "warm-c")
LEAST, DRAWS, LEVEL = 10, 2000, 0.9

Floats = NDArray[np.float64]


def ranks(logits: Floats, stds: Floats, query: ClickLog, chance: np.random.Generator) -> Floats:
    """Of each item with enough events: the share of drawn numbers of clicks below the one that came, ties at random."""
    found = []
    for item in np.flatnonzero(np.bincount(query.item) >= LEAST):
        rows = query.item == item
        shift = chance.standard_normal((DRAWS, 1)) * stds[rows]
        drawn = (chance.random((DRAWS, int(rows.sum()))) < 1 / (1 + np.exp(-(logits[rows] + shift)))).sum(axis=1)
        came = query.label[rows].sum()
        found.append(((drawn < came).sum() + chance.random() * (1 + (drawn == came).sum())) / (DRAWS + 1))
    return np.array(found)


def results(recipe: Recipe) -> Iterator[tuple[str, str, float]]:
    """Of one seed: phase, metric and value."""
    source = recipe.family.sources[recipe.data["name"]]
    log = source(**{key: value for key, value in recipe.data.items() if key != "name"})
    stream = recipe.family.streams["cold-start"](log, **recipe.stream, seed=recipe.seed)
    learner = recipe.build_learner(stream)
    assert isinstance(learner, ItemLearner)
    chance = np.random.default_rng(recipe.seed)
    old, *stages = stream
    for _ in learner.fit_stage(old):
        pass
    with tempfile.TemporaryDirectory() as folder:
        learner.save(Path(folder) / "store")
        with ItemService.open(Path(folder) / "store", "sqlite://") as service:
            for stage in stages:
                if isinstance(stage.train, NewItems):
                    service.add(stage.train.items)
                if isinstance(stage.train, NewEvents):
                    service.warm(stage.train.log)
                if stage.name not in PHASES:
                    continue
                query = stream.new.query
                scores = service.score(query, uncertainty=True)
                logits, stds = (scores[name].to_numpy().astype(float) for name in ("logit", "logit_std"))
                for which, given in (("", stds), (" without the std", np.zeros_like(stds))):
                    rank = ranks(logits, given, query, chance)
                    inside = np.abs(rank - 0.5) < LEVEL / 2
                    yield stage.name, f"coverage of 90 % intervals{which}", float(inside.mean())
                yield stage.name, "mean std of the logit", float(stds.mean())
                yield stage.name, "items", float(len(rank))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", default=[], dest="changes")
    args = parser.parse_args()
    recipe = read_recipe(args.recipe, [*args.changes, "learner.calibrate=true"]).with_chosen()
    found: dict[tuple[str, str], list[float]] = {}
    for seed in args.seeds:
        for phase, metric, value in results(recipe.with_seed(seed)):
            found.setdefault((phase, metric), []).append(value)
            print(f"seed {seed}, {phase}, {metric}: {value:.4f}", file=sys.stderr, flush=True)
    emit(
        Measurement(
            name=f"{args.recipe}, {phase}: {metric}",
            value=round(float(np.mean(values)), 4),
            unit="1",
            command=f"python benchmarks/quality/coverage.py {args.recipe} --seeds {' '.join(map(str, args.seeds))}",
            seeds=args.seeds,
            machine=machine(),
            commit=commit(),
            std=round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None,
            better="higher",
        )
        for (phase, metric), values in found.items()
    )


if __name__ == "__main__":
    with one_line():
        main()
