"""Seconds that every stage of the two demos takes, row beside row, in turns.

    python benchmarks/speed/demos.py

Times on a shared machine are noisy: each row is run `REPEATS` times, the rows in turns, and the median counts. Quote the ratios.
"""

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from figure import Figure, emit
from newcomer.experiments.recipe import Recipe, read_recipe
from newcomer.experiments.run import Finished, commit, machine, run

REPEATS = 3
COMMAND = "python benchmarks/speed/demos.py"


def stage_seconds(recipe: Recipe) -> dict[str, float]:
    """Seconds of study by stage."""
    stream = recipe.build_stream()
    learner = recipe.build_learner(stream)
    return {event.stage: event.study_seconds for event in run(learner, stream) if isinstance(event, Finished)}


def measure(name: str) -> list[Figure]:
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
        Figure(
            name=f"{name} {row} {stage} seconds",
            value=round(statistics.median(taken), 4),
            unit="s",
            command=COMMAND,
            seeds=[0],
            machine=machine(),
            commit=commit(),
            spread=round(statistics.stdev(taken), 4),
        )
        for (row, stage), taken in times.items()
    ]


if __name__ == "__main__":
    emit([figure for demo in ("digits", "world") for figure in measure(demo)])
