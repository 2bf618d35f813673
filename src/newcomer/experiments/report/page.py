"""The report of runs: one self-contained HTML page of tables and plots."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from newcomer.errors import StoreError
from newcomer.experiments.report import plots
from newcomer.experiments.report.html import render_template, to_printable
from newcomer.experiments.report.runs import Run, by_row
from newcomer.experiments.report.table import Table, result_tables
from newcomer.store.writing import write_whole as write_file


@dataclass(frozen=True)
class Figure:
    """A plot as SVG, and its caption."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Section:
    """All runs of one recipe."""

    title: str
    summary: str
    tables: Sequence[Table]
    figures: Sequence[Figure]


def write_page(runs: Sequence[Run], out: Path) -> None:
    """Write the report of these runs atomically.

    Raises StoreError if the file cannot be written.
    """
    sections = [_section(rows) for rows in by_row(run for run in runs if run.stages).values()]
    write_whole(render_template("page.html.jinja", sections=sections, start=runs[0].events[0]), out)


def write_whole(html: str, out: Path) -> None:
    """Write a page atomically.

    Raises StoreError if the file cannot be written.
    """
    if not out.name or out.is_dir():
        raise StoreError(f"{out}: is a folder; give --out the name of a file in it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_file(out, html)
    except OSError as error:
        raise StoreError(f"{out}: could not be written ({error.strerror or error}); choose another --out") from None


def _section(rows: Mapping[str, Sequence[Run]]) -> Section:
    first = next(iter(rows.values()))[0]
    return Section(first.recipe["title"], first.summary(), result_tables(rows), figures(rows))


def figures(rows: Mapping[str, Sequence[Run]]) -> list[Figure]:
    """All plots of the rows of one recipe."""
    first = next(iter(rows.values()))[0]
    plotted = _class_figures(rows) if first.recipe["family"] == "classes" else _item_figures(rows)
    return [Figure(svg, caption) for svg, caption in plotted]


def _class_figures(rows: Mapping[str, Sequence[Run]]) -> Iterator[tuple[str, str]]:
    yield (
        plots.accuracy_curves(rows),
        "Mean accuracy on all tasks learned so far, among all classes learned so far. Dashed: joint training on all tasks.",
    )
    yield (
        plots.accuracy_matrices({name: runs[0] for name, runs in rows.items()}),
        "Accuracy matrix: accuracy on every task (columns) after every stage (rows), first seed. A forgotten task pales from "
        "top to bottom.",
    )
    for name, runs in rows.items():
        if runs[0].stages[-1]["info"].get("magnitudes"):
            yield (
                plots.magnitudes(runs[0]),
                f"{name}: magnitude of each task's direction, which later tasks go on training (first seed).",
            )


def _item_figures(rows: Mapping[str, Sequence[Run]]) -> Iterator[tuple[str, str]]:
    limit = next(iter(rows.values()))[0].limit
    if not any(run.phases for runs in rows.values() for run in runs):
        return
    yield (
        plots.warm_up_curves(rows, "auc", "AUC, pooled", limit),
        "AUC on the query events of new items: before any event (cold), and after each warm phase.",
    )
    yield (
        plots.warm_up_curves(rows, "logloss", "log loss", None),
        "Log loss on the same events; lower is better.",
    )
    if any(run.curve("auc") for runs in rows.values() for run in runs):
        yield (
            plots.event_curves(rows, "auc", "AUC, pooled"),
            "AUC of new items against the number of events per item. Squares at the right: with sufficient events.",
        )
    for name, runs in list(rows.items())[:1]:
        if items := runs[0].stages[-1]["info"].get("graphs"):
            yield (
                plots.graphs(to_printable(items)),
                f"{name}: item graphs of three new items after the last phase; a row has the weights of the edges into one field. "
                "Framed: the planted interaction of simulated data.",
            )
