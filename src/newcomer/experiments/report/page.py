"""One self-contained HTML page of runs: tables and plots, no script, nothing fetched."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from newcomer.errors import StoreError
from newcomer.experiments.report import plots
from newcomer.experiments.report.html import printed, rendered
from newcomer.experiments.report.runs import Run, by_row
from newcomer.experiments.report.table import Table, result_tables
from newcomer.store.writing import write_whole as write_file


@dataclass(frozen=True)
class Figure:
    """A plot, and a sentence that says how to read it."""

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
    """Write the report of these runs; the file appears whole or not at all.

    Raises StoreError when the disk refuses.
    """
    sections = [_section(rows) for rows in by_row(run for run in runs if run.stages).values()]
    write_whole(rendered("page.html.jinja", sections=sections, start=runs[0].events[0]), out)


def write_whole(html: str, out: Path) -> None:
    """Write a page that appears whole or not at all.

    Raises StoreError when the disk refuses.
    """
    if not out.name or out.is_dir():
        raise StoreError(f"{out}: is a folder; say with --out which file in it to write")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_file(out, html)
    except OSError as error:
        raise StoreError(f"{out}: could not be written ({error.strerror or error}); choose another --out") from None


def _section(rows: Mapping[str, Sequence[Run]]) -> Section:
    first = next(iter(rows.values()))[0]
    return Section(first.recipe["title"], first.summary(), result_tables(rows), figures(rows))


def figures(rows: Mapping[str, Sequence[Run]]) -> list[Figure]:
    """What there is to see of the rows of one recipe."""
    first = next(iter(rows.values()))[0]
    drawn = _class_figures(rows) if first.recipe["family"] == "classes" else _item_figures(rows)
    return [Figure(svg, caption) for svg, caption in drawn]


def _class_figures(rows: Mapping[str, Sequence[Run]]) -> Iterator[tuple[str, str]]:
    yield (
        plots.accuracy_curves(rows),
        "Mean accuracy on all tasks learned so far, among all classes learned so far. Dashed: everything taught at once.",
    )
    yield (
        plots.accuracy_matrices({name: runs[0] for name, runs in rows.items()}),
        "Accuracy on every task (columns) after every stage (rows), first seed. What is forgotten pales from top to bottom.",
    )
    for name, runs in rows.items():
        if "magnitudes" in runs[0].stages[-1]["facts"]:
            yield (
                plots.magnitudes(runs[0]),
                f"{name}: the magnitude of each task's direction, trained on while later tasks are learned (first seed).",
            )


def _item_figures(rows: Mapping[str, Sequence[Run]]) -> Iterator[tuple[str, str]]:
    limit = next(iter(rows.values()))[0].limit
    if not any(run.phases for runs in rows.values() for run in runs):
        return
    yield (
        plots.warm_up_curves(rows, "auc", "AUC, pooled", limit),
        "AUC on the new items' later events: before any event (cold), and after each warm phase.",
    )
    yield (
        plots.warm_up_curves(rows, "logloss", "log loss", None),
        "Log loss on the same events; lower is better.",
    )
    if any(run.curve("auc") for runs in rows.values() for run in runs):
        yield (
            plots.event_curves(rows, "auc", "AUC, pooled"),
            "AUC of new items against the number of events that each had had. Squares at the right: with sufficient events.",
        )
    for name, runs in list(rows.items())[:1]:
        if found := runs[0].stages[-1]["facts"].get("graphs"):
            yield (
                plots.graphs(printed(found)),
                f"{name}: the graphs of three new items after the last phase; each row says whom a field listens to. Framed: the "
                "planted interaction, where the world is simulated.",
            )
