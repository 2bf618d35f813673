"""Tables of results: mean ± standard deviation over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from newcomer.report.runs import Run

CLASS_COLUMNS = {"Acc": ".1f", "AAA": ".1f", "forgetting": ".1f", "seconds": ".0f"}
ITEM_SCORES = {"auc": "AUC, pooled", "item_auc": "AUC within items", "logloss": "log loss"}
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
        lines = ["| " + " | ".join(self.head) + " |", "|" + "|".join(["---"] + ["--:"] * (len(self.head) - 1)) + "|"]
        return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in self.rows])


def result_tables(rows: Mapping[str, Sequence[Run]]) -> list[Table]:
    """The tables of a recipe, a line a row, each over all its seeds: one for classes, one for each score of items."""
    first = next(iter(rows.values()))[0]
    title = first.recipe["title"]
    if first.recipe["family"] == "classes":
        return [_table(title, rows, {name: name for name in CLASS_COLUMNS}, CLASS_COLUMNS)]
    phases = list(dict.fromkeys(score["stage"] for score in first.scores))
    tables = []
    for score, name in ITEM_SCORES.items():
        columns = {f"{phase} {score}": phase for phase in phases} | {"seconds": "seconds"}
        forms = dict.fromkeys(columns, ".4f") | {"seconds": ".0f"}
        table = _table(f"{title}: {name}", rows, columns, forms)
        if score == "auc" and first.limit is not None:
            limits = [run.limit for run in _first(rows) if run.limit is not None]
            table = replace(table, rows=[*table.rows, ["Bayes limit", "", *[_cell(limits, ".4f")] * len(phases), ""]])
        tables.append(table)
    return tables


def _first(rows: Mapping[str, Sequence[Run]]) -> list[Run]:
    """The runs of the first row: what all rows have in common can be read off them."""
    return list(next(iter(rows.values())))


def _table(
    title: str, rows: Mapping[str, Sequence[Run]], columns: Mapping[str, str], forms: Mapping[str, str]
) -> Table:
    lines = []
    for name, runs in rows.items():
        figures = [run.figures() for run in runs if run.finished]
        cells = [_cell([f[column] for f in figures if column in f], forms[column]) for column in columns]
        unfinished = sum(not run.finished for run in runs)
        lines.append([name + (f" ({unfinished} unfinished)" if unfinished else ""), str(len(figures)), *cells])
    return Table(title, ["", "seeds", *columns.values()], lines, _note([run for runs in rows.values() for run in runs]))


def _cell(values: Sequence[float], form: str) -> str:
    """`mean ± sd`, the sd with n − 1; a dash where there is nothing to say.

    >>> _cell([1.0, 2.0], ".1f"), _cell([3.0], ".1f"), _cell([float("nan")], ".1f")
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
