"""All rows of a recipe with the same care: as many tries over each row's settings, one choice, then all seeds on the test exams.

    OUT/search/ROW/TRY/     a try: a run whose exams are made of old items or of training examples; its record stays, its model goes
    OUT/ROW/seed-N/         a run with the chosen settings, as `newcomer run` leaves it
    OUT/comparison.json     every try with settings and score, what was chosen, and what a table needs besides

A try is judged by `Run.mark`, and by validation exams alone; the best of a row is chosen, the earlier of equals. Where no row of a
recipe has anything to search there are no tries, and rows run as they are.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from filelock import Timeout

from newcomer.data.fingerprint import fingerprint
from newcomer.errors import RecipeError, StoreError, nearest
from newcomer.experiments.recipe import Recipe
from newcomer.experiments.report.records import read_compared
from newcomer.experiments.report.runs import COMPARISON, RECORD, SEARCH, Run, read_run
from newcomer.experiments.run import CHECKPOINT, STORE, Event, require_same_data
from newcomer.experiments.workers import Ended, Job, Workers
from newcomer.settings import Json, changes
from newcomer.store.writing import take_lock, to_json, write_whole
from newcomer.training.processes import Processes

LONGEST = 100
"""Characters of a folder's name."""


@dataclass(frozen=True)
class Judged:
    """A try or a run is over: its score, or why it has none."""

    score: float | None
    seconds: float
    failure: str | None
    done: int
    """How many of this round are over, of `count`."""
    count: int


def compare(
    recipe: Recipe,
    out: Path,
    seeds: Sequence[int] = (0, 1, 2),
    budget: int | None = None,
    processes: int = 1,
    only: Sequence[str] = (),
) -> Generator[tuple[Job, Event | Judged], None, None]:
    """Search for every row, or for `only` these, then run each with what was chosen; yields what happens in every job.

    Cut off, the same call goes on where it was; with a larger `budget` it keeps what was tried, and where that changes the choice
    of a row its runs are made anew. Raises RecipeError for rows that are not there and where `out` holds a comparison of other
    settings, StoreError where another process is at work in it or it cannot be written.
    """
    if Processes().count > 1:
        raise RecipeError("a comparison is begun by one process; leave torchrun out and give --processes")
    rows = recipe.rows()
    for name in only:
        if name not in (known := [row.row for row in rows]):
            raise RecipeError(f"recipe '{recipe.name}' has no row '{name}'; {nearest(name, known)}")
    if SEARCH in (row.row for row in rows):
        raise RecipeError(f"a row called '{SEARCH}' would lie where the tries do; give the peer another name")
    anything = any(row.search.settings for row in rows)
    rows = [row for row in rows if not only or row.row in only]
    plans = {r.row: r.search.tries(r.learner, budget or r.search.budget) if anything else [] for r in rows}
    found = _Found(recipe, out)
    for row in rows:
        found.plan(row, plans[row.row])
    with _held(out), Workers(processes) as workers:
        found.write()
        yield from _search(rows, found, workers)
        yield from _finals(rows, found, seeds, workers)


def _search(rows: Sequence[Recipe], found: "_Found", workers: Workers) -> Iterator[tuple[Job, Event | Judged]]:
    """The first try of every row, then the second: a table that is cut off says something of all."""
    jobs = [
        (place, _try_job(row, tried["settings"], found.out))
        for row in rows
        for place, tried in enumerate(found.planned(row.row))
        if "seconds" not in tried
    ]
    jobs.sort(key=lambda job: job[0])
    done = 0
    for job, event in workers.perform([job for _, job in jobs]):
        if not isinstance(event, Ended):
            yield job, event
            continue
        score, seconds, failure = _judged(job, event)
        found.note(job.recipe.row, job.folder.name, score, seconds, failure)
        for rest in (STORE, CHECKPOINT):
            shutil.rmtree(job.folder / rest, ignore_errors=True)
        yield job, Judged(score, seconds, failure, done := done + 1, len(jobs))
    found.choose([row.row for row in rows])


def _finals(
    rows: Sequence[Recipe], found: "_Found", seeds: Sequence[int], workers: Workers
) -> Iterator[tuple[Job, Event | Judged]]:
    jobs = []
    for row in rows:
        found.renew(row, seeds)
    for seed in seeds:
        for row in rows:
            chosen = found.rows[row.row]["chosen"]
            job = Job(
                replace(row, learner={**row.learner, **(chosen or {})}).with_seed(seed),
                found.out / row.row / f"seed-{seed}",
                f"{row.name} · {row.row} · seed {seed}",
            )
            run = _run(job.folder)
            there = run is not None and run.finished and not changes(run.recipe, job.recipe.filled())
            if chosen is not None and not there and str(seed) not in found.rows[row.row]["failures"]:
                jobs.append(job)
    done = 0
    for job, event in workers.perform(jobs):
        if not isinstance(event, Ended):
            yield job, event
            continue
        score, seconds, failure = _judged(job, event)
        if event.failure:
            found.rows[job.recipe.row]["failures"][str(job.recipe.seed)] = event.failure
            found.write()
        yield job, Judged(score, seconds, failure, done := done + 1, len(jobs))


def _try_job(row: Recipe, settings: dict[str, Json], out: Path) -> Job:
    name = _name(settings)
    tried = replace(_validating(row), learner={**row.learner, **settings})
    return Job(tried, out / SEARCH / row.row / name, f"{row.name} · {row.row} · {_words(settings)}")


def _validating(row: Recipe) -> Recipe:
    return replace(row, stream={**row.stream, "exam": "validation"}, seed=row.search.seed)


def _judged(job: Job, ended: Ended) -> tuple[float | None, float, str | None]:
    """Score, seconds of study and exams, however often it was cut off, and failure."""
    run = _run(job.folder)
    if ended.failure or run is None:
        return None, ended.seconds, ended.failure
    seconds = sum(stage["study_seconds"] + stage["exam_seconds"] for stage in run.stages)
    return (run.mark, seconds, None) if isfinite(run.mark) else (None, seconds, "its score is no number")


def _run(folder: Path) -> Run | None:
    return read_run(folder) if (folder / RECORD).exists() else None


def _words(settings: dict[str, Json]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items()) or "as it is"


def _name(settings: dict[str, Json]) -> str:
    """A folder's name: the settings, and where they cannot all be in it a few digits that stand for them."""
    whole = ",".join(f"{key}={json.dumps(value)}" for key, value in settings.items()) or "as-it-is"
    safe = re.sub(r"[^\w.,=+-]+", "-", whole)[:LONGEST]
    return safe if safe == whole else f"{safe}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


class _Found:
    """What `comparison.json` holds, written whole after everything that happens."""

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.out, self.path = out, out / COMPARISON
        there = read_compared(self.path) if self.path.exists() else {}
        self.rows: dict[str, dict[str, Any]] = there.get("rows", {})
        then = there.get("data")
        require_same_data(out, then, recipe)
        self.head: dict[str, Json] = {
            "name": recipe.name,
            "title": recipe.title,
            "family": recipe.family.name,
            "floor": list(recipe.search.floor),
            "ceiling": list(recipe.search.ceiling),
            "data": fingerprint(recipe.data, then),
        }

    def plan(self, row: Recipe, tries: Sequence[dict[str, Json]]) -> None:
        """These are to be tried, and count; others that were stay, and do not.

        Raises RecipeError where those were tried with another recipe.
        """
        base = _validating(row).filled()
        base["learner"] = {key: value for key, value in base["learner"].items() if key not in row.search.settings}
        base = json.loads(json.dumps(base))
        kept = self.rows.get(row.row, {})
        for key, (there, here) in changes(kept.get("base", base), base).items():
            raise RecipeError(
                f"{self.out}: holds a comparison of other settings ({row.row}: {key} = {there!r} there, {here!r} here); "
                "choose another --out or remove it"
            )
        known = {_name(tried["settings"]): tried for tried in kept.get("tries", [])}
        planned = {_name(settings): {"settings": settings} for settings in tries}
        self.rows[row.row] = {
            "place": row.place,
            "base": base,
            "combinations": row.search.combinations,
            "tries": [{**known.get(name, tried), "counts": True} for name, tried in planned.items()]
            + [{**tried, "counts": False} for name, tried in known.items() if name not in planned],
            "chosen": kept.get("chosen"),
            "score": kept.get("score"),
            "ran": kept.get("ran"),
            "seeds": kept.get("seeds", []),
            "failures": kept.get("failures", {}),
        }

    def planned(self, row: str) -> list[dict[str, Any]]:
        return [tried for tried in self.rows[row]["tries"] if tried["counts"]]

    def note(self, row: str, name: str, score: float | None, seconds: float, failure: str | None) -> None:
        (tried,) = (tried for tried in self.rows[row]["tries"] if _name(tried["settings"]) == name)
        tried |= {"score": score, "seconds": round(seconds, 2), "failure": failure}
        self.write()

    def choose(self, rows: Sequence[str]) -> None:
        """The best of each row; None where no try has a score."""
        for row in rows:
            tries = self.planned(row)
            best = max((t for t in tries if t["score"] is not None), key=lambda t: float(t["score"]), default=None)
            chosen = {"settings": {}, "score": None} if not tries else best or {"settings": None, "score": None}
            self.rows[row] |= {"chosen": chosen["settings"], "score": chosen["score"]}
        self.write()

    def renew(self, row: Recipe, seeds: Sequence[int]) -> None:
        """Remove the runs of a choice that is none any more; say of which this row's now are."""
        kept = self.rows[row.row]
        if kept["ran"] != kept["chosen"]:
            for folder in (self.out / row.row / f"seed-{seed}" for seed in kept["seeds"]):
                run = _run(folder)
                if (
                    run is None or (kept["ran"] or {}).items() <= run.recipe.get("learner", {}).items()
                ):  # else it is not of ours
                    shutil.rmtree(folder, ignore_errors=True)
            kept |= {"ran": kept["chosen"], "seeds": [], "failures": {}}
        kept["seeds"] = sorted({*kept["seeds"], *seeds})
        self.write()

    def write(self) -> None:
        rows = dict(sorted(self.rows.items(), key=lambda row: int(row[1]["place"])))
        try:
            write_whole(self.path, to_json({**self.head, "rows": rows}, indent=1) + "\n")
        except OSError as error:
            raise StoreError(f"{self.path}: could not be written ({error.strerror or error})") from None


@contextmanager
def _held(out: Path) -> Iterator[None]:
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
