"""Report of the analysis of an SD-LoRA model (`classes.analysis`): the paper's findings as plots on one page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from newcomer.experiments.report.html import render_template, to_printable, write_folder
from newcomer.experiments.report.plot_style import (
    COLOURS,
    FAINT,
    MAX_LABELLED,
    heat_map,
    heat_map_inches,
    render_svg,
    sequential_colours,
    style_axes,
)
from newcomer.printable import stage_title
from newcomer.settings import Json
from newcomer.store.writing import to_json

TOLERANCE = 0.01
"""A loss of accuracy up to this counts as no loss."""


@dataclass(frozen=True)
class Finding:
    """A finding of the paper, its counterpart in this model, and the plot."""

    name: str
    title: str
    claim: str
    result: str
    svg: str
    caption: str


def write_class_analysis(analysis: Mapping[str, Json], out: Path) -> None:
    """Write `analysis.json`, an SVG per plot, and `index.html` with all of them into a folder.

    Raises StoreError if a file cannot be written.
    """
    findings = list(_findings(to_printable(analysis)))
    files = {f"{finding.name}.svg": finding.svg for finding in findings}
    files["analysis.json"] = to_json(analysis, indent=1)
    files["index.html"] = render_template("class_analysis.html.jinja", findings=findings, tasks=len(analysis["tasks"]))
    write_folder(files, out)


def _findings(analysis: Mapping[str, Json]) -> Iterator[Finding]:
    yield Finding(
        "distances",
        "Finding 1: distances between the weights of tasks",
        "Fine-tuned weights of different tasks are closer to each other than to the frozen weights.",
        describe_distances(analysis),
        distances(analysis),
        "Frobenius distance between the adapted weights after every task, over all projections, in percent of the norm of the "
        "frozen weights W₀.",
    )
    if any(part["step"] for part in analysis["training"]):
        yield Finding(
            "training",
            "Finding 2: residuals and magnitudes during training",
            "The residual of a new direction to the span of the older ones starts small and grows in training; early magnitudes "
            "rise, later ones fall.",
            describe_training(analysis),
            training(analysis),
            "Above: residual, the share of the new direction's squared norm outside the span of the older directions. Below: the "
            "magnitudes, each from the end of its own task on. Vertical lines: task boundaries.",
        )
    if analysis["line"]:
        yield Finding(
            "line",
            "Finding 3: between the weights of two tasks",
            "On the straight line from the weights after one task to those after the next, the old task's accuracy does not "
            "fall: both are in one low-loss region.",
            describe_line(analysis),
            line(analysis),
            "Accuracy on the old and the new task with the weights W + λ (W' − W), among all classes known after the new task: "
            "λ = 0 after the old task, 1 after the new one. Solid: the head rows trained with the new task; dashed: the final "
            "head.",
        )
    if len(analysis["directions"]) > 1:
        yield Finding(
            "cosines",
            "Cosine similarity of directions",
            "Every task adds a direction; a direction parallel to an older one is redundant.",
            describe_cosines(analysis),
            cosines(analysis),
            "Left: cosine similarity of the directions of every two tasks, over all projections. Right: its mean absolute value "
            "over all pairs by projection, from the input of the model to its output.",
        )


def describe_distances(analysis: Mapping[str, Json]) -> str:
    """Finding 1 as text: the pairs of tasks whose weights are closer to each other than either to the frozen weights."""
    distance = np.array(analysis["distances"])
    tasks = len(distance) - 1
    if tasks < 2:
        share = 100 * distance[0, 1] / analysis["norm"]
        return f"The one task moved the weights by {share:.2g} % of their norm; pairs need a second task."
    closer = [
        distance[s, t] < min(distance[0, s], distance[0, t])
        for s in range(1, tasks + 1)
        for t in range(s + 1, tasks + 1)
    ]
    between = distance[1:, 1:][np.triu_indices(tasks, 1)].mean()
    return (
        f"Closer to each other than either to the frozen weights: {_count(closer, 'pair')}. The mean distance between the weights "
        f"of two tasks is {between:.3g}, to the frozen ones {distance[0, 1:].mean():.3g}; these have norm {analysis['norm']:.3g}."
    )


def describe_training(analysis: Mapping[str, Json]) -> str:
    """Finding 2 as text: the residual at the first non-zero direction against the last, and the change of magnitudes."""
    ends = [residuals[[0, -1]] for part in analysis["training"][1:] if len(residuals := _residuals(part))]
    if not ends:
        return "There is only one direction; residuals need a second task."
    first, last = np.mean(ends, axis=0)
    after_own_task = {
        task: part["after"][-1]
        for task, part in enumerate(analysis["training"])
        if task == 0 or len(part["after"]) > len(analysis["training"][task - 1]["after"])
    }
    final = analysis["training"][-1]["after"]
    rose = [final[n] > value for n, value in enumerate(after_own_task.values()) if n < len(final)][:-1]
    return (
        f"The residual grew in training in {_count([b > a for a, b in ends], 'task')}, on average from {first:.4f} to {last:.4f} "
        f"(1: orthogonal to all older directions). After the end of their own task {_count(rose, 'older magnitude')} rose; the "
        f"final value of the first is {final[0]:.3g}, of the last {final[-1]:.3g}."
    )


def describe_line(analysis: Mapping[str, Json]) -> str:
    """Finding 3 as text: the largest drop of the old task's accuracy for λ in [0, 1], per pair of tasks."""
    parts = []
    for head, name in (
        ("trained rows", "With the head rows trained with the new task"),
        ("end head", "With the final head"),
    ):
        pairs = [pair for pair in analysis["line"] if head in pair]
        if not pairs:
            continue
        lost = [old[0] - old.min() for old in (_between(pair, pair[head]["old"]) for pair in pairs)]
        ends = np.array([_between(pair, pair[head]["new"])[[0, -1]] for pair in pairs])
        before, after = 100 * ends.mean(axis=0)
        parts.append(
            f"{name} the old task loses at most one point in {_count([x <= TOLERANCE for x in lost], 'pair')}, "
            f"{100 * max(lost):.1f} points at worst, while the new one goes from {before:.1f} to {after:.1f} % on average."
        )
    return " ".join(parts)


def describe_cosines(analysis: Mapping[str, Json]) -> str:
    """The cosine similarities as text."""
    matrix = np.abs(np.array(analysis["cosines"]))
    pairs = matrix[np.triu_indices(len(matrix), 1)]
    older, newer = sorted(divmod(int(np.argmax(matrix - 2 * np.eye(len(matrix)))), len(matrix)))
    return (
        f"The mean absolute cosine similarity of two directions is {pairs.mean():.3f}; the most parallel are those of "
        f"{analysis['directions'][older]} and {analysis['directions'][newer]}, with {analysis['cosines'][older][newer]:.3f}."
    )


def distances(analysis: Mapping[str, Json]) -> str:
    """A heat map of the distances in percent of the frozen weights' norm."""

    def draw(figure: Figure) -> None:
        percent = 100 * np.array(analysis["distances"]) / analysis["norm"]
        axis = figure.subplots()
        axis.set_title("distance, % of ‖W₀‖", fontsize=9, loc="left")
        heat_map(figure, axis, percent, ["W₀", *_short(analysis["tasks"])], "BuGn", (0, percent.max() or 1))
        axis.set_xlabel("weights after task")
        axis.set_ylabel("weights after task")

    side = heat_map_inches(len(analysis["tasks"]) + 1)
    return render_svg(side + 0.8, side, draw)


def cosines(analysis: Mapping[str, Json]) -> str:
    """A heat map of the directions' cosine similarities, and their mean absolute value by layer."""

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.25, 1]})
        matrix = np.array(analysis["cosines"])
        np.fill_diagonal(matrix, np.nan)
        limit = max(0.1, np.nanmax(np.abs(matrix)))  # so that tiny cosines look tiny
        heat_map(figure, left, matrix, _short(analysis["directions"]), "cividis", (-limit, limit))
        left.set_xlabel("direction of task")
        left.set_ylabel("direction of task")
        left.set_title("cosine", fontsize=9, loc="left")
        kinds: dict[str, list[float]] = {}
        for name, mean in zip(analysis["projections"], analysis["depths"], strict=True):
            kinds.setdefault(name.rpartition(".")[2], []).append(mean)
        for n, (kind, means) in enumerate(kinds.items()):
            right.plot(
                range(len(means)), means, "os^D"[n % 4] + "-", color=COLOURS[n % len(COLOURS)], markersize=4, label=kind
            )
        right.set_ylim(0, 1.15 * max(analysis["depths"]) or 1)
        right.set_xlabel("layer, counted from the input")
        right.set_title("mean |cosine|", fontsize=9, loc="left")
        right.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
        style_axes(right)

    side = heat_map_inches(len(analysis["directions"]))
    return render_svg(side + 4.2, side, draw)


def training(analysis: Mapping[str, Json]) -> str:
    """Residual and magnitudes over the gradient steps of all tasks."""

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [1, 1.3]})
        parts = analysis["training"]
        starts = np.cumsum([0, *(max(part["step"], default=0) for part in parts)])
        colours = sequential_colours(len(analysis["directions"]))
        curves: list[tuple[list[float], list[float]]] = [([], []) for _ in analysis["directions"]]
        for number, (part, start, end) in enumerate(zip(parts, starts, starts[1:], strict=False)):
            if number and len(residuals := _residuals(part)):
                steps = start + np.array(part["step"][-len(residuals) :])
                above.plot(steps, residuals, ".-", color=COLOURS[0], markersize=3, linewidth=1.2)
            for step, row in zip(
                [*(start + np.array(part["step"])), end], [*part["magnitudes"], part["after"]], strict=True
            ):
                for (x, y), value in zip(curves, row, strict=False):
                    x.append(step)
                    y.append(value)
        for n, ((x, y), colour) in enumerate(zip(curves, colours, strict=True)):
            below.plot(x, y, color=colour, linewidth=1.3)
            below.plot(
                x[-1:], y[-1:], "osD^vP*X"[n % 8], color=colour, markersize=5, label=_short(analysis["directions"])[n]
            )
            below.plot(x[:1], y[:1], "osD^vP*X"[n % 8], color=colour, markersize=5, markerfacecolor="white")
        for axis in (above, below):
            for start in starts[1:-1]:
                axis.axvline(start, color=FAINT, linewidth=0.9, zorder=0)
            style_axes(axis)
        above.set_ylabel("residual of the\nnew direction")
        above.yaxis.get_major_formatter().set_useOffset(False)
        below.set_ylabel("magnitude α")
        below.set_xlabel("gradient steps, all tasks one after the other")
        below.set_xlim(left=0)
        columns, title = 1 + (len(curves) - 1) // MAX_LABELLED, "direction\nof task"
        figure.legend(
            title=title, title_fontsize=8, frameon=False, fontsize=8, ncols=columns, loc="outside right center"
        )

    return render_svg(8, 4.8, draw)


def line(analysis: Mapping[str, Json]) -> str:
    """One panel per pair of consecutive tasks: both tasks' accuracy with linearly interpolated weights."""
    pairs = analysis["line"]
    columns = min(5, len(pairs))
    rows = -(-len(pairs) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        curves = (
            ("old", COLOURS[0], {"marker": "o", "markersize": 3}),
            ("new", COLOURS[1], {"marker": "s", "markersize": 3, "markerfacecolor": "white"}),
        )
        for axis, pair in zip(grid.flat, pairs, strict=False):
            for head, dashes in (("trained rows", "-"), ("end head", "--")):
                for side, colour, marker in curves if head in pair else ():
                    accuracy = 100 * np.array(pair[head][side])
                    label = f"{side} task, {head}"
                    axis.plot(pair["fraction"], accuracy, dashes, color=colour, linewidth=1.2, label=label, **marker)
            for end in (0, 1):
                axis.axvline(end, color=FAINT, linewidth=0.9, zorder=0)
            axis.set_ylim(-4, 104)
            axis.set_xticks([0, 1])
            axis.set_title(" → ".join(_short([pair["from"], pair["to"]])), fontsize=9, loc="left")
            style_axes(axis)
        for axis in list(grid.flat)[len(pairs) :]:
            axis.set_visible(False)
        for axis in list(grid.flat)[max(0, len(pairs) - columns) : len(pairs)]:
            axis.tick_params(labelbottom=True)
        figure.supxlabel("λ: 0 after the old task, 1 after the new one", fontsize=9)
        figure.supylabel("accuracy, %", fontsize=9)
        handles, labels = max((axis.get_legend_handles_labels() for axis in grid.flat), key=lambda found: len(found[0]))
        figure.legend(
            handles, labels, loc="outside upper left", ncols=2 if columns < 4 else 4, frameon=False, fontsize=8
        )

    return render_svg(max(4.6, 1.1 + 1.75 * columns), 1.2 + 1.7 * rows + (0.3 if columns < 4 else 0), draw)


def _short(names: Sequence[str]) -> list[str]:
    return [stage_title(name).removeprefix("task ") for name in names]


def _residuals(part: Mapping[str, Json]) -> np.ndarray:
    """The residuals from the first non-zero direction on."""
    residual = np.array(part["residual"])
    return residual[np.argmax(residual > 0) :] if (residual > 0).any() else residual[:0]


def _between(pair: Mapping[str, Json], accuracy: Sequence[float]) -> np.ndarray:
    """The accuracies for λ in [0, 1]."""
    fraction = np.array(pair["fraction"])
    return np.array(accuracy)[(fraction >= 0) & (fraction <= 1)]


def _count(holds: Sequence[bool], noun: str) -> str:
    """
    >>> _count([True, False], "pair")
    '1 of 2 pairs'
    """
    return f"{sum(map(bool, holds))} of {len(holds)} {noun}{'s' * (len(holds) != 1)}"
