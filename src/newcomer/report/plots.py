"""Plots of runs, each an SVG that stands by itself."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from newcomer.report.runs import Run

COLOURS = ("#0b6e4f", "#c8553d", "#2e4057", "#e0a030", "#7a5195", "#6b8f9c", "#a23b72", "#8a8a4a")
INK, FAINT = "#22313a", "#d5dde0"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "path",
    "svg.hashsalt": "newcomer",
}


def drawn(width: float, height: float, draw: Callable[[Figure], None]) -> str:
    """The SVG of a figure of this size in inches, the same bytes for the same picture."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = out.getvalue()
    return re.sub(r' (width|height)="[\d.]+pt"', "", svg[svg.index("<svg") :])  # the page sets the size


def accuracy_matrices(runs: Mapping[str, Run]) -> str:
    """One heat map a row: the accuracy on every task after every stage."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(runs), squeeze=False, gridspec_kw={"width_ratios": [1] * len(runs)})[0]
        for axis, (name, run) in zip(axes, runs.items(), strict=True):
            matrix = run.accuracy
            axis.imshow(matrix, cmap="YlGn", vmin=0, vmax=1, aspect="auto" if len(matrix) == 1 else "equal")
            for (stage, task), value in np.ndenumerate(matrix):
                if not np.isnan(value):
                    colour = "white" if value > 0.7 else INK
                    axis.text(task, stage, f"{100 * value:.0f}", ha="center", va="center", fontsize=8, color=colour)
            axis.set_title(name, fontsize=9, loc="left")
            axis.set_xticks(range(matrix.shape[1]))
            axis.set_yticks(range(matrix.shape[0]), [s["stage"].removeprefix("task ") for s in run.stages])
            axis.set_xlabel("accuracy on task, %")
            _bare(axis)
        axes[0].set_ylabel("after task")

    return drawn(2.6 * len(runs), 2.9, draw)


def accuracy_curves(rows: Mapping[str, Sequence[Run]]) -> str:
    """Mean accuracy on all tasks seen so far, after every stage; the band is one standard deviation over seeds."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for colour, (name, runs) in zip(_cycle(len(rows)), rows.items(), strict=True):
            curves = np.array([[100 * np.nanmean(row) for row in run.accuracy] for run in runs])
            if curves.shape[1] == 1:
                axis.axhline(curves.mean(), color=colour, linestyle="--", linewidth=1.2, label=name)
                continue
            _band(axis, np.arange(1, curves.shape[1] + 1), curves, colour, name)
        axis.set_xlabel("tasks learned")
        axis.set_ylabel("mean accuracy on them, %")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        _frame(axis)

    return drawn(7, 3.4, draw)


def magnitudes(run: Run) -> str:
    """The magnitude of every task's direction, followed over the stages."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        history = [np.array(stage["facts"]["magnitudes"]).mean(axis=1) for stage in run.stages]
        for task, colour in zip(range(len(history)), _cycle(len(history)), strict=True):
            stages = np.arange(task, len(history))
            axis.plot(
                stages + 1, [history[s][task] for s in stages], "o-", color=colour, markersize=4, label=f"task {task}"
            )
        axis.set_xlabel("tasks learned")
        axis.set_ylabel("magnitude α")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
        _frame(axis)

    return drawn(7, 3, draw)


def warm_up_curves(rows: Mapping[str, Sequence[Run]], score: str, label: str, limit: float | None) -> str:
    """One score of the new items from their first moment on, phase by phase; dashed: the best that any model could reach."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for colour, (name, runs) in zip(_cycle(len(rows)), rows.items(), strict=True):
            curves = np.array([[s["values"][score] for s in run.scores] for run in runs])
            phases = [s["stage"] for s in runs[0].scores]
            _band(axis, np.arange(len(phases)), curves, colour, name)
            axis.set_xticks(range(len(phases)), phases)
        if limit is not None:
            axis.axhline(limit, color=INK, linestyle="--", linewidth=1, label="Bayes limit")
        axis.set_ylabel(label)
        _frame(axis)

    return drawn(7, 3.4, draw)


def graphs(found: Sequence[Mapping[str, Any]]) -> str:
    """Item graphs as heat maps: how much each field listens to each other one."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(found), squeeze=False)[0]
        for number, (axis, item) in enumerate(zip(axes, found, strict=True)):
            weights = np.array(item["graph"])
            image = axis.imshow(weights, cmap="BuGn", vmin=0, vmax=max(1e-9, weights.max()))
            axis.set_xticks(range(len(item["fields"])), item["fields"], rotation=60, ha="right")
            axis.set_yticks(range(len(item["fields"])), item["fields"] if number == 0 else [])
            axis.set_title(item["title"], fontsize=9, loc="left")
            _bare(axis)
            for row, column in item.get("planted", ()):
                axis.add_patch(_square(row, column))
            figure.colorbar(image, ax=axis, shrink=0.7).outline.set_visible(False)

    return drawn(3.4 * len(found), 3.6, draw)


def _square(row: int, column: int) -> Rectangle:
    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=COLOURS[1], linewidth=1.8)


def _band(axis: Axes, x: np.ndarray, curves: np.ndarray, colour: str, name: str) -> None:
    mean = curves.mean(axis=0)
    axis.plot(x, mean, "o-", color=colour, markersize=4, linewidth=1.6, label=name)
    if len(curves) > 1:
        spread = curves.std(axis=0, ddof=1)
        axis.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)


def _frame(axis: Axes) -> None:
    axis.grid(axis="y", color=FAINT, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def _bare(axis: Axes) -> None:
    axis.tick_params(length=0, labelsize=8)
    axis.spines[:].set_visible(False)


def _cycle(count: int) -> list[str]:
    return [COLOURS[n % len(COLOURS)] for n in range(count)]
