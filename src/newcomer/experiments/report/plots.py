"""Plots of runs as SVG: accuracy curves and matrices, warm-up curves, search curves, item graphs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from newcomer.experiments.report.plot_style import (
    INK,
    highlight_cell,
    legend_label,
    remove_frame,
    render_svg,
    row_colours,
    style_axes,
)
from newcomer.experiments.report.runs import Run
from newcomer.printable import stage_title

MAX_COLUMNS = 5
"""Heat maps side by side."""
LEGEND_LINE = 0.19
"""Height of a legend entry in inches."""


def accuracy_matrices(runs: Mapping[str, Run]) -> str:
    """One heat map a row: the accuracy on every task after every stage."""
    columns = min(len(runs), MAX_COLUMNS)
    lines = -(-len(runs) // columns)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(lines, columns, squeeze=False)
        for axis in axes.flat[len(runs) :]:
            axis.remove()
        for axis, (name, run) in zip(axes.flat, runs.items(), strict=False):
            matrix = run.accuracy
            axis.imshow(matrix, cmap="YlGn", vmin=0, vmax=1)
            for (stage, task), value in np.ndenumerate(matrix):
                if not np.isnan(value):
                    colour = "white" if value > 0.7 else INK
                    axis.text(task, stage, f"{100 * value:.0f}", ha="center", va="center", fontsize=8, color=colour)
            axis.set_title(name, fontsize=9, loc="left")
            names = [stage_title(name).removeprefix("task ") for name in run.eval_sets]
            axis.set_xticks(range(matrix.shape[1]), names, rotation=60 if run.domains else 0)
            axis.set_yticks(range(matrix.shape[0]), [stage_title(s["stage"]).removeprefix("task ") for s in run.stages])
            axis.set_xlabel("accuracy in domain, %" if run.domains else "accuracy on task, %")
            remove_frame(axis)
        for axis in axes[:, 0]:
            axis.set_ylabel("after task")

    return render_svg(2.6 * columns, 2.9 * lines, draw)


def accuracy_curves(rows: Mapping[str, Sequence[Run]]) -> str:
    """Mean accuracy on the tasks learned so far, after every stage; the band is one standard deviation over seeds."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for colour, (name, runs) in zip(row_colours(len(rows)), rows.items(), strict=True):
            curves = _complete([[100 * np.nanmean(row) for row in run.accuracy] for run in runs])
            if curves.shape[1] == 1:
                axis.axhline(curves.mean(), color=colour, linestyle="--", linewidth=1.2, label=legend_label(name))
                continue
            _band(axis, np.arange(1, curves.shape[1] + 1), curves, colour, name)
        axis.set_xlabel("tasks learned")
        axis.set_ylabel("mean accuracy on them, %")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        _add_legend(axis)

    return render_svg(7, _height(3.4, len(rows)), draw)


def magnitudes(run: Run) -> str:
    """Magnitude of every direction after every stage since it was added; not every stage adds one."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        history = [[float(np.mean(of_one)) for of_one in stage["info"]["magnitudes"]] for stage in run.stages]
        count = max(map(len, history))
        for task, colour in zip(range(count), row_colours(count), strict=True):
            stages = np.array([stage for stage, found in enumerate(history) if len(found) > task])
            axis.plot(
                stages + 1,
                [history[s][task] for s in stages],
                "o-",
                color=colour,
                markersize=4,
                label=f"task {task + 1}",
            )
        axis.set_xlabel("tasks learned")
        axis.set_ylabel("magnitude α")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
        _add_legend(axis)

    return render_svg(7, _height(3, len(run.stages)), draw)


def warm_up_curves(rows: Mapping[str, Sequence[Run]], score: str, label: str, limit: float | None) -> str:
    """One score of the new items, phase by phase; dashed: its Bayes-optimal value, where known."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for colour, (name, runs) in zip(row_colours(len(rows)), rows.items(), strict=True):
            curves = _complete([[s["values"][score] for s in run.phases] for run in runs])
            phases = [s["stage"] for s in max((run.phases for run in runs), key=len)]
            if phases:
                _band(axis, np.arange(len(phases)), curves, colour, name)
                axis.set_xticks(range(len(phases)), phases)
        if limit is not None:
            axis.axhline(limit, color=INK, linestyle="--", linewidth=1, label="Bayes limit")
        axis.set_ylabel(label)
        _add_legend(axis)

    return render_svg(7, _height(3.4, len(rows)), draw)


def event_curves(rows: Mapping[str, Sequence[Run]], score: str, label: str) -> str:
    """One score against the number of events per new item; `sufficient`, where measured, is a square at the right."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        numbers = sorted({number for runs in rows.values() for run in runs for number in run.curve(score)})
        x_sufficient = np.log1p(numbers[-1]) * 1.12 + 0.3
        ticks = dict(zip(np.log1p(numbers), map(str, numbers), strict=True))
        for colour, (name, runs) in zip(row_colours(len(rows)), rows.items(), strict=True):
            curves = [curve for run in runs if (curve := run.curve(score))]
            longest = max(curves, key=len, default={})
            if longest:
                _band(axis, np.log1p(list(longest)), _complete([[*c.values()] for c in curves]), colour, name)
            ends = [f[f"sufficient {score}"] for run in runs if f"sufficient {score}" in (f := run.metrics())]
            if ends:
                std = np.std(ends, ddof=1) if len(ends) > 1 else 0.0
                axis.errorbar(
                    x_sufficient, np.mean(ends), std, fmt="s", color=colour, markersize=5, markerfacecolor="white"
                )
                ticks[x_sufficient] = "sufficient"
        axis.set_xticks(list(ticks), list(ticks.values()))
        axis.set_xlabel("events of each item so far")
        axis.set_ylabel(label)
        _add_legend(axis)

    return render_svg(7, _height(3.4, len(rows)), draw)


def search_curves(rows: Mapping[str, Sequence[float | None]], label: str) -> str:
    """Each row's scores in the order of its trials; the line is the best so far. A failed trial is a gap."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for colour, (name, scores) in zip(row_colours(len(rows)), rows.items(), strict=True):
            values = np.array([np.nan if score is None else score for score in scores], dtype=np.float64)
            numbers = np.arange(1, len(values) + 1)
            axis.plot(numbers, np.fmax.accumulate(values), color=colour, linewidth=1.6, label=legend_label(name))
            axis.plot(numbers, values, "o", color=colour, markersize=4)
        axis.set_xlabel("trials")
        axis.set_ylabel(label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        _add_legend(axis)

    return render_svg(7, _height(3.2, len(rows)), draw)


def graphs(items: Sequence[Mapping[str, Any]]) -> str:
    """Item graphs as heat maps: the edge weight from each field (column) to each other field (row)."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(items), squeeze=False)[0]
        for number, (axis, item) in enumerate(zip(axes, items, strict=True)):
            weights = np.array(item["graph"])
            image = axis.imshow(weights, cmap="BuGn", vmin=0, vmax=max(1e-9, weights.max()))
            axis.set_xticks(range(len(item["fields"])), item["fields"], rotation=60, ha="right")
            axis.set_yticks(range(len(item["fields"])), item["fields"] if number == 0 else [])
            axis.set_title(item["title"], fontsize=9, loc="left")
            remove_frame(axis)
            for row, column in item.get("planted", ()):
                axis.add_patch(highlight_cell(row, column))
            figure.colorbar(image, ax=axis, shrink=0.7).outline.set_visible(False)

    return render_svg(3.4 * len(items), 3.6, draw)


def _complete(curves: Sequence[Sequence[float]]) -> np.ndarray:
    """The curves of full length: unfinished runs are left out."""
    longest = max(map(len, curves))
    return np.array([curve for curve in curves if len(curve) == longest])


def _band(axis: Axes, x: np.ndarray, curves: np.ndarray, colour: str, name: str) -> None:
    mean = curves.mean(axis=0)
    zorder = 3 - len(axis.lines) / 100  # the first row is on top: the others are compared with it
    axis.plot(x, mean, "o-", color=colour, markersize=4, linewidth=1.6, label=legend_label(name), zorder=zorder)
    if len(curves) > 1:
        std = curves.std(axis=0, ddof=1)
        axis.fill_between(x, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)


def _height(minimum: float, names: int) -> float:
    """Height in inches of a figure with a legend of `names` entries."""
    return max(minimum, LEGEND_LINE * (names + 1))


def _add_legend(axis: Axes) -> None:
    style_axes(axis)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
