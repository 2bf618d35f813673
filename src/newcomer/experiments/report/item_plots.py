"""Plots of item graphs: heat maps, and fields on a circle; learning curves of single items."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from newcomer.experiments.report.plot_style import (
    COLOURS,
    FAINT,
    INK,
    heat_map,
    heat_map_inches,
    highlight_cell,
    render_svg,
    style_axes,
)
from newcomer.settings import Json

ROLES = {"item": COLOURS[1], "user": COLOURS[0], "context": COLOURS[3]}
"""The colour of a field by its role."""
MAX_NAME_LENGTH = 16
"""The most characters of a field's name that are shown."""


def graph(analysis: Mapping[str, Json], item: Mapping[str, Json]) -> str:
    """An item's graph as a heat map and as a circle of fields."""
    max_weight = _max_weight(analysis)

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        weights, _ = _off_diagonal(item["graph"])
        _field_map(figure, left, weights, analysis, "BuGn", (0, max_weight))
        if item["planted"]:
            one, other = (
                [field["name"] for field in analysis["fields"]].index(name) for name in item["planted"].split(" × ")
            )
            for row, column in ((one, other), (other, one)):
                left.add_patch(highlight_cell(row, column))
        _circle(right, np.nan_to_num(weights) / max_weight, analysis["fields"])

    return render_svg(*_pair_size(analysis), draw)


def change(analysis: Mapping[str, Json], item: Mapping[str, Json]) -> str:
    """An item's cold graph, and the change of each edge since."""

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        cold, _ = _off_diagonal(item["cold"])
        difference, limit = _off_diagonal(np.array(item["graph"]) - np.array(item["cold"]))
        _field_map(figure, left, cold, analysis, "BuGn", (0, _max_weight(analysis)))
        _field_map(figure, right, difference, analysis, "PRGn", (-limit, limit))
        left.set_title("cold", fontsize=9, loc="left")
        right.set_title("change since", fontsize=9, loc="left")

    return render_svg(*_pair_size(analysis), draw)


def mean_and_std(analysis: Mapping[str, Json]) -> str:
    """Mean and standard deviation over all items' graphs."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, 2)
        for axis, key, title in zip(axes, ("mean", "deviation"), ("mean", "standard deviation"), strict=True):
            weights, limit = _off_diagonal(analysis[key])
            _field_map(figure, axis, weights, analysis, "BuGn", (0, limit))
            axis.set_title(title, fontsize=9, loc="left")

    return render_svg(*_pair_size(analysis), draw)


def curve(scores: Mapping[str, Json]) -> str:
    """Log loss and AUC of one item against its number of events."""

    def draw(figure: Figure) -> None:
        x = np.log1p(scores["events"])
        for axis, key, label in zip(figure.subplots(1, 2), ("logloss", "auc"), ("log loss", "AUC"), strict=True):
            values = np.array(scores[key], dtype=float)  # None (undefined) becomes NaN
            axis.plot(x, values, "o-", color=COLOURS[0], markersize=4, linewidth=1.6)
            axis.set_xticks(x, list(map(str, scores["events"])))
            axis.set_xlabel("events of the item so far")
            axis.set_ylabel(label)
            axis.yaxis.get_major_formatter().set_useOffset(False)
            style_axes(axis)

    return render_svg(9, 2.8, draw)


def planted(recovery: Mapping[str, Json]) -> str:
    """Mean edges by planted pair, the planted pair framed; and the share of items whose heaviest edge it is."""
    kinds, names = recovery["kinds"], recovery["names"]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [1 + len(kinds) / 3, 2]})
        weights = np.array([[*kind["weights"], kind["weight"]] for kind in kinds])
        heat_map(figure, left, weights, names, "BuGn", (0, weights.max() or 1), numbers=len(kinds) <= 8)
        left.set_aspect("auto")  # aligns its rows with the bars
        left.set_xticks(range(len(names) + 1), [*names, "any other"], rotation=60, ha="right", rotation_mode="anchor")
        left.set_yticks(range(len(names)), names)
        left.set_ylabel("planted")
        left.set_title("mean edge", fontsize=9, loc="left")
        left.axvline(len(names) - 0.5, color="white", linewidth=4)
        for kind in range(len(kinds)):
            left.add_patch(highlight_cell(kind, kind))
        share = [100 * kind["found"] / kind["items"] for kind in kinds]
        right.barh(range(len(kinds)), share, color=COLOURS[0], height=0.6)
        for row, kind in enumerate(kinds):
            right.text(102, row, f"{kind['found']} of {kind['items']}", va="center", fontsize=8)
        right.set_xlim(0, 100)
        right.set_xlabel("found, % of items")
        right.tick_params(axis="y", length=0, labelleft=False)
        right.spines[["top", "right"]].set_visible(False)

    return render_svg(min(9.8, 6.5 + 0.25 * len(kinds)), 2.4 + 0.26 * len(kinds), draw)


def _circle(axis: Axes, weights: np.ndarray, fields: Sequence[Mapping[str, str]]) -> None:
    """Fields on a circle; width and opacity of an edge grow with its weight in [0, 1]."""
    angle = np.pi / 2 - 2 * np.pi * np.arange(len(fields)) / len(fields)
    x, y = np.cos(angle), np.sin(angle)
    one, other = np.nonzero(np.triu(weights, 1))
    heavy = weights[one, other]
    ends = np.stack([np.stack([x[one], y[one]], 1), np.stack([x[other], y[other]], 1)], 1)
    colours = [to_rgba(INK, weight**1.5) for weight in heavy]
    axis.add_collection(LineCollection(list(ends), colors=colours, linewidths=0.4 + 4.5 * heavy**2, zorder=1))
    axis.scatter(x, y, s=90, c=[ROLES[field["role"]] for field in fields], edgecolors="white", linewidths=1.2, zorder=2)
    for n, field in enumerate(fields):
        horizontal = "center" if abs(x[n]) < 0.1 else "left" if x[n] > 0 else "right"
        vertical = "center" if abs(y[n]) < 0.9 else "bottom" if y[n] > 0 else "top"
        axis.text(1.1 * x[n], 1.1 * y[n], _short(field["name"]), ha=horizontal, va=vertical, fontsize=9)
    axis.set_xlim(-1.6, 1.6)
    axis.set_ylim(-1.3, 1.3)
    axis.set_aspect("equal")
    axis.set_axis_off()
    roles = [role for role in ROLES if role in [field["role"] for field in fields]]
    handles = [Line2D([], [], marker="o", linestyle="", markersize=7, color=ROLES[role]) for role in roles]
    names = [role if role == "context" else f"{role}'s" for role in roles]
    axis.legend(handles, names, loc="upper center", ncols=3, bbox_to_anchor=(0.5, 0), frameon=False, fontsize=8.5)


def _field_map(
    figure: Figure,
    axis: Axes,
    weights: np.ndarray,
    analysis: Mapping[str, Json],
    colours: str,
    limits: tuple[float, float],
) -> None:
    """A heat map with one row and one column per field; the diagonal, the same in every graph, is grey."""
    names = [_short(field["name"]) for field in analysis["fields"]]
    heat_map(figure, axis, weights, names, colours, limits, numbers=False)
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    (image,) = axis.images
    image.set_cmap(image.get_cmap().with_extremes(bad=FAINT))


def _off_diagonal(graph: Sequence[Sequence[float]] | np.ndarray) -> tuple[np.ndarray, float]:
    """The graph with a NaN diagonal, and its largest absolute edge weight."""
    weights = np.array(graph, dtype=float)
    np.fill_diagonal(weights, np.nan)
    return weights, max(1e-6, float(np.nanmax(np.abs(weights), initial=0.0)))


def _max_weight(analysis: Mapping[str, Json]) -> float:
    """The largest edge weight of all items, so that they share one colour scale."""
    return max(_off_diagonal(item[part])[1] for item in analysis["items"] for part in ("graph", "cold"))


def _pair_size(analysis: Mapping[str, Json]) -> tuple[float, float]:
    """Width and height of two heat maps side by side in inches, limited so that the page does not shrink their text."""
    side = min(4.3, heat_map_inches(len(analysis["fields"])))
    return 2 * side + 1.0, side


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + "…"
