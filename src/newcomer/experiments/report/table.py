"""Tables of results: mean ± standard deviation over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from newcomer.experiments.report.runs import EVENTS, Run
from newcomer.metrics.ranking import rela_impr
from newcomer.printable import printable

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
BASE = "id-tuning"
"""The row that others are compared with."""
SUFFICIENT = "sufficient"
DASH = "–"
MANY = 3
"""More commits than this are not listed below a table."""


@dataclass(frozen=True)
class Table:
    """A title, column heads, and rows of text."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str

    def markdown(self) -> str:
        head, *rows = ([printable(cell).replace("|", "\\|") for cell in row] for row in (self.head, *self.rows))
        lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] + ["--:"] * (len(self.head) - 1)) + "|"]
        return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def result_tables(rows: Mapping[str, Sequence[Run]]) -> list[Table]:
    """The tables of a recipe, a line a row, each over all its seeds: one for classes, one for each score of items."""
    first = next(iter(rows.values()))[0]
    title = first.recipe["title"]
    if first.recipe["family"] == "classes":
        return [_table(title, rows, {name: name for name in CLASS_COLUMNS}, CLASS_COLUMNS)]
    tables = [table for score, name in ITEM_SCORES.items() if (table := _score_table(f"{title}: {name}", rows, score))]
    if BASE in rows and len(rows) > 1:
        tables.append(_rela_impr_table(f"{title}: RelaImpr over {BASE}, %", rows))
    if any(run.curve("auc") for runs in rows.values() for run in runs):
        tables.append(_events_table(f"{title}: AUC by the number of events", rows))
    if buckets := dict.fromkeys(name for runs in rows.values() for run in runs for name in run.calibration):
        columns = {f"calibration after {name} events": name for name in buckets}
        forms = dict.fromkeys(columns, ".3f")
        tables.append(_table(f"{title}: calibration, Σp / Σy, by the events before", rows, columns, forms))
    return tables


def _score_table(title: str, rows: Mapping[str, Sequence[Run]], score: str) -> Table | None:
    """None where no phase of any run has this score; the AUC has its table all the same."""
    found = [phase for runs in rows.values() for run in runs for phase in run.phases if score in phase["values"]]
    phases = list(dict.fromkeys(phase["stage"] for phase in found))
    columns = {f"{phase} {score}": phase for phase in phases} | {"seconds": "seconds"}
    table = _table(title, rows, columns, dict.fromkeys(columns, ".4f") | {"seconds": ".0f"})
    limits = [run.limit for run in _first(rows) if run.limit is not None]
    if score == "auc" and limits:
        table = replace(table, rows=[*table.rows, ["Bayes limit", "", *[cell(limits, ".4f")] * len(phases), ""]])
    return table if phases or score == "auc" else None


def _rela_impr_table(title: str, rows: Mapping[str, Sequence[Run]]) -> Table:
    """Of each row over the mean AUC of `BASE` in the same phase."""
    bases = [run.figures() for run in rows[BASE] if run.finished]
    phases = list(dict.fromkeys(phase["stage"] for runs in rows.values() for run in runs for phase in run.phases))
    lines = []
    for name, runs in rows.items():
        figures = [run.figures() for run in runs if run.finished]
        cells = [cell(_over(_found(figures, f"{p} auc"), _found(bases, f"{p} auc")), "z.1f") for p in phases]
        lines.append([name, str(len(figures)), *cells])
    return Table(title, ["", "seeds", *phases], lines, _note([run for runs in rows.values() for run in runs]))


def _found(figures: Sequence[Mapping[str, float]], name: str) -> list[float]:
    return [found[name] for found in figures if name in found]


def _over(aucs: Sequence[float], bases: Sequence[float]) -> list[float]:
    return [rela_impr(auc, float(np.mean(bases))) for auc in aucs] if bases else []


def _events_table(title: str, rows: Mapping[str, Sequence[Run]]) -> Table:
    numbers = sorted({number for runs in rows.values() for run in runs for number in run.curve("auc")})
    columns = {f"{number}{EVENTS} auc": str(number) for number in numbers}
    if any(f"{SUFFICIENT} auc" in run.figures() for runs in rows.values() for run in runs):
        columns[f"{SUFFICIENT} auc"] = SUFFICIENT
    return _table(title, rows, columns, dict.fromkeys(columns, ".3f"))


def _first(rows: Mapping[str, Sequence[Run]]) -> list[Run]:
    """The runs of the first row: what all rows have in common can be read off them."""
    return list(next(iter(rows.values())))


def _table(
    title: str, rows: Mapping[str, Sequence[Run]], columns: Mapping[str, str], forms: Mapping[str, str]
) -> Table:
    lines = []
    for name, runs in rows.items():
        figures = [run.figures() for run in runs if run.finished]
        cells = [cell(_found(figures, column), forms[column]) for column in columns]
        unfinished = sum(not run.finished for run in runs)
        lines.append([name + (f" ({unfinished} unfinished)" if unfinished else ""), str(len(figures)), *cells])
    return Table(title, ["", "seeds", *columns.values()], lines, _note([run for runs in rows.values() for run in runs]))


def cell(values: Sequence[float], form: str) -> str:
    """`mean ± sd`, the sd with n − 1; a dash where there is nothing to say.

    >>> cell([1.0, 2.0], ".1f"), cell([3.0], ".1f"), cell([float("nan")], ".1f")
    ('1.5 ± 0.7', '3.0', '–')
    """
    if not values or np.isnan(values).any():
        return DASH
    spread = f" ± {np.std(values, ddof=1):{form}}" if len(values) > 1 else ""
    return f"{np.mean(values):{form}}{spread}"


def _note(runs: Sequence[Run]) -> str:
    """On what they ran, and by which state of this library."""
    machines = dict.fromkeys(
        f"{m['processor']}, {m['threads']} threads" for m in (run.events[0]["machine"] for run in runs)
    )
    commits = dict.fromkeys(str(run.events[0]["commit"]) for run in runs)
    states = ", ".join(commits) if len(commits) <= MANY else f"one of {len(commits)}, each in its record"
    return f"{'; '.join(machines)}; commit {states}"
