"""Finished and unfinished runs as their records tell them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from newcomer.errors import StoreError
from newcomer.experiments.report.records import QUERY, require_events
from newcomer.metrics.accuracy import (
    accuracy_matrix,
    average_anytime_accuracy,
    final_accuracy,
    final_accuracy_micro,
    forgetting,
)
from newcomer.printable import printable
from newcomer.settings import Json, changes
from newcomer.store.record import Event, read_record

RECORD = "record.jsonl"
COMPARISON, SEARCH = "comparison.json", "search"
"""In the folder of a comparison: what it found, and the tries that are no rows."""
CURVE = "curve"
"""The exam that items sit after every so many events; after every phase it is `QUERY`."""
MARKS = {"classes": "Acc", "items": "mean AUC"}
"""What a mark is: mean accuracy over tasks after the last stage in %, and mean pooled AUC over cold and the warm phases."""
EVENTS = " events"
"""How a stage of the exam `curve` ends that is named by the number of events."""


@dataclass(frozen=True)
class Run:
    """One row of one recipe with one seed."""

    folder: Path
    events: Sequence[Event]

    @property
    def recipe(self) -> Mapping[str, Json]:
        recipe: Mapping[str, Json] = self.events[0]["recipe"]
        return recipe

    @property
    def finished(self) -> bool:
        return bool(self.events[-1]["event"] == "end")

    @cached_property
    def scores(self) -> list[Event]:
        return [event for event in self.events if event["event"] == "score"]

    @property
    def phases(self) -> list[Event]:
        """The scores of the exam that a new item sits after every phase of its life."""
        return [score for score in self.scores if score["exam"] == QUERY]

    def curve(self, score: str) -> dict[int, float]:
        """One score by the number of events that an item had had, ascending; empty where it was not asked for."""
        found = {s["stage"]: s["values"][score] for s in self.scores if s["exam"] == CURVE and score in s["values"]}
        counted = {int(stage.removesuffix(EVENTS)): value for stage, value in found.items() if stage.endswith(EVENTS)}
        return dict(sorted(counted.items()))

    @property
    def calibration(self) -> dict[str, float]:
        """Σp / Σy by how many events an item had had, as the last stage that tells it does; empty in records that do not."""
        told = [stage["facts"]["calibration"] for stage in self.stages if "calibration" in stage["facts"]]
        sums = told[-1].items() if told else ()
        return {name: part["expected"] / part["clicks"] if part["clicks"] else float("nan") for name, part in sums}

    @cached_property
    def stages(self) -> list[Event]:
        return [event for event in self.events if event["event"] == "stage"]

    @property
    def study_seconds(self) -> float:
        return float(sum(stage["study_seconds"] for stage in self.stages))

    @property
    def accuracy(self) -> np.ndarray:
        """The accuracy matrix of a class-incremental run."""
        return accuracy_matrix([(s["stage"], s["exam"], s["values"]["accuracy"]) for s in self.scores])

    @property
    def limit(self) -> float | None:
        """The AUC that no model can exceed, where the data are simulated."""
        limit: float | None = self.events[0]["stream"].get("limit")
        return limit

    def summary(self) -> str:
        """One sentence on what was taught and asked."""
        stream = self.events[0]["stream"]
        if self.recipe["family"] == "classes":
            classes = sum(map(len, stream["tasks"]))
            return (
                f"{classes} classes in {len(stream['tasks'])} tasks, taught by {stream['taught']:,} examples and asked by "
                f"{stream['asked']:,}; no example of an earlier task is kept."
            )
        return (
            f"{stream['old_items']:,} old items with {stream['old_events']:,} events; {stream['new_items']:,} new ones with "
            f"{stream['phase_events']:,} events a warm phase, asked by {stream['query_events']:,} later events."
        )

    @property
    def mark(self) -> float:
        """The one number by which settings are chosen and rows compared, see `MARKS`; the larger the better."""
        if self.recipe["family"] == "classes":
            return self.figures()["Acc"]
        return float(np.mean([phase["values"]["auc"] for phase in self.phases]))

    def figures(self) -> dict[str, float]:
        """What the run is judged by, by name: percentages for classes, pooled AUC of each phase and more for items."""
        if not self.scores:
            return {}
        if self.recipe["family"] == "classes":
            matrix = self.accuracy
            last = [s for s in self.scores if s["stage"] == self.scores[-1]["stage"]]
            examples = np.array([int(s["values"]["examples"]) for s in last])
            shares = {
                "Acc": final_accuracy(matrix),
                "Acc micro": final_accuracy_micro(matrix, examples),
                "AAA": average_anytime_accuracy(matrix),
                "forgetting": forgetting(matrix),
            }
            return {name: 100 * share for name, share in shares.items()} | {"seconds": self.study_seconds}
        scores = sorted(
            self.scores, key=lambda score: bool(score["exam"] == QUERY)
        )  # the query's where both have a stage
        found = {f"{s['stage']} {name}": value for s in scores for name, value in s["values"].items()}
        found |= {f"calibration after {name} events": share for name, share in self.calibration.items()}
        return {**found, "seconds": self.study_seconds}


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """All runs in these folders, at any depth, in order of their paths, but for the tries of a comparison among them.

    Raises StoreError for a folder that holds none.
    """
    runs = []
    for folder in folders:
        records = sorted(path for path in folder.rglob(RECORD) if not _is_try(path.relative_to(folder), folder))
        found = [run for path in records if (run := read_run(path.parent))]
        if not found:
            raise StoreError(f"{folder}: no record of a run here; give a folder that 'newcomer run' wrote")
        runs += found
    return runs


def read_run(folder: Path) -> Run | None:
    """The run whose record lies in this folder; None where nothing was written into it yet.

    Raises StoreError where it cannot be read, or is no run's.
    """
    events = list(read_record(folder / RECORD))
    require_events(events, folder / RECORD)
    return Run(folder, events) if events else None


def _is_try(path: Path, folder: Path) -> bool:
    return any(place.name == SEARCH and (folder / place.parent / COMPARISON).exists() for place in path.parents)


def by_row(runs: Iterable[Run]) -> dict[str, dict[str, list[Run]]]:
    """Recipe → row → its runs, one a seed; rows in the recipe's order, one more for every change of settings."""
    grouped: dict[str, dict[str, list[Run]]] = {}
    first: dict[tuple[str, str], Run] = {}
    for run in sorted(runs, key=lambda run: int(run.events[0]["place"])):
        name, row = run.recipe["name"], run.recipe["row"]
        plain = first.setdefault((name, row), run).recipe
        changed = [f"{key} = {new}" for key, (_, new) in changes(plain, run.recipe).items() if key != "seed"]
        grouped.setdefault(name, {}).setdefault(printable(" · ".join([row, *changed])), []).append(run)
    return grouped
