"""Result tables: mean ± standard deviation over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from newcomer.experiments.report.runs import EVENTS, Run
from newcomer.metrics.ranking import rela_impr
from newcomer.printable import counted, printable

CLASS_COLUMNS = {"Acc": ".1f", "AAA": ".1f", "forgetting": ".1f", "seconds": ".0f"}
ITEM_SCORES = {
    "auc": "AUC, pooled",
    "item_auc": "AUC within items",
    "user_auc": "AUC within users",
    "logloss": "log loss",
    "normalised_entropy": "normalised entropy",
    "calibration": "calibration, Σp / Σy",
    "f1": "F1 at the mean score",
}
REFERENCE = "id-tuning"
"""The row that RelaImpr compares with."""
SUFFICIENT = "sufficient"
DASH = "–"
STAR, STAR_NOTE = " *", " *: log loss worse than that of the click rate as a constant (normalised entropy above 1)."
MAX_COMMITS = 3
"""The most commits that the note of a table lists."""


@dataclass(frozen=True)
class Table:
    """A table of text: title, column heads, rows, and a note."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str

    def markdown(self) -> str:
        head, *rows = ([printable(cell).replace("|", "\\|") for cell in row] for row in (self.head, *self.rows))
        lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] + ["--:"] * (len(self.head) - 1)) + "|"]
        return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def result_tables(rows: Mapping[str, Sequence[Run]]) -> list[Table]:
    """The result tables of a recipe, one line per row: for classes one table, and two more by domain; for items one per score."""
    first = next(iter(rows.values()))[0]
    title = first.recipe["title"]
    if first.recipe["family"] == "classes":
        whole = _table(title, rows, {name: name for name in CLASS_COLUMNS}, CLASS_COLUMNS)
        return [whole, *(_domain_table(title, rows, metric) for metric in ("Acc", "forgetting") if first.domains)]
    tables = [table for score, name in ITEM_SCORES.items() if (table := _score_table(f"{title}: {name}", rows, score))]
    if REFERENCE in rows and len(rows) > 1:
        tables.append(_rela_impr_table(f"{title}: RelaImpr over {REFERENCE}, %", rows))
    if any(run.curve("auc") for runs in rows.values() for run in runs):
        tables.append(_events_table(f"{title}: AUC by the number of events", rows))
    if buckets := dict.fromkeys(name for runs in rows.values() for run in runs for name in run.calibration):
        columns = {f"calibration after {name} events": name for name in buckets}
        formats = dict.fromkeys(columns, ".3f")
        tables.append(_table(f"{title}: calibration, Σp / Σy, by the events before", rows, columns, formats))
    return tables


def _score_table(title: str, rows: Mapping[str, Sequence[Run]], score: str) -> Table | None:
    """One score by phase; None if no run has it, except for AUC."""
    scored = [phase for runs in rows.values() for run in runs for phase in run.phases if score in phase["values"]]
    phases = list(dict.fromkeys(phase["stage"] for phase in scored))
    columns = {f"{phase} {score}": phase for phase in phases} | {"seconds": "seconds"}
    table = _table(title, rows, columns, dict.fromkeys(columns, ".4f") | {"seconds": ".0f"})
    table = _with_stars(table, rows, phases)
    limits = [run.limit for run in _first_runs(rows) if run.limit is not None]
    if score == "auc" and limits:
        table = replace(table, rows=[*table.rows, ["Bayes limit", "", *[cell(limits, ".4f")] * len(phases), ""]])
    return table if phases or score == "auc" else None


def _with_stars(table: Table, rows: Mapping[str, Sequence[Run]], phases: Sequence[str]) -> Table:
    """`table`, whose columns from the third on are these phases, with a star where the log loss is worse than a constant's."""
    lines = []
    for line, runs in zip(table.rows, rows.values(), strict=True):
        metrics = [run.metrics() for run in runs if run.finished]
        entropies = [_values(metrics, f"{phase} normalised_entropy") for phase in phases]
        stars = [STAR if found and float(np.mean(found)) > 1 else "" for found in entropies]
        cells = [cell + star for cell, star in zip(line[2:], stars, strict=False)]
        lines.append([*line[:2], *cells, *line[2 + len(cells) :]])
    return replace(table, rows=lines, note=f"{table.note}.{STAR_NOTE}") if lines != list(table.rows) else table


def _domain_table(title: str, rows: Mapping[str, Sequence[Run]], metric: str) -> Table:
    """One metric in each domain."""
    domains = dict.fromkeys(domain for runs in rows.values() for run in runs for domain in run.domains)
    columns = {f"{metric} {domain}": domain for domain in domains}
    return _table(f"{title}: {metric} by domain", rows, columns, dict.fromkeys(columns, ".1f"))


def _rela_impr_table(title: str, rows: Mapping[str, Sequence[Run]]) -> Table:
    """RelaImpr of each row over the mean AUC of `REFERENCE` in the same phase."""
    reference = [run.metrics() for run in rows[REFERENCE] if run.finished]
    phases = list(dict.fromkeys(phase["stage"] for runs in rows.values() for run in runs for phase in run.phases))
    lines = []
    for name, runs in rows.items():
        metrics = [run.metrics() for run in runs if run.finished]
        cells = [cell(_rela_impr(_values(metrics, f"{p} auc"), _values(reference, f"{p} auc")), "z.1f") for p in phases]
        lines.append([name, str(len(metrics)), *cells])
    return Table(title, ["", "seeds", *phases], lines, _note([run for runs in rows.values() for run in runs]))


def _values(metrics: Sequence[Mapping[str, float]], name: str) -> list[float]:
    return [values[name] for values in metrics if name in values]


def _rela_impr(aucs: Sequence[float], reference: Sequence[float]) -> list[float]:
    return [rela_impr(auc, float(np.mean(reference))) for auc in aucs] if reference else []


def _events_table(title: str, rows: Mapping[str, Sequence[Run]]) -> Table:
    numbers = sorted({number for runs in rows.values() for run in runs for number in run.curve("auc")})
    columns = {f"{number}{EVENTS} auc": str(number) for number in numbers}
    if any(f"{SUFFICIENT} auc" in run.metrics() for runs in rows.values() for run in runs):
        columns[f"{SUFFICIENT} auc"] = SUFFICIENT
    return _table(title, rows, columns, dict.fromkeys(columns, ".3f"))


def _first_runs(rows: Mapping[str, Sequence[Run]]) -> list[Run]:
    """The runs of the first row, for what all rows share."""
    return list(next(iter(rows.values())))


def _table(
    title: str, rows: Mapping[str, Sequence[Run]], columns: Mapping[str, str], formats: Mapping[str, str]
) -> Table:
    """One line per row; `columns`: metric → column head, `formats`: metric → format of its numbers."""
    lines = []
    for name, runs in rows.items():
        metrics = [run.metrics() for run in runs if run.finished]
        cells = [cell(_values(metrics, column), formats[column]) for column in columns]
        unfinished = sum(not run.finished for run in runs)
        lines.append([name + (f" ({unfinished} unfinished)" if unfinished else ""), str(len(metrics)), *cells])
    return Table(title, ["", "seeds", *columns.values()], lines, _note([run for runs in rows.values() for run in runs]))


def cell(values: Sequence[float], format_spec: str) -> str:
    """`mean ± std`, the latter with n − 1; a dash for no values or NaN.

    >>> cell([1.0, 2.0], ".1f"), cell([3.0], ".1f"), cell([float("nan")], ".1f")
    ('1.5 ± 0.7', '3.0', '–')
    """
    if not values or np.isnan(values).any():
        return DASH
    std = f" ± {np.std(values, ddof=1):{format_spec}}" if len(values) > 1 else ""
    return f"{np.mean(values):{format_spec}}{std}"


def _note(runs: Sequence[Run]) -> str:
    """The machines and the commits of these runs."""
    machines = dict.fromkeys(
        f"{m['processor']}, {counted(m['threads'], 'thread')}" for m in (run.events[0]["machine"] for run in runs)
    )
    commits = dict.fromkeys(str(run.events[0]["commit"]) for run in runs)
    listed = ", ".join(commits) if len(commits) <= MAX_COMMITS else f"one of {len(commits)}, each in its record"
    return f"{'; '.join(machines)}; commit {listed}"
