"""Report of a comparison: paired tests against the first row, the search, the costs, and one HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from newcomer.experiments.report.html import render_template
from newcomer.experiments.report.page import Figure, figures, write_whole
from newcomer.experiments.report.plots import search_curves
from newcomer.experiments.report.record_schema import read_comparison_file
from newcomer.experiments.report.runs import COMPARISON, PRIMARY_METRICS, RECORD, Run, read_run
from newcomer.experiments.report.table import DASH, Table, cell, result_tables
from newcomer.metrics.paired import holm, paired_test
from newcomer.settings import Json

PAGE = "comparison.html"
FORMATS = {"classes": ".1f", "items": ".4f"}
COST = {"passes": "passes", "gflops": "GFLOPs", "parameters": "trained", "stored": "stored"}
"""Keys of a learner's cost, and their column heads."""
MIN_P = 0.001
"""Smaller p values are shown as "< 0.001"."""


@dataclass(frozen=True)
class Comparison:
    """The search results of every row, and its runs over seeds, in the recipe's order."""

    title: str
    family: str
    floor: Sequence[str]
    ceiling: Sequence[str]
    rows: Mapping[str, Mapping[str, Json]]
    """Row → its entry in comparison.json."""
    runs: Mapping[str, Sequence[Run]]
    """Row → its runs with the chosen settings; rows without runs are left out."""

    def finished(self, row: str) -> dict[int, Run]:
        """The finished runs of a row by seed."""
        return {int(run.recipe["seed"]): run for run in self.runs.get(row, ()) if run.finished}

    def primary_metrics(self, row: str) -> dict[int, float]:
        """`Run.primary_metric` of the finished runs of a row by seed."""
        return {seed: run.primary_metric for seed, run in self.finished(row).items()}

    def trials(self, row: str) -> list[Mapping[str, Json]]:
        """The finished trials of a row within its budget, in order."""
        return [trial for trial in self.rows[row]["trials"] if trial["within_budget"] and "seconds" in trial]

    def best_of(self, rows: Sequence[str]) -> str | None:
        """Of these rows, the one with the best validation score among those with finished runs; the first of equals."""
        candidates = [row for row in rows if row in self.rows and self.primary_metrics(row)]
        return max(candidates, key=lambda row: float(self.rows[row]["score"] or 0), default=None)


def read_comparison(folder: Path) -> Comparison:
    """Read comparison.json and the runs of a folder.

    Raises StoreError if the folder holds no valid comparison.
    """
    content = read_comparison_file(folder / COMPARISON)
    runs = {}
    for name, row in content["rows"].items():
        folders = [folder / name / f"seed-{seed}" for seed in row["seeds"]]
        if started := [run for path in folders if (path / RECORD).exists() and (run := read_run(path))]:
            runs[name] = started
    return Comparison(content["title"], content["family"], content["floor"], content["ceiling"], content["rows"], runs)


def comparison_tables(comparison: Comparison, max_results: int | None = None) -> list[Table]:
    """The result tables (at most `max_results`), then differences, the search, and the costs."""
    scored = any(run.scores for runs in comparison.runs.values() for run in runs)
    results = result_tables(comparison.runs)[:max_results] if scored else []
    costs = cost_table(comparison)
    return [
        *results,
        difference_table(comparison),
        metric_table(comparison),
        search_table(comparison),
        *([costs] if costs else []),
    ]


def difference_table(comparison: Comparison) -> Table:
    """Primary metric of each row minus that of the first, paired by seed, and the share of the floor-ceiling gap closed."""
    metric, form = PRIMARY_METRICS[comparison.family], FORMATS[comparison.family]
    first, *others = comparison.rows
    base = comparison.primary_metrics(first)
    paired = {row: _differences(comparison.primary_metrics(row), base) for row in others}
    tests = {row: paired_test(np.array(pairs)) for row, pairs in paired.items() if len(pairs) > 1}
    corrected = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    floor, ceiling = comparison.best_of(comparison.floor), comparison.best_of(comparison.ceiling)
    lines = []
    for row in comparison.rows:
        values, test = comparison.primary_metrics(row), tests.get(row)
        line = [
            row,
            str(len(values)),
            cell(list(values.values()), form),
            cell(paired.get(row, [])[:1], "+" + form) if test is None else f"{test.mean:+{form}}",
            DASH if test is None else f"{test.low:+{form}} to {test.high:+{form}}",
            DASH if test is None else _format_p(test.p),
            DASH if test is None else _format_p(corrected[row]),
        ]
        if floor and ceiling:
            shares = _gap_closed(values, comparison.primary_metrics(floor), comparison.primary_metrics(ceiling))
            line.append(cell(shares, ".2f"))
        lines.append(line)
    head = ["", "seeds", metric, f"− {first}", "95 % interval", "p", "p (Holm)"]
    note = (
        f"Differences to {first}, paired by seed; p of the two-sided paired t test of each comparison by itself, and with Holm's "
        f"correction for all {len(tests)}."
    )
    if floor and ceiling:
        head.append("gap closed")
        note += f" Gap closed: 0 is {floor}, 1 is {ceiling}, on seeds where the second is above the first."
    return Table(f"{comparison.title}: against {first}", head, lines, note)


def metric_table(comparison: Comparison) -> Table:
    """Each metric of each row minus that of the first: the AUC of each phase for items; Acc, AAA and forgetting for classes."""
    first, form = next(iter(comparison.rows)), FORMATS[comparison.family]
    metrics = {row: {seed: run.metrics() for seed, run in comparison.finished(row).items()} for row in comparison.rows}
    names = _metric_names(comparison)
    lines = []
    for row in comparison.rows:
        seeds = [seed for seed in metrics[row] if seed in metrics[first]]
        cells = []
        for name in names:
            differences = np.array(
                [metrics[row][seed].get(name, np.nan) - metrics[first][seed][name] for seed in seeds]
            )
            testable = row != first and len(differences) > 1 and not np.isnan(differences).any()
            test = paired_test(differences) if testable else None
            cells.append(DASH if test is None else f"{test.mean:+{form}} ± {(test.high - test.low) / 2:{form}}")
        lines.append([row, str(len(seeds)), *cells])
    head = ["", "seeds", *(name.removesuffix(" auc") for name in names)]
    note = f"Differences to {first}, paired by seed, ± half of the 95 % interval of the paired t test, uncorrected."
    return Table(f"{comparison.title}: against {first}, metric by metric", head, lines, note)


def _metric_names(comparison: Comparison) -> list[str]:
    """The metrics of `metric_table`."""
    if comparison.family == "classes":
        return ["Acc", "AAA", "forgetting"]
    runs = [run for row in comparison.rows for run in comparison.finished(row).values()]
    return list(dict.fromkeys(f"{phase['stage']} auc" for run in runs for phase in run.phases))


def search_table(comparison: Comparison) -> Table:
    """The trials of every row, and its chosen settings."""
    form = FORMATS[comparison.family]
    trials = {row: comparison.trials(row) for row in comparison.rows}
    lines = []
    for name, row in comparison.rows.items():
        failed = sum(trial["score"] is None for trial in trials[name])
        score = DASH if row["score"] is None else f"{row['score']:{form}}"
        count = f"{len(trials[name])} of {row['combinations']}" + (f" ({failed} failed)" if failed else "")
        seconds = sum(trial["seconds"] for trial in trials[name])
        lines.append([name, count, f"{seconds:.0f}", score, _format_settings(row["chosen"])])
    max_trials = max(map(len, trials.values()))
    incomplete = [
        name for name, row in comparison.rows.items() if len(trials[name]) < min(max_trials, row["combinations"])
    ]
    note = (
        "Every row has the same budget of trials, or its whole grid where that is smaller; its settings are chosen by the score on "
        "validation data alone."
    )
    if incomplete:
        note += f" Not so yet: {', '.join(incomplete)} had fewer; compare again with the largest budget."
    head = ["", "trials", "seconds", f"validation {PRIMARY_METRICS[comparison.family]}", "chosen"]
    return Table(f"{comparison.title}: hyper-parameter search", head, lines, note)


def cost_table(comparison: Comparison) -> Table | None:
    """The cost of training and prediction of each row; None if no learner records it."""
    runs = {row: [run for run in comparison.runs.get(row, ()) if run.finished] for row in comparison.rows}
    costs = {row: [run.stages[-1]["info"].get("cost", {}) for run in finished] for row, finished in runs.items()}
    columns = [key for key in COST if any(key in cost for row in costs.values() for cost in row)]
    lines = [
        [
            row,
            cell([run.train_seconds for run in finished], ".0f"),
            *(_format_mean([cost[key] for cost in costs[row] if key in cost]) for key in columns),
        ]
        for row, finished in runs.items()
    ]
    if not columns:
        return None
    note = (
        "Seconds of training in all stages; forward passes of the backbone and operations per predicted input; parameters trained "
        "in the last task; numbers stored besides the backbone after the last stage."
    )
    return Table(f"{comparison.title}: cost", ["", "train s", *map(COST.__getitem__, columns)], lines, note)


def write_comparison(folder: Path) -> Path:
    """Write `comparison.html` into the folder of a comparison: one self-contained page.

    Raises StoreError if the folder holds no comparison or the page cannot be written.
    """
    comparison = read_comparison(folder)
    plotted = {row: done for row, runs in comparison.runs.items() if (done := [run for run in runs if run.stages])}
    plots = figures(plotted) if plotted else []
    trials = {row: comparison.trials(row) for row in comparison.rows}
    if scores := {row: [trial["score"] for trial in of_row] for row, of_row in trials.items() if of_row}:
        label = f"validation {PRIMARY_METRICS[comparison.family]}"
        plots.append(Figure(search_curves(scores, label), "The search: every trial's score, and the best so far."))
    first = next(iter(plotted.values()))[0] if plotted else None
    html = render_template(
        "comparison.html.jinja",
        title=comparison.title,
        summary=first.summary() if first else "",
        tables=comparison_tables(comparison),
        figures=plots,
        start=first.events[0] if first else None,
    )
    write_whole(html, folder / PAGE)
    return folder / PAGE


def _differences(metrics: Mapping[int, float], base: Mapping[int, float]) -> list[float]:
    return [metrics[seed] - base[seed] for seed in metrics if seed in base]


def _gap_closed(metrics: Mapping[int, float], floor: Mapping[int, float], ceiling: Mapping[int, float]) -> list[float]:
    seeds = [seed for seed in metrics if seed in floor and ceiling.get(seed, floor[seed]) > floor[seed]]
    return [(metrics[seed] - floor[seed]) / (ceiling[seed] - floor[seed]) for seed in seeds]


def _format_settings(settings: Mapping[str, Json] | None) -> str:
    if settings is None:
        return DASH
    return ", ".join(f"{key} {value}" for key, value in settings.items()) or "as it is"


def _format_p(p: float) -> str:
    return f"< {MIN_P}" if p < MIN_P else f"{p:.3f}"


def _format_mean(values: Sequence[float]) -> str:
    """The mean, as an integer from 100 on, else with three significant digits.

    >>> _format_mean([0.1234]), _format_mean([12_345.0]), _format_mean([])
    ('0.123', '12,345', '–')
    """
    if not values:
        return DASH
    mean = float(np.mean(values))
    return f"{mean:,.0f}" if mean >= 100 else f"{mean:.3g}"
