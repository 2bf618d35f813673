"""Runs read from their records: scores, metrics and calibration."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from newcomer.errors import StoreError
from newcomer.experiments.report.record_schema import QUERY, require_events
from newcomer.metrics.accuracy import (
    accuracy_matrix,
    average_anytime_accuracy,
    final_accuracy,
    final_accuracy_micro,
    forgetting,
    forgetting_by_task,
)
from newcomer.printable import printable
from newcomer.settings import Json, changes
from newcomer.store.record import Event, read_record

RECORD = "record.jsonl"
COMPARISON, SEARCH = "comparison.json", "search"
"""In the folder of a comparison: its results, and the folder of its trials."""
CURVE = "curve"
"""The evaluation set of learning curves by number of events; the one after every phase is `QUERY`."""
PRIMARY_METRICS = {"classes": "Acc", "items": "mean AUC"}
"""Names of `Run.primary_metric`: mean accuracy over tasks after the last stage in %; mean pooled AUC over all phases."""
EVENTS = " events"
"""Suffix of stages of the evaluation set `curve` that are named by their number of events."""


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
        """The scores of new items on `QUERY`, one after every phase."""
        return [score for score in self.scores if score["eval_set"] == QUERY]

    def curve(self, score: str) -> dict[int, float]:
        """Number of events per item → score, ascending; empty if the curve was not evaluated."""
        by_stage = {
            s["stage"]: s["values"][score] for s in self.scores if s["eval_set"] == CURVE and score in s["values"]
        }
        by_events = {int(stage.removesuffix(EVENTS)): v for stage, v in by_stage.items() if stage.endswith(EVENTS)}
        return dict(sorted(by_events.items()))

    @property
    def calibration(self) -> dict[str, float]:
        """Calibration Σp / Σy by bucket of events per item, from the last stage that has it; empty if none has."""
        recorded = [stage["info"]["calibration"] for stage in self.stages if "calibration" in stage["info"]]
        sums = recorded[-1].items() if recorded else ()
        return {name: part["expected"] / part["clicks"] if part["clicks"] else float("nan") for name, part in sums}

    @cached_property
    def stages(self) -> list[Event]:
        return [event for event in self.events if event["event"] == "stage"]

    @property
    def train_seconds(self) -> float:
        return float(sum(stage["train_seconds"] for stage in self.stages))

    @property
    def accuracy(self) -> np.ndarray:
        """The accuracy matrix of a class- or domain-incremental run."""
        return accuracy_matrix([(s["stage"], s["eval_set"], s["values"]["accuracy"]) for s in self.scores])

    @property
    def eval_sets(self) -> list[str]:
        """The evaluation sets, in the order of the columns of `accuracy`."""
        return list(dict.fromkeys(score["eval_set"] for score in self.scores))

    @property
    def domains(self) -> list[str]:
        """The domains of a domain-incremental run, in order; none of another."""
        domains: list[str] = self.events[0]["stream"].get("domains", [])
        return domains

    @property
    def limit(self) -> float | None:
        """The Bayes-optimal AUC, known for simulated data only."""
        limit: float | None = self.events[0]["stream"].get("limit")
        return limit

    def summary(self) -> str:
        """One sentence on the sizes of the stream."""
        stream = self.events[0]["stream"]
        if self.domains:
            return (
                f"{len(stream['classes'])} classes in each of {len(self.domains)} domains, trained on "
                f"{stream['train_examples']:,} examples, evaluated on {stream['eval_examples']:,}; no example of an earlier domain "
                "is kept."
            )
        if self.recipe["family"] == "classes":
            classes = sum(map(len, stream["tasks"]))
            return (
                f"{classes} classes in {len(stream['tasks'])} tasks, trained on {stream['train_examples']:,} examples, evaluated "
                f"on {stream['eval_examples']:,}; no example of an earlier task is kept."
            )
        return (
            f"{stream['old_items']:,} old items with {stream['old_events']:,} events; {stream['new_items']:,} new ones with "
            f"{stream['phase_events']:,} events a warm phase, evaluated on {stream['query_events']:,} later events."
        )

    @property
    def primary_metric(self) -> float:
        """The metric by which settings are chosen and rows compared, see `PRIMARY_METRICS`; higher is better."""
        if self.recipe["family"] == "classes":
            return self.metrics()["Acc"]
        return float(np.mean([phase["values"]["auc"] for phase in self.phases]))

    def metrics(self) -> dict[str, float]:
        """All metrics by name: percentages for classes; each score of each stage, and calibration, for items; seconds."""
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
            if self.domains:
                lost = forgetting_by_task(matrix)
                for domain, accuracy, forgotten in zip(self.eval_sets, matrix[-1], lost, strict=True):
                    shares |= {f"Acc {domain}": float(accuracy), f"forgetting {domain}": float(forgotten)}
            return {name: 100 * share for name, share in shares.items()} | {"seconds": self.train_seconds}
        scores = sorted(
            self.scores, key=lambda score: bool(score["eval_set"] == QUERY)
        )  # `QUERY` wins where both evaluation sets have a stage
        metrics = {f"{s['stage']} {name}": value for s in scores for name, value in s["values"].items()}
        metrics |= {f"calibration after {name} events": ratio for name, ratio in self.calibration.items()}
        return {**metrics, "seconds": self.train_seconds}


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """All runs in these folders, at any depth, sorted by path; the trials of a comparison are left out.

    Raises StoreError for a folder without runs.
    """
    runs = []
    for folder in folders:
        records = sorted(path for path in folder.rglob(RECORD) if not _is_trial(path.relative_to(folder), folder))
        valid = [run for path in records if (run := read_run(path.parent))]
        if not valid:
            raise StoreError(f"{folder}: no record of a run here; give a folder written by 'newcomer run'")
        runs += valid
    return runs


def read_run(folder: Path) -> Run | None:
    """The run whose record is in this folder; None if the record is still empty.

    Raises StoreError if the record cannot be read or is invalid.
    """
    events = list(read_record(folder / RECORD))
    require_events(events, folder / RECORD)
    return Run(folder, events) if events else None


def _is_trial(path: Path, folder: Path) -> bool:
    return any(parent.name == SEARCH and (folder / parent.parent / COMPARISON).exists() for parent in path.parents)


def by_row(runs: Iterable[Run]) -> dict[str, dict[str, list[Run]]]:
    """Recipe → row → its runs over seeds, in the recipe's order; runs with changed settings are rows of their own."""
    grouped: dict[str, dict[str, list[Run]]] = {}
    first: dict[tuple[str, str], Run] = {}
    for run in sorted(runs, key=lambda run: int(run.events[0]["position"])):
        name, row = run.recipe["name"], run.recipe["row"]
        base = first.setdefault((name, row), run).recipe
        changed = [f"{key} = {new}" for key, (_, new) in changes(base, run.recipe).items() if key != "seed"]
        grouped.setdefault(name, {}).setdefault(printable(" · ".join([row, *changed])), []).append(run)
    return grouped
