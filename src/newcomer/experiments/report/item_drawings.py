"""Pictures of items' graphs: as heat maps, and as fields on a circle."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from newcomer.experiments.report.drawing import COLOURS, FAINT, INK, drawn, framed, framed_square, heat_map, side_inches
from newcomer.settings import Json

ROLES = {"item": COLOURS[1], "user": COLOURS[0], "context": COLOURS[3]}
"""Whose a field is, as a colour."""
LONG = 16
"""Letters of a field's name that are shown."""


def graph(found: Mapping[str, Json], item: Mapping[str, Json]) -> str:
    """A heat map of an item's graph beside its fields on a circle."""
    heaviest = _heaviest(found)

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        weights, _ = _off_diagonal(item["graph"])
        _field_map(figure, left, weights, found, "BuGn", (0, heaviest))
        if item["planted"]:
            one, other = (
                [field["name"] for field in found["fields"]].index(name) for name in item["planted"].split(" × ")
            )
            for row, column in ((one, other), (other, one)):
                left.add_patch(framed_square(row, column))
        _circle(right, np.nan_to_num(weights) / heaviest, found["fields"])

    return drawn(*_two(found), draw)


def change(found: Mapping[str, Json], item: Mapping[str, Json]) -> str:
    """The graph as it was cold, and how far each edge has moved since."""

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        cold, _ = _off_diagonal(item["cold"])
        moved, furthest = _off_diagonal(np.array(item["graph"]) - np.array(item["cold"]))
        _field_map(figure, left, cold, found, "BuGn", (0, _heaviest(found)))
        _field_map(figure, right, moved, found, "PRGn", (-furthest, furthest))
        left.set_title("cold", fontsize=9, loc="left")
        right.set_title("changed since by", fontsize=9, loc="left")

    return drawn(*_two(found), draw)


def common(found: Mapping[str, Json]) -> str:
    """Mean and standard deviation of all items' graphs."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, 2)
        for axis, key, title in zip(axes, ("mean", "deviation"), ("mean", "standard deviation"), strict=True):
            weights, most = _off_diagonal(found[key])
            _field_map(figure, axis, weights, found, "BuGn", (0, most))
            axis.set_title(title, fontsize=9, loc="left")

    return drawn(*_two(found), draw)


def curve(found: Mapping[str, Json]) -> str:
    """Loss and AUC of one item against its number of events."""

    def draw(figure: Figure) -> None:
        place = np.log1p(found["events"])
        for axis, key, label in zip(figure.subplots(1, 2), ("logloss", "auc"), ("log loss", "AUC"), strict=True):
            values = np.array(found[key], dtype=float)  # None, undefined, becomes NaN
            axis.plot(place, values, "o-", color=COLOURS[0], markersize=4, linewidth=1.6)
            axis.set_xticks(place, list(map(str, found["events"])))
            axis.set_xlabel("events of the item so far")
            axis.set_ylabel(label)
            axis.yaxis.get_major_formatter().set_useOffset(False)
            framed(axis)

    return drawn(9, 2.8, draw)


def planted(found: Mapping[str, Json]) -> str:
    """Kinds of items by planted pairs: the mean edge, the kind's own pair framed; beside it how many items it was found in."""
    kinds, names = found["kinds"], found["names"]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [1 + len(kinds) / 3, 2]})
        weights = np.array([[*kind["weights"], kind["weight"]] for kind in kinds])
        heat_map(figure, left, weights, names, "BuGn", (0, weights.max() or 1), numbers=len(kinds) <= 8)
        left.set_aspect("auto")  # so that its rows stand beside the bars
        left.set_xticks(range(len(names) + 1), [*names, "any other"], rotation=60, ha="right", rotation_mode="anchor")
        left.set_yticks(range(len(names)), names)
        left.set_ylabel("planted")
        left.set_title("mean edge", fontsize=9, loc="left")
        left.axvline(len(names) - 0.5, color="white", linewidth=4)
        for kind in range(len(kinds)):
            left.add_patch(framed_square(kind, kind))
        share = [100 * kind["found"] / kind["items"] for kind in kinds]
        right.barh(range(len(kinds)), share, color=COLOURS[0], height=0.6)
        for row, kind in enumerate(kinds):
            right.text(102, row, f"{kind['found']} of {kind['items']}", va="center", fontsize=8)
        right.set_xlim(0, 100)
        right.set_xlabel("found, % of items")
        right.tick_params(axis="y", length=0, labelleft=False)
        right.spines[["top", "right"]].set_visible(False)

    return drawn(min(9.8, 6.5 + 0.25 * len(kinds)), 2.4 + 0.26 * len(kinds), draw)


def _circle(axis: Axes, weights: np.ndarray, fields: Sequence[Mapping[str, str]]) -> None:
    """Fields on a circle, an edge as wide and as dark as its weight in [0, 1]."""
    angle = np.pi / 2 - 2 * np.pi * np.arange(len(fields)) / len(fields)
    x, y = np.cos(angle), np.sin(angle)
    one, other = np.nonzero(np.triu(weights, 1))
    heavy = weights[one, other]
    ends = np.stack([np.stack([x[one], y[one]], 1), np.stack([x[other], y[other]], 1)], 1)
    colours = [to_rgba(INK, weight**1.5) for weight in heavy]
    axis.add_collection(LineCollection(list(ends), colors=colours, linewidths=0.4 + 4.5 * heavy**2, zorder=1))
    axis.scatter(x, y, s=90, c=[ROLES[field["role"]] for field in fields], edgecolors="white", linewidths=1.2, zorder=2)
    for at, field in enumerate(fields):
        side = "center" if abs(x[at]) < 0.1 else "left" if x[at] > 0 else "right"
        level = "center" if abs(y[at]) < 0.9 else "bottom" if y[at] > 0 else "top"
        axis.text(1.1 * x[at], 1.1 * y[at], _short(field["name"]), ha=side, va=level, fontsize=9)
    axis.set_xlim(-1.6, 1.6)
    axis.set_ylim(-1.3, 1.3)
    axis.set_aspect("equal")
    axis.set_axis_off()
    shown = [role for role in ROLES if role in [field["role"] for field in fields]]
    marks = [Line2D([], [], marker="o", linestyle="", markersize=7, color=ROLES[role]) for role in shown]
    names = [role if role == "context" else f"{role}'s" for role in shown]
    axis.legend(marks, names, loc="upper center", ncols=3, bbox_to_anchor=(0.5, 0), frameon=False, fontsize=8.5)


def _field_map(
    figure: Figure,
    axis: Axes,
    weights: np.ndarray,
    found: Mapping[str, Json],
    colours: str,
    limits: tuple[float, float],
) -> None:
    """A heat map with a field a row and a column; the diagonal, which is the same in every graph, is grey."""
    names = [_short(field["name"]) for field in found["fields"]]
    heat_map(figure, axis, weights, names, colours, limits, numbers=False)
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    (image,) = axis.images
    image.set_cmap(image.get_cmap().with_extremes(bad=FAINT))


def _off_diagonal(graph: Sequence[Sequence[float]] | np.ndarray) -> tuple[np.ndarray, float]:
    """The graph with an empty diagonal, and the most that an edge of it is away from 0."""
    weights = np.array(graph, dtype=float)
    np.fill_diagonal(weights, np.nan)
    return weights, max(1e-6, float(np.nanmax(np.abs(weights), initial=0.0)))


def _heaviest(found: Mapping[str, Json]) -> float:
    """Of all items shown, so that their colours can be compared."""
    return max(_off_diagonal(item[part])[1] for item in found["items"] for part in ("graph", "cold"))


def _two(found: Mapping[str, Json]) -> tuple[float, float]:
    """Width and height of two heat maps in inches: no wider than a page, whose text would else be small."""
    side = min(4.3, side_inches(len(found["fields"])))
    return 2 * side + 1.0, side


def _short(name: str) -> str:
    return name if len(name) <= LONG else name[: LONG - 1] + "…"
