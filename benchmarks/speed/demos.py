"""Seconds of every stage of the two demos, by row.

    python benchmarks/speed/demos.py

Times on a shared machine are noisy: each row is run `REPEATS` times, the rows in turns, and the median is taken. Quote ratios.
"""

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from measurement import Measurement, emit
from newcomer.experiments.recipe import Recipe, read_recipe
from newcomer.experiments.run import StageEnd, commit, machine, run

REPEATS = 3
COMMAND = "python benchmarks/speed/demos.py"


def stage_seconds(recipe: Recipe) -> dict[str, float]:
    """Training seconds by stage."""
    stream = recipe.build_stream()
    learner = recipe.build_learner(stream)
    return {event.stage: event.train_seconds for event in run(learner, stream) if isinstance(event, StageEnd)}


def measure(name: str) -> list[Measurement]:
    rows = read_recipe(name).rows()
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(REPEATS):
        for recipe in rows:
            for stage, seconds in stage_seconds(recipe).items():
                times.setdefault((recipe.row, stage), []).append(seconds)
    width = max(len(row) for row, _ in times)
    for (row, stage), taken in times.items():
        print(f"{name:8} {row:{width}} {stage:10} {statistics.median(taken):8.3f} s")
    return [
        Measurement(
            name=f"{name} {row} {stage} seconds",
            value=round(statistics.median(taken), 4),
            unit="s",
            command=COMMAND,
            seeds=[0],
            machine=machine(),
            commit=commit(),
            std=round(statistics.stdev(taken), 4),
        )
        for (row, stage), taken in times.items()
    ]


if __name__ == "__main__":
    emit([measurement for demo in ("digits", "world") for measurement in measure(demo)])
