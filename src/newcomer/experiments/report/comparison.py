"""A comparison told from its folder: who is better than the first row and how surely, what was tried, and one page of it all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from newcomer.experiments.report.html import rendered
from newcomer.experiments.report.page import Figure, figures, write_whole
from newcomer.experiments.report.plots import search_curves
from newcomer.experiments.report.records import read_compared
from newcomer.experiments.report.runs import COMPARISON, MARKS, RECORD, Run, read_run
from newcomer.experiments.report.table import DASH, Table, cell, result_tables
from newcomer.metrics.paired import holm, paired_test
from newcomer.settings import Json

PAGE = "comparison.html"
FORMS = {"classes": ".1f", "items": ".4f"}
COST = {"passes": "passes", "gflops": "GFLOPs", "parameters": "trained", "stored": "stored"}
"""Facts of a learner's cost, and the heads of their columns."""
CLEAR = 0.001
"""A p below this is not written out."""


@dataclass(frozen=True)
class Comparison:
    """What was found for every row, and its runs seed by seed, in the recipe's order."""

    title: str
    family: str
    floor: Sequence[str]
    ceiling: Sequence[str]
    found: Mapping[str, Mapping[str, Json]]
    runs: Mapping[str, Sequence[Run]]
    """Only rows that have begun a run with the chosen settings."""

    def finished(self, row: str) -> dict[int, Run]:
        """The finished runs of this row by their seeds."""
        return {int(run.recipe["seed"]): run for run in self.runs.get(row, ()) if run.finished}

    def marks(self, row: str) -> dict[int, float]:
        """The number that rows are compared by, of every finished run of this row by its seed."""
        return {seed: run.mark for seed, run in self.finished(row).items()}

    def tries(self, row: str) -> list[Mapping[str, Json]]:
        """Those that count and are over, in their order."""
        return [tried for tried in self.found[row]["tries"] if tried["counts"] and "seconds" in tried]

    def best_of(self, rows: Sequence[str]) -> str | None:
        """Of these rows, as far as they have finished runs, the one that did best on the validation exams; the first of equals."""
        able = [row for row in rows if row in self.found and self.marks(row)]
        return max(able, key=lambda row: float(self.found[row]["score"] or 0), default=None)


def read_comparison(folder: Path) -> Comparison:
    """The comparison that this folder holds.

    Raises StoreError where it holds none.
    """
    told = read_compared(folder / COMPARISON)
    runs = {}
    for row, kept in told["rows"].items():
        places = [folder / row / f"seed-{seed}" for seed in kept["seeds"]]
        if begun := [run for place in places if (place / RECORD).exists() and (run := read_run(place))]:
            runs[row] = begun
    return Comparison(told["title"], told["family"], told["floor"], told["ceiling"], told["rows"], runs)


def comparison_tables(told: Comparison, most: int | None = None) -> list[Table]:
    """Results as every report has them, or at `most` so many tables of them; the differences, what was tried, and what it costs."""
    results = result_tables(told.runs) if any(run.scores for runs in told.runs.values() for run in runs) else []
    cost = cost_table(told)
    return [*results[:most], difference_table(told), parts_table(told), search_table(told), *([cost] if cost else [])]


def difference_table(told: Comparison) -> Table:
    """Each row against the first, seed by seed, and where it stands between floor and ceiling."""
    mark, form = MARKS[told.family], FORMS[told.family]
    first, *others = told.found
    base = told.marks(first)
    shared = {row: _differences(told.marks(row), base) for row in others}
    tests = {row: paired_test(np.array(pairs)) for row, pairs in shared.items() if len(pairs) > 1}
    corrected = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    floor, ceiling = told.best_of(told.floor), told.best_of(told.ceiling)
    lines = []
    for row in told.found:
        marks, test = told.marks(row), tests.get(row)
        lines.append(
            [
                row,
                str(len(marks)),
                cell(list(marks.values()), form),
                cell(shared.get(row, [])[:1], "+" + form) if test is None else f"{test.mean:+{form}}",
                DASH if test is None else f"{test.low:+{form}} to {test.high:+{form}}",
                DASH if test is None else _chance(test.p),
                DASH if test is None else _chance(corrected[row]),
                *([cell(_shares(marks, told.marks(floor), told.marks(ceiling)), ".2f")] if floor and ceiling else []),
            ]
        )
    head = ["", "seeds", mark, f"− {first}", "95 % interval", "p", "p (Holm)"]
    note = (
        f"Differences to {first} seed by seed; p of the paired t test, two-sided, of each comparison by itself, and with Holm's "
        f"allowance for all {len(tests)}."
    )
    if floor and ceiling:
        head.append("gap closed")
        note += f" Gap closed: 0 is {floor}, 1 is {ceiling}, on seeds where the second is above the first."
    return Table(f"{told.title}: against {first}", head, lines, note)


def parts_table(told: Comparison) -> Table:
    """Each row against the first in every number by itself: phase by phase for items; Acc, AAA and forgetting for classes."""
    first = next(iter(told.found))
    figures = {row: {seed: run.figures() for seed, run in told.finished(row).items()} for row in told.found}
    names = _parts(told)
    lines = []
    for row in told.found:
        shared = [seed for seed in figures[row] if seed in figures[first]]
        cells = []
        for name in names:
            apart = np.array([figures[row][seed].get(name, np.nan) - figures[first][seed][name] for seed in shared])
            able = row != first and len(apart) > 1 and not np.isnan(apart).any()
            test = paired_test(apart) if able else None
            form = FORMS[told.family]
            cells.append(DASH if test is None else f"{test.mean:+{form}} ± {(test.high - test.low) / 2:{form}}")
        lines.append([row, str(len(shared)), *cells])
    head = ["", "seeds", *(name.removesuffix(" auc") for name in names)]
    note = f"Differences to {first} seed by seed, ± half of the 95 % interval of the paired t test, of each by itself."
    return Table(f"{told.title}: against {first}, number by number", head, lines, note)


def _parts(told: Comparison) -> list[str]:
    """The figures of a run that `parts_table` shows."""
    if told.family == "classes":
        return ["Acc", "AAA", "forgetting"]
    runs = [run for row in told.found for run in told.finished(row).values()]
    return list(dict.fromkeys(f"{phase['stage']} auc" for run in runs for phase in run.phases))


def search_table(told: Comparison) -> Table:
    """What was tried for every row, and what was chosen."""
    lines = []
    for row, found in told.found.items():
        tries = told.tries(row)
        failed = sum(tried["score"] is None for tried in tries)
        score = DASH if found["score"] is None else f"{found['score']:{FORMS[told.family]}}"
        count = f"{len(tries)} of {found['combinations']}" + (f" ({failed} failed)" if failed else "")
        lines.append([row, count, f"{sum(tried['seconds'] for tried in tries):.0f}", score, _words(found["chosen"])])
    most = max(len(told.tries(row)) for row in told.found)
    short = [row for row, found in told.found.items() if len(told.tries(row)) < min(most, found["combinations"])]
    note = (
        "Every row has as many tries, or all of its combinations where these are fewer, and is chosen by the score on validation "
        "exams alone."
    )
    if short:
        note += f" Not so yet: {', '.join(short)} had fewer; compare again with the largest budget."
    head = ["", "tries", "seconds", f"validation {MARKS[told.family]}", "chosen"]
    return Table(f"{told.title}: what was tried", head, lines, note)


def cost_table(told: Comparison) -> Table | None:
    """What a row costs to learn and to ask; None where no learner says so."""
    runs = {row: [run for run in told.runs.get(row, ()) if run.finished] for row in told.found}
    costs = {row: [run.stages[-1]["facts"].get("cost", {}) for run in found] for row, found in runs.items()}
    columns = [key for key in COST if any(key in cost for found in costs.values() for cost in found)]
    lines = [
        [
            row,
            cell([run.study_seconds for run in found], ".0f"),
            *(_number([cost[key] for cost in costs[row] if key in cost]) for key in columns),
        ]
        for row, found in runs.items()
    ]
    if not columns:
        return None
    note = (
        "Seconds of study in all stages; passes of the backbone and operations to predict one input, numbers that the last lesson "
        "trained, and numbers stored besides the backbone, after the last stage."
    )
    return Table(f"{told.title}: what it costs", ["", "study s", *map(COST.__getitem__, columns)], lines, note)


def write_comparison(folder: Path) -> Path:
    """Write `comparison.html` beside what was compared: one self-contained page.

    Raises StoreError where there is no comparison, or the disk refuses.
    """
    told = read_comparison(folder)
    begun = {row: seen for row, runs in told.runs.items() if (seen := [run for run in runs if run.stages])}
    pictures = figures(begun) if begun else []
    searched = {row: [tried["score"] for tried in tries] for row in told.found if (tries := told.tries(row))}
    if searched:
        label = f"validation {MARKS[told.family]}"
        pictures.append(Figure(search_curves(searched, label), "The search: every try's score, and the best so far."))
    first = next(iter(begun.values()))[0] if begun else None
    html = rendered(
        "comparison.html.jinja",
        title=told.title,
        summary=first.summary() if first else "",
        tables=comparison_tables(told),
        figures=pictures,
        start=first.events[0] if first else None,
    )
    write_whole(html, folder / PAGE)
    return folder / PAGE


def _differences(marks: Mapping[int, float], base: Mapping[int, float]) -> list[float]:
    return [marks[seed] - base[seed] for seed in marks if seed in base]


def _shares(marks: Mapping[int, float], floor: Mapping[int, float], ceiling: Mapping[int, float]) -> list[float]:
    seeds = [seed for seed in marks if seed in floor and ceiling.get(seed, floor[seed]) > floor[seed]]
    return [(marks[seed] - floor[seed]) / (ceiling[seed] - floor[seed]) for seed in seeds]


def _words(settings: Mapping[str, Json] | None) -> str:
    if settings is None:
        return DASH
    return ", ".join(f"{key} {value}" for key, value in settings.items()) or "as it is"


def _chance(p: float) -> str:
    return f"< {CLEAR}" if p < CLEAR else f"{p:.3f}"


def _number(values: Sequence[float]) -> str:
    """A mean of sizes, small or large.

    >>> _number([0.1234]), _number([12_345.0]), _number([])
    ('0.123', '12,345', '–')
    """
    if not values:
        return DASH
    mean = float(np.mean(values))
    return f"{mean:,.0f}" if mean >= 100 else f"{mean:.3g}"
