"""Report of the analysis of item graphs (`items.analysis.item_graphs`): plots on one page, and the numbers as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from newcomer.experiments.report import item_plots as plots
from newcomer.experiments.report.html import render_template, to_printable, write_folder
from newcomer.settings import Json
from newcomer.store.writing import to_json


@dataclass(frozen=True)
class Plot:
    """A plot as SVG, the name of its file, and its caption."""

    name: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Finding:
    """A result on all items, as text and as a plot."""

    title: str
    result: str
    plot: Plot


@dataclass(frozen=True)
class Item:
    """One item: its graph, its change by warm-up, and its nearest neighbours."""

    title: str
    about: Mapping[str, str]
    result: str
    plots: Sequence[Plot]
    nearest: Sequence[Mapping[str, Json]]


def write_item_analysis(analysis: Mapping[str, Json], out: Path) -> None:
    """Write `analysis.json`, an SVG per plot, and `index.html` with all of them into a folder.

    Raises StoreError if a file cannot be written.
    """
    printable = to_printable(analysis)
    findings = list(_findings(printable))
    items = [_item(printable, number) for number in range(len(printable["items"]))]
    all_plots = [finding.plot for finding in findings] + [plot for item in items for plot in item.plots]
    files = {f"{plot.name}.svg": plot.svg for plot in all_plots}
    files["analysis.json"] = to_json(analysis, indent=1)
    files["index.html"] = render_template(
        "item_analysis.html.jinja", findings=findings, items=items, known=analysis["known"]
    )
    write_folder(files, out)


def _findings(analysis: Mapping[str, Json]) -> Iterator[Finding]:
    if analysis["planted"]:
        yield Finding(
            "Recovery of planted interactions",
            describe_recovery(analysis["planted"]),
            Plot(
                "planted",
                plots.planted(analysis["planted"]),
                "Each row: the items with one planted pair of fields, and the mean weights of their edges at all planted pairs; "
                "last column: their largest mean weight at any other pair. Framed: the planted pair. Bars: the items in which it "
                "is the heaviest edge.",
            ),
        )
    yield Finding(
        "Mean and variation over items",
        describe_variation(analysis),
        Plot(
            "all",
            plots.mean_and_std(analysis),
            "Left: the mean of all items' graphs. Right: the standard deviation over items; 0 means the same edge weight in all. "
            "The diagonal is 1 in every graph and left out.",
        ),
    )


def _item(analysis: Mapping[str, Json], number: int) -> Item:
    item = analysis["items"][number]
    events = "" if item["events"] is None else f" · {item['events']:,} event{'' if item['events'] == 1 else 's'}"
    item_plots = [
        Plot(
            f"item-{number}-graph",
            plots.graph(analysis, item),
            "The item's graph: the interaction weight of every pair of fields. The circle shows the same edges; wider is "
            "heavier." + (" Framed: the planted interaction." if item["planted"] else ""),
        ),
        Plot(
            f"item-{number}-change",
            plots.change(analysis, item),
            "Left: the cold graph, generated from the item's features alone. Right: the weights that warm-up added (green) and "
            "removed (violet).",
        ),
    ]
    if item["curve"]:
        item_plots.append(
            Plot(
                f"item-{number}-curve",
                plots.curve(item["curve"]),
                "The item from its cold state, adapted to its first events only: its log loss and AUC on the same "
                f"{item['curve']['asked']:,} later events. The events of an old item are training data; only a new item's curve is "
                "a test.",
            )
        )
    result = f"Shown: {item['why']}. {describe_change(item)}"
    return Item(f"{item['item']}{events}", item["about"], result, item_plots, item["nearest"])


def describe_recovery(planted: Mapping[str, Json]) -> str:
    """The number of items whose heaviest edge is the planted pair, as text."""
    items, pairs = planted["items"], planted["pairs"]
    return (
        f"In this simulated data every item has one planted interaction, one of {pairs} pairs of fields. It is the heaviest edge "
        f"in the graphs of {planted['found']} of {items} items ({planted['found'] / items:.0%}; chance: "
        f"{1 / pairs:.1%}), with a median rank of {planted['rank']:g}. In the cold graphs, generated from the items' features "
        f"alone, it is the heaviest for {planted['found cold']} ({planted['found cold'] / items:.0%}), with a median rank of "
        f"{planted['rank cold']:g}."
    )


def describe_variation(analysis: Mapping[str, Json]) -> str:
    """The edges with the largest mean, standard deviation and change, as text."""
    heaviest, varied, moved = (_heaviest_edge(analysis, analysis[part]) for part in ("mean", "deviation", "moved"))
    return (
        f"On average the heaviest edge is {heaviest[0]} ({heaviest[1]:.2f}); items differ most in {varied[0]} (standard deviation "
        f"{varied[1]:.2f}). Warm-up changed {moved[0]} most, by {moved[1]:.3f} on average."
    )


def describe_change(item: Mapping[str, Json]) -> str:
    """The edges that warm-up changed most, as text."""
    if not item["changes"]:
        return "Warm-up has not changed its graph."
    parts = [f"{c['one']} × {c['other']} from {c['before']:.2f} to {c['after']:.2f}" for c in item["changes"]]
    return f"Warm-up changed most: {', '.join(parts)}."


def _heaviest_edge(analysis: Mapping[str, Json], graph: Sequence[Sequence[float]]) -> tuple[str, float]:
    names, upper = [field["name"] for field in analysis["fields"]], np.triu(np.array(graph), 1)
    one, other = np.unravel_index(int(upper.argmax()), upper.shape)
    return f"{names[one]} × {names[other]}", float(upper.max())
