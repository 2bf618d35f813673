"""What was found of a model's items (`items.analysis.item_graphs`), as pictures and one page beside the numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from newcomer.experiments.report import item_drawings as drawings
from newcomer.experiments.report.html import printed, rendered, write_folder
from newcomer.settings import Json
from newcomer.store.writing import to_json


@dataclass(frozen=True)
class Drawing:
    """A picture, the name of its file, and a sentence that says how to read it."""

    name: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Finding:
    """Something about all items, in words and in a picture."""

    title: str
    shown: str
    drawing: Drawing


@dataclass(frozen=True)
class Item:
    """One item: its graph, what warm-up made of it, and who is like it."""

    title: str
    about: Mapping[str, str]
    shown: str
    drawings: Sequence[Drawing]
    nearest: Sequence[Mapping[str, Json]]


def write_item_findings(found: Mapping[str, Json], out: Path) -> None:
    """Write `findings.json`, one SVG a picture and `index.html` with all of them into this folder.

    Raises StoreError when the disk refuses.
    """
    shown = printed(found)
    findings, items = list(_findings(shown)), [_item(shown, number) for number in range(len(shown["items"]))]
    pictures = [finding.drawing for finding in findings] + [part for item in items for part in item.drawings]
    files = {f"{drawing.name}.svg": drawing.svg for drawing in pictures}
    files["findings.json"] = to_json(found, indent=1)
    files["index.html"] = rendered("item_findings.html.jinja", findings=findings, items=items, known=found["known"])
    write_folder(files, out)


def _findings(found: Mapping[str, Json]) -> Iterator[Finding]:
    if found["planted"]:
        yield Finding(
            "Planted and found",
            recovery(found["planted"]),
            Drawing(
                "planted",
                drawings.planted(found["planted"]),
                "Each row: the items in which one pair of fields was planted, and their mean edge at every pair that was "
                "planted anywhere; last, the heaviest of their mean edges at any other pair. Framed: the row's own pair. Bars: in "
                "how many of the row's items that pair is heavier than every other.",
            ),
        )
    yield Finding(
        "What the items have in common, and what not",
        spread(found),
        Drawing(
            "all",
            drawings.common(found),
            "Left: the mean of all items' graphs. Right: the standard deviation over items, which is 0 where all items are treated "
            "alike. The diagonal is 1 in every graph and left out.",
        ),
    )


def _item(found: Mapping[str, Json], number: int) -> Item:
    item = found["items"][number]
    events = "" if item["events"] is None else f" · {item['events']:,} event{'' if item['events'] == 1 else 's'}"
    parts = [
        Drawing(
            f"item-{number}-graph",
            drawings.graph(found, item),
            "The item's graph as it is used: how strongly each two fields interact. The circle shows the same edges, the "
            "heavier the wider." + (" Framed: what was planted." if item["planted"] else ""),
        ),
        Drawing(
            f"item-{number}-change",
            drawings.change(found, item),
            "Left: the graph as it was written from the item's fields alone. Right: what warm-up added to it (green) and took away "
            "(violet).",
        ),
    ]
    if item["curve"]:
        parts.append(
            Drawing(
                f"item-{number}-curve",
                drawings.curve(item["curve"]),
                "The item taken back to its cold state and tuned on its first events only: its loss and AUC on the same "
                f"{item['curve']['asked']:,} later events. The model learned from an old item's events before; only the curve of a "
                "new one is a test.",
            )
        )
    return Item(
        f"{item['item']}{events}", item["about"], f"Shown: {item['why']}. {changed(item)}", parts, item["nearest"]
    )


def recovery(planted: Mapping[str, Json]) -> str:
    """Of how many items the planted pair is the heaviest edge, in words."""
    items, pairs = planted["items"], planted["pairs"]
    return (
        f"In this simulated world every item has one planted interaction, one of {pairs} pairs of fields. It is the heaviest edge "
        f"in the graphs of {planted['found']} of {items} items ({planted['found'] / items:.0%}; guessing would find "
        f"{1 / pairs:.1%}), with a median rank of {planted['rank']:g}. In the graphs as they were written from the items' fields "
        f"alone it was the heaviest for {planted['found cold']} ({planted['found cold'] / items:.0%}), with a median rank of "
        f"{planted['rank cold']:g}."
    )


def spread(found: Mapping[str, Json]) -> str:
    """The edges that are heaviest, most different and most moved, in words."""
    heavy, differing, moved = (_heaviest(found, found[part]) for part in ("mean", "deviation", "moved"))
    return (
        f"On average the heaviest edge is {heavy[0]} ({heavy[1]:.2f}); items differ most in {differing[0]} (standard deviation "
        f"{differing[1]:.2f}). Warm-up moved {moved[0]} most, by {moved[1]:.3f} on average."
    )


def changed(item: Mapping[str, Json]) -> str:
    """What warm-up changed most, in words."""
    if not item["changes"]:
        return "Warm-up has not changed its graph."
    parts = [f"{c['one']} × {c['other']} from {c['before']:.2f} to {c['after']:.2f}" for c in item["changes"]]
    return f"Warm-up changed most: {', '.join(parts)}."


def _heaviest(found: Mapping[str, Json], graph: Sequence[Sequence[float]]) -> tuple[str, float]:
    names, upper = [field["name"] for field in found["fields"]], np.triu(np.array(graph), 1)
    one, other = np.unravel_index(int(upper.argmax()), upper.shape)
    return f"{names[one]} × {names[other]}", float(upper.max())
