"""Comparison of all rows of a recipe: equal hyper-parameter search budgets on validation sets, then runs over seeds on test sets.

    OUT/search/ROW/TRIAL/   a trial: a run evaluated on validation data; its record is kept, its model removed; further draws of
                            validation data are in TRIAL.draw-2, …
    OUT/ROW/seed-N/         a run with the chosen settings, as written by `newcomer run`
    OUT/comparison.json     every trial with its settings and score, the chosen settings, and what report tables need

The trial with the best `Run.primary_metric` on validation data is chosen; with several draws the earliest within one standard
error of it (`search.best`). A recipe without search settings has no trials: its rows run as they are.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from filelock import Timeout

from newcomer.data.fingerprint import fingerprint
from newcomer.errors import RecipeError, StoreError, nearest
from newcomer.experiments.ray_workers import RayWorkers
from newcomer.experiments.recipe import Recipe
from newcomer.experiments.report.record_schema import read_comparison_file
from newcomer.experiments.report.runs import COMPARISON, RECORD, SEARCH, Run, read_run
from newcomer.experiments.run import CHECKPOINT, STORE, Event, require_same_data
from newcomer.experiments.search import best
from newcomer.experiments.workers import Job, JobEnd, Workers
from newcomer.settings import Json, changes
from newcomer.store.writing import take_lock, to_json, write_whole
from newcomer.training.processes import Processes

Parallel = int | Literal["ray"]
"""Number of worker processes, or the tasks of a Ray cluster."""

RESULT = ("score", "seconds", "failure")
"""What is known of a trial, or of one of its draws."""

MAX_NAME_LENGTH = 100
"""The most characters of a trial's folder name, without its hash."""


@dataclass(frozen=True)
class JobResult:
    """The end of a trial or a run: its score, or the reason why it has none."""

    score: float | None
    seconds: float
    failure: str | None
    done: int
    """Finished jobs of this round, of `count`."""
    count: int


def compare(
    recipe: Recipe,
    out: Path,
    seeds: Sequence[int] = (0, 1, 2),
    budget: int | None = None,
    processes: Parallel = 1,
    only: Sequence[str] = (),
) -> Generator[tuple[Job, Event | JobResult], None, None]:
    """Search every row (or `only` these), then run each with its chosen settings; yields the events of all jobs.

    An interrupted comparison is resumed by the same call. A larger `budget` keeps earlier trials; runs are repeated for rows whose
    chosen settings change. Raises RecipeError for unknown rows and if `out` holds a comparison of other settings, StoreError if
    another process uses `out` or it cannot be written.
    """
    if Processes().count > 1:
        raise RecipeError("a comparison starts its own processes; run it without torchrun and give --processes")
    rows = recipe.rows()
    for name in only:
        if name not in (known := [row.row for row in rows]):
            raise RecipeError(f"recipe '{recipe.name}' has no row '{name}'; {nearest(name, known)}")
    if SEARCH in (row.row for row in rows):
        raise RecipeError(f"row '{SEARCH}' has the name of the trials' folder; give the baseline another name")
    searching = any(row.search.settings for row in rows)
    rows = [row for row in rows if not only or row.row in only]
    plans = {r.row: r.search.trials(r.learner, budget or r.search.budget) if searching else [] for r in rows}
    file = _ComparisonFile(recipe, out)
    for row in rows:
        file.plan(row, plans[row.row])
    with _locked(out), _workers(processes) as workers:
        file.write()
        yield from _search(rows, file, workers)
        yield from _run_seeds(rows, file, seeds, workers)


def _workers(processes: Parallel) -> Workers | RayWorkers:
    return RayWorkers() if processes == "ray" else Workers(processes)


def _search(
    rows: Sequence[Recipe], file: "_ComparisonFile", workers: Workers | RayWorkers
) -> Iterator[tuple[Job, Event | JobResult]]:
    """Run the unfinished trials: the first of every row, then the second, so that an interrupted search covers all rows."""
    jobs = [
        (draw, number, _trial_job(row, trial["settings"], draw, file.out))
        for row in rows
        for number, trial in enumerate(file.planned(row.row))
        for draw in range(1, row.search.draws + 1)
        if str(draw) not in _results(trial)
    ]
    jobs.sort(key=lambda job: job[:2])
    of = {job.folder: (number, draw) for draw, number, job in jobs}
    done = 0
    for job, event in workers.run([job for *_, job in jobs]):
        if not isinstance(event, JobEnd):
            yield job, event
            continue
        score, seconds, failure = _score(job, event)
        file.record_draw(job.recipe, *of[job.folder], score, seconds, failure)
        for part in (STORE, CHECKPOINT):
            shutil.rmtree(job.folder / part, ignore_errors=True)
        yield job, JobResult(score, seconds, failure, done := done + 1, len(jobs))
    file.choose(rows)


def _run_seeds(
    rows: Sequence[Recipe], file: "_ComparisonFile", seeds: Sequence[int], workers: Workers | RayWorkers
) -> Iterator[tuple[Job, Event | JobResult]]:
    """Run every row with its chosen settings on every seed."""
    jobs = []
    for row in rows:
        file.remove_outdated_runs(row, seeds)
    for seed in seeds:
        for row in rows:
            chosen = file.rows[row.row]["chosen"]
            job = Job(
                replace(row, learner={**row.learner, **(chosen or {})}).with_seed(seed),
                file.out / row.row / f"seed-{seed}",
                f"{row.name} · {row.row} · seed {seed}",
            )
            run = _read_run(job.folder)
            finished = run is not None and run.finished and not changes(run.recipe, job.recipe.resolved())
            if chosen is not None and not finished and str(seed) not in file.rows[row.row]["failures"]:
                jobs.append(job)
    done = 0
    for job, event in workers.run(jobs):
        if not isinstance(event, JobEnd):
            yield job, event
            continue
        score, seconds, failure = _score(job, event)
        if event.failure:
            file.rows[job.recipe.row]["failures"][str(job.recipe.seed)] = event.failure
            file.write()
        yield job, JobResult(score, seconds, failure, done := done + 1, len(jobs))


def _trial_job(row: Recipe, settings: dict[str, Json], draw: int, out: Path) -> Job:
    name, title = _folder_name(settings), f"{row.name} · {row.row} · {_format_settings(settings)}"
    trial = replace(_on_validation_data(row), learner={**row.learner, **settings})
    trial = trial.with_seed(row.search.seed + draw - 1)
    if draw > 1:
        name, title = f"{name}.draw-{draw}", f"{title} · draw {draw}"
    return Job(trial, out / SEARCH / row.row / name, title)


def _results(trial: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Score, seconds and failure of each finished draw of a trial, by its number from 1."""
    of_first = {"1": {key: trial[key] for key in RESULT}} if "seconds" in trial else {}
    found: dict[str, dict[str, Any]] = trial.get("draws", of_first)
    return found


def _trial(settings: Json, results: Mapping[str, Mapping[str, Any]], draws: int) -> dict[str, Any]:
    """A trial within the budget, of so many draws: finished, with the mean of their scores, once it has all of them.

    `results` may have more, of a comparison with more draws. There is no score if a draw has none.
    """
    trial: dict[str, Any] = {"settings": settings, "within_budget": True}
    if draws > 1 or len(results) > 1:
        trial["draws"] = dict(results)
    wanted = [results[str(draw)] for draw in range(1, draws + 1) if str(draw) in results]
    if len(wanted) == draws:
        scores = [one["score"] for one in wanted]
        trial |= {
            "score": None if None in scores else sum(scores) / draws,
            "seconds": round(sum(one["seconds"] for one in wanted), 2),
            "failure": next((one["failure"] for one in wanted if one["failure"]), None),
        }
    return trial


def _on_validation_data(row: Recipe) -> Recipe:
    return replace(row, stream={**row.stream, "eval_split": "validation"}, seed=row.search.seed)


def _score(job: Job, end: JobEnd) -> tuple[float | None, float, str | None]:
    """Score, seconds of training and evaluation (interruptions not counted), and the reason of a failure."""
    run = _read_run(job.folder)
    if end.failure or run is None:
        return None, end.seconds, end.failure
    seconds = sum(stage["train_seconds"] + stage["eval_seconds"] for stage in run.stages)
    score = run.primary_metric
    return (score, seconds, None) if isfinite(score) else (None, seconds, "its score is not finite")


def _read_run(folder: Path) -> Run | None:
    return read_run(folder) if (folder / RECORD).exists() else None


def _format_settings(settings: dict[str, Json]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items()) or "as it is"


def _folder_name(settings: dict[str, Json]) -> str:
    """The settings as a folder name, with a hash if they do not fit into one."""
    text = ",".join(f"{key}={json.dumps(value)}" for key, value in settings.items()) or "as-it-is"
    safe = re.sub(r"[^\w.,=+-]+", "-", text)[:MAX_NAME_LENGTH]
    return safe if safe == text else f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class _ComparisonFile:
    """The content of comparison.json, rewritten atomically after every change."""

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.out, self.path = out, out / COMPARISON
        saved = read_comparison_file(self.path) if self.path.exists() else {}
        self.rows: dict[str, dict[str, Any]] = saved.get("rows", {})
        saved_data = saved.get("data")
        require_same_data(out, saved_data, recipe)
        self.header: dict[str, Json] = {
            "name": recipe.name,
            "title": recipe.title,
            "family": recipe.family.name,
            "floor": list(recipe.search.floor),
            "ceiling": list(recipe.search.ceiling),
            "data": fingerprint(recipe.data, saved_data),
        }

    def plan(self, row: Recipe, trials: Sequence[dict[str, Json]]) -> None:
        """Plan these trials for a row; its other trials are kept and marked as beyond the budget.

        Raises RecipeError if the earlier trials belong to another recipe.
        """
        base = _on_validation_data(row).resolved()
        base["learner"] = {key: value for key, value in base["learner"].items() if key not in row.search.settings}
        base = json.loads(json.dumps(base))
        saved = self.rows.get(row.row, {})
        for key, (there, here) in changes(saved.get("base", base), base).items():
            raise RecipeError(
                f"{self.out}: holds a comparison of other settings ({row.row}: {key} = {there!r} there, {here!r} here); "
                "choose another --out or remove it"
            )
        known = {_folder_name(trial["settings"]): trial for trial in saved.get("trials", [])}
        planned = {_folder_name(settings): settings for settings in trials}
        self.rows[row.row] = {
            "position": row.position,
            "base": base,
            "combinations": row.search.combinations,
            "trials": [
                _trial(settings, _results(known.get(name, {})), row.search.draws) for name, settings in planned.items()
            ]
            + [{**trial, "within_budget": False} for name, trial in known.items() if name not in planned],
            "chosen": saved.get("chosen"),
            "score": saved.get("score"),
            "ran_with": saved.get("ran_with"),
            "seeds": saved.get("seeds", []),
            "failures": saved.get("failures", {}),
        }

    def planned(self, row: str) -> list[dict[str, Any]]:
        return [trial for trial in self.rows[row]["trials"] if trial["within_budget"]]

    def record_draw(
        self, row: Recipe, number: int, draw: int, score: float | None, seconds: float, failure: str | None
    ) -> None:
        """Record one draw of a planned trial; after the last one, the mean of its scores."""
        trial = self.planned(row.row)[number]
        result = {"score": score, "seconds": round(seconds, 2), "failure": failure}
        results = {**_results(trial), str(draw): result}
        of_trial = trial["settings"]
        trial.clear()
        trial |= _trial(of_trial, results, row.search.draws)
        self.write()

    def choose(self, rows: Sequence[Recipe]) -> None:
        """Choose the settings of the best trial of each row; None if no trial has a score."""
        for row in rows:
            trials = self.planned(row.row)
            scored = [trial for trial in trials if trial["score"] is not None]
            chosen: Mapping[str, Any] = {"settings": None if trials else {}, "score": None}
            if scored:
                draws = [str(draw) for draw in range(1, row.search.draws + 1)]
                chosen = scored[best([[_results(trial)[draw]["score"] for draw in draws] for trial in scored])]
            self.rows[row.row] |= {"chosen": chosen["settings"], "score": chosen["score"]}
        self.write()

    def remove_outdated_runs(self, row: Recipe, seeds: Sequence[int]) -> None:
        """Remove a row's runs if its chosen settings have changed since, and add `seeds` to its seeds."""
        saved = self.rows[row.row]
        if saved["ran_with"] != saved["chosen"]:
            for folder in (self.out / row.row / f"seed-{seed}" for seed in saved["seeds"]):
                run = _read_run(folder)
                if (
                    run is None or (saved["ran_with"] or {}).items() <= run.recipe.get("learner", {}).items()
                ):  # else it is not a run of this comparison
                    shutil.rmtree(folder, ignore_errors=True)
            saved |= {"ran_with": saved["chosen"], "seeds": [], "failures": {}}
        saved["seeds"] = sorted({*saved["seeds"], *seeds})
        self.write()

    def write(self) -> None:
        rows = dict(sorted(self.rows.items(), key=lambda row: int(row[1]["position"])))
        try:
            write_whole(self.path, to_json({**self.header, "rows": rows}, indent=1) + "\n")
        except OSError as error:
            raise StoreError(f"{self.path}: could not be written ({error.strerror or error})") from None


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = take_lock(out / ".lock")
    except Timeout:
        raise StoreError(f"{out}: another process is comparing here; wait for it, or choose another --out") from None
    except OSError as error:
        raise StoreError(f"{out}: could not be written ({error.strerror or error}); choose another --out") from None
    try:
        yield
    finally:
        lock.release()
