"""Tables of results: mean ± standard deviation over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from newcomer.report.runs import Run

CLASS_COLUMNS = {"Acc": ".1f", "AAA": ".1f", "forgetting": ".1f", "seconds": ".0f"}
ITEM_COLUMNS = {"auc": ".4f", "item_auc": ".4f", "logloss": ".4f"}


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


def result_table(rows: Mapping[str, Sequence[Run]]) -> Table:
    """One table of a recipe: a line a row, each over all its seeds."""
    first = next(iter(rows.values()))[0]
    columns = _columns(first)
    lines = []
    for name, runs in rows.items():
        figures = [run.figures() for run in runs if run.finished]
        cells = [_cell([f[c] for f in figures if c in f], form) for c, form in columns.items()]
        unfinished = sum(not run.finished for run in runs)
        lines.append([name + (f" ({unfinished} unfinished)" if unfinished else ""), str(len(figures)), *cells])
    return Table(first.recipe["title"], ["", "seeds", *columns], lines, _note(first))


def _columns(run: Run) -> dict[str, str]:
    if run.recipe["family"] == "classes":
        return CLASS_COLUMNS
    phases = [stage["stage"] for stage in run.stages[1:]]
    return {f"{phase} {name}": form for name, form in ITEM_COLUMNS.items() for phase in phases} | {"seconds": ".0f"}


def _cell(values: Sequence[float], form: str) -> str:
    """`mean ± sd`, the sd with n − 1; a dash where there is nothing to say.

    >>> _cell([1.0, 2.0], ".1f"), _cell([3.0], ".1f"), _cell([float("nan")], ".1f")
    ('1.5 ± 0.7', '3.0', '–')
    """
    if not values or np.isnan(values).any():
        return "–"
    spread = f" ± {np.std(values, ddof=1):{form}}" if len(values) > 1 else ""
    return f"{np.mean(values):{form}}{spread}"


def _note(run: Run) -> str:
    machine = run.events[0]["machine"]
    return f"{machine['processor']}, {machine['threads']} threads; commit {run.events[0]['commit']}"
