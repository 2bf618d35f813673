"""What was found inside a model of SD-LoRA (`classes.analysis`), as pictures and one page beside the numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from newcomer.experiments.report.drawing import COLOURS, FAINT, NUMBERED, drawn, framed, heat_map, shades, side_inches
from newcomer.experiments.report.html import printed, rendered, write_folder
from newcomer.settings import Json
from newcomer.store.writing import to_json

POINT = 0.01
"""What of accuracy may be lost on the way and still count as nothing."""


@dataclass(frozen=True)
class Finding:
    """What the paper says, what this model shows, and the picture of it."""

    name: str
    title: str
    claim: str
    shown: str
    picture: str
    caption: str


def write_findings(found: Mapping[str, Json], out: Path) -> None:
    """Write `findings.json`, one SVG a picture and `index.html` with all of them into this folder.

    Raises StoreError when the disk refuses.
    """
    findings = list(_findings(printed(found)))
    files = {f"{finding.name}.svg": finding.picture for finding in findings}
    files["findings.json"] = to_json(found, indent=1)
    files["index.html"] = rendered("findings.html.jinja", findings=findings, tasks=len(found["tasks"]))
    write_folder(files, out)


def _findings(found: Mapping[str, Json]) -> Iterator[Finding]:
    yield Finding(
        "distances",
        "Finding 1: where the weights lie",
        "Fine-tuned weights of different tasks lie closer to each other than to the frozen weights.",
        nearness(found),
        distances(found),
        "Frobenius distance between the adapted weights after every task, all projections together, in percent of the norm of the "
        "frozen ones, W₀.",
    )
    if any(part["step"] for part in found["training"]):
        yield Finding(
            "training",
            "Finding 2: what training makes of directions",
            "What a new direction has beside the older ones starts small and grows while it is trained; early magnitudes rise, "
            "later ones fall.",
            growth(found),
            training(found),
            "Above: the share of the new direction's squared norm that no combination of the older directions gives. Below: the "
            "magnitudes, each from the end of its own task on. Vertical lines: one task ends, the next begins.",
        )
    if found["line"]:
        yield Finding(
            "line",
            "Finding 3: between the weights of two tasks",
            "Along the straight line from the weights after one task to those after the next the old task's accuracy does "
            "not fall: both lie in one region of low loss.",
            keeping(found),
            line(found),
            "Accuracy on the examples of the old and of the new task with the weights W + λ (W' − W), among all classes known "
            "after the new task: 0 after the old task, 1 after the new one. Solid: the head rows trained with the new task; "
            "dashed: the head of the model as it is at the end.",
        )
    if len(found["directions"]) > 1:
        yield Finding(
            "cosines",
            "How directions point",
            "Every task adds a direction of its own; where an older one points the same way, a task could have done without.",
            alignment(found),
            cosines(found),
            "Left: the cosine between the directions of every two tasks, over all projections together. Right: its mean "
            "absolute value in each projection, over all pairs, from the input of the model to its output.",
        )


def nearness(found: Mapping[str, Json]) -> str:
    """Finding 1 in words: a pair counts where its two are nearer to each other than either is to the frozen weights."""
    apart = np.array(found["distances"])
    tasks = len(apart) - 1
    if tasks < 2:
        share = 100 * apart[0, 1] / found["norm"]
        return f"The one task moved the weights by {share:.2g} % of their norm; pairs need a second task."
    nearer = [apart[s, t] < min(apart[0, s], apart[0, t]) for s in range(1, tasks + 1) for t in range(s + 1, tasks + 1)]
    between = apart[1:, 1:][np.triu_indices(tasks, 1)].mean()
    return (
        f"Nearer to each other than either is to the frozen weights: {_of(nearer, 'pair')}. The mean distance between two tasks' "
        f"weights is {between:.3g}, from the frozen ones {apart[0, 1:].mean():.3g}, where those have norm {found['norm']:.3g}."
    )


def growth(found: Mapping[str, Json]) -> str:
    """Finding 2 in words: from the first watched moment at which the direction was not zero to the last."""
    ends = [moved[[0, -1]] for part in found["training"][1:] if len(moved := _moved(part))]
    if not ends:
        return "There is one direction only, and nothing older to explain it; a second task will tell."
    first, last = np.mean(ends, axis=0)
    closed = {
        task: part["after"][-1]
        for task, part in enumerate(found["training"])
        if task == 0 or len(part["after"]) > len(found["training"][task - 1]["after"])
    }
    now = found["training"][-1]["after"]
    rose = [now[place] > value for place, value in enumerate(closed.values()) if place < len(now)][:-1]
    return (
        f"The residual grew while training in {_of([b > a for a, b in ends], 'task')}, on average from {first:.4f} to {last:.4f} "
        f"(1: at right angles to all older ones). Since their own task ended {_of(rose, 'older magnitude')} rose; at the end "
        f"the first is {now[0]:.3g}, the last {now[-1]:.3g}."
    )


def keeping(found: Mapping[str, Json]) -> str:
    """Finding 3 in words, between λ = 0 and 1: the most that the old task's accuracy is ever below its start, in each pair."""
    parts = []
    for head, name in (
        ("trained rows", "By the rows trained with the new task"),
        ("end head", "By the head at the end"),
    ):
        lost = [old[0] - old.min() for old in (_between(pair, pair[head]["old"]) for pair in found["line"])]
        ends = np.array([_between(pair, pair[head]["new"])[[0, -1]] for pair in found["line"]])
        before, after = 100 * ends.mean(axis=0)
        parts.append(
            f"{name} the old task loses at most one point in {_of([x <= POINT for x in lost], 'pair')}, {100 * max(lost):.1f} "
            f"points at worst, while the new one goes from {before:.1f} to {after:.1f} % on average."
        )
    return " ".join(parts)


def alignment(found: Mapping[str, Json]) -> str:
    """The cosines in words."""
    matrix = np.abs(np.array(found["cosines"]))
    pairs = matrix[np.triu_indices(len(matrix), 1)]
    older, newer = sorted(divmod(int(np.argmax(matrix - 2 * np.eye(len(matrix)))), len(matrix)))
    return (
        f"The mean absolute cosine of two directions is {pairs.mean():.3f}; nearest to one line are those of "
        f"{found['directions'][older]} and {found['directions'][newer]}, with {found['cosines'][older][newer]:.3f}."
    )


def distances(found: Mapping[str, Json]) -> str:
    """A heat map of the distances in percent of the frozen weights' norm."""

    def draw(figure: Figure) -> None:
        percent = 100 * np.array(found["distances"]) / found["norm"]
        axis = figure.subplots()
        axis.set_title("distance, % of ‖W₀‖", fontsize=9, loc="left")
        heat_map(figure, axis, percent, ["W₀", *_short(found["tasks"])], "BuGn", (0, percent.max() or 1))
        axis.set_xlabel("weights after task")
        axis.set_ylabel("weights after task")

    side = side_inches(len(found["tasks"]) + 1)
    return drawn(side + 0.8, side, draw)


def cosines(found: Mapping[str, Json]) -> str:
    """A heat map of the directions' cosines, and their mean absolute value through the depth of the model."""

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.25, 1]})
        matrix = np.array(found["cosines"])
        np.fill_diagonal(matrix, np.nan)
        limit = max(0.1, np.nanmax(np.abs(matrix)))  # what is next to nothing shall look so
        heat_map(figure, left, matrix, _short(found["directions"]), "cividis", (-limit, limit))
        left.set_xlabel("direction of task")
        left.set_ylabel("direction of task")
        left.set_title("cosine", fontsize=9, loc="left")
        kinds: dict[str, list[float]] = {}
        for name, mean in zip(found["projections"], found["depths"], strict=True):
            kinds.setdefault(name.rpartition(".")[2], []).append(mean)
        for n, (kind, means) in enumerate(kinds.items()):
            right.plot(
                range(len(means)), means, "os^D"[n % 4] + "-", color=COLOURS[n % len(COLOURS)], markersize=4, label=kind
            )
        right.set_ylim(0, 1.15 * max(found["depths"]) or 1)
        right.set_xlabel("layer, counted from the input")
        right.set_title("mean |cosine|", fontsize=9, loc="left")
        right.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
        framed(right)

    side = side_inches(len(found["directions"]))
    return drawn(side + 4.2, side, draw)


def training(found: Mapping[str, Json]) -> str:
    """Residual and magnitudes over the gradient steps of all tasks."""

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [1, 1.3]})
        parts = found["training"]
        starts = np.cumsum([0, *(max(part["step"], default=0) for part in parts)])
        colours = shades(len(found["directions"]))
        curves: list[tuple[list[float], list[float]]] = [([], []) for _ in found["directions"]]
        for number, (part, start, end) in enumerate(zip(parts, starts, starts[1:], strict=False)):
            if number and len(moved := _moved(part)):
                steps = start + np.array(part["step"][-len(moved) :])
                above.plot(steps, moved, ".-", color=COLOURS[0], markersize=3, linewidth=1.2)
            for step, row in zip(
                [*(start + np.array(part["step"])), end], [*part["magnitudes"], part["after"]], strict=True
            ):
                for (x, y), value in zip(curves, row, strict=False):
                    x.append(step)
                    y.append(value)
        for n, ((x, y), colour) in enumerate(zip(curves, colours, strict=True)):
            below.plot(x, y, color=colour, linewidth=1.3)
            below.plot(
                x[-1:], y[-1:], "osD^vP*X"[n % 8], color=colour, markersize=5, label=_short(found["directions"])[n]
            )
            below.plot(x[:1], y[:1], "osD^vP*X"[n % 8], color=colour, markersize=5, markerfacecolor="white")
        for axis in (above, below):
            for start in starts[1:-1]:
                axis.axvline(start, color=FAINT, linewidth=0.9, zorder=0)
            framed(axis)
        above.set_ylabel("residual of the\nnew direction")
        above.yaxis.get_major_formatter().set_useOffset(False)
        below.set_ylabel("magnitude α")
        below.set_xlabel("gradient steps, all tasks one after the other")
        below.set_xlim(left=0)
        columns, title = 1 + (len(curves) - 1) // NUMBERED, "direction\nof task"
        figure.legend(
            title=title, title_fontsize=8, frameon=False, fontsize=8, ncols=columns, loc="outside right center"
        )

    return drawn(8, 4.8, draw)


def line(found: Mapping[str, Json]) -> str:
    """One panel for each pair of consecutive tasks: both tasks' accuracy on the way from one to the other."""
    pairs = found["line"]
    columns = min(5, len(pairs))
    rows = -(-len(pairs) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        marks = (
            ("old", COLOURS[0], {"marker": "o", "markersize": 3}),
            ("new", COLOURS[1], {"marker": "s", "markersize": 3, "markerfacecolor": "white"}),
        )
        for axis, pair in zip(grid.flat, pairs, strict=False):
            for head, dashes in (("trained rows", "-"), ("end head", "--")):
                for side, colour, mark in marks:
                    share = 100 * np.array(pair[head][side])
                    label = f"{side} task, {head}"
                    axis.plot(pair["fraction"], share, dashes, color=colour, linewidth=1.2, label=label, **mark)
            for end in (0, 1):
                axis.axvline(end, color=FAINT, linewidth=0.9, zorder=0)
            axis.set_ylim(-4, 104)
            axis.set_xticks([0, 1])
            axis.set_title(" → ".join(_short([pair["from"], pair["to"]])), fontsize=9, loc="left")
            framed(axis)
        for axis in list(grid.flat)[len(pairs) :]:
            axis.set_visible(False)
        for axis in list(grid.flat)[max(0, len(pairs) - columns) : len(pairs)]:
            axis.tick_params(labelbottom=True)
        figure.supxlabel("λ: 0 after the old task, 1 after the new one", fontsize=9)
        figure.supylabel("accuracy, %", fontsize=9)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper left", ncols=2 if columns < 4 else 4, frameon=False, fontsize=8
        )

    return drawn(max(4.6, 1.1 + 1.75 * columns), 1.2 + 1.7 * rows + (0.3 if columns < 4 else 0), draw)


def _short(names: Sequence[str]) -> list[str]:
    return [name.removeprefix("task ") for name in names]


def _moved(part: Mapping[str, Json]) -> np.ndarray:
    """The residual from where the direction is no longer zero."""
    residual = np.array(part["residual"])
    return residual[np.argmax(residual > 0) :] if (residual > 0).any() else residual[:0]


def _between(pair: Mapping[str, Json], share: Sequence[float]) -> np.ndarray:
    fraction = np.array(pair["fraction"])
    return np.array(share)[(fraction >= 0) & (fraction <= 1)]


def _of(right: Sequence[bool], noun: str) -> str:
    """
    >>> _of([True, False], "pair")
    '1 of 2 pairs'
    """
    return f"{sum(map(bool, right))} of {len(right)} {noun}{'s' * (len(right) != 1)}"
