"""Shared style of all plots: SVG rendering, colours, heat maps, axes and legends."""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

COLOURS = ("#0b6e4f", "#c8553d", "#2e4057", "#e0a030", "#7a5195", "#6b8f9c", "#a23b72", "#8a8a4a")
TINTS = (("white", 1.0), ("white", 0.5), ("black", 0.6))
"""The colour mixed in at each repetition of `COLOURS`, and the share of the original colour."""
INK, FAINT = "#22313a", "#d5dde0"
MAX_LABELLED = 12
"""The most rows of a heat map that shows numbers, and of a legend column."""
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
    "text.parse_math": False,  # a dollar in a name is a dollar
}
MISSING_GLYPH = r"Glyph .* missing from font"
"""Matplotlib's warning for a character that the font lacks."""


def render_svg(width: float, height: float, draw: Callable[[Figure], None]) -> str:
    """The SVG of a figure of this size in inches; the same figure gives the same bytes."""
    try:
        svg = _svg(width, height, draw, STYLE)
    except UserWarning:  # the font lacks a script: write text as text, for the browser's fonts
        svg = _svg(width, height, draw, STYLE | {"svg.fonttype": "none"})
    return re.sub(r' (width|height)="[\d.]+pt"', "", svg[svg.index("<svg") :])  # the page sets the size


def _svg(width: float, height: float, draw: Callable[[Figure], None], style: dict[Any, Any]) -> str:
    """Raises UserWarning for a missing glyph, which would be drawn as a box."""
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("error" if style["svg.fonttype"] == "path" else "ignore", MISSING_GLYPH)
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return out.getvalue()


def legend_label(name: str) -> str:
    """The name with a space before a leading underscore: Matplotlib hides legend labels that begin with one."""
    return f" {name}" if name.startswith("_") else name


def heat_map(
    figure: Figure,
    axis: Axes,
    matrix: np.ndarray,
    names: Sequence[str],
    colours: str,
    limits: tuple[float, float],
    numbers: bool = True,
) -> None:
    """A heat map with a colour bar; `numbers` are written into small ones. NaN cells stay empty."""
    image = axis.imshow(matrix, cmap=colours, vmin=limits[0], vmax=limits[1])
    ticks = range(0, len(names), 1 + len(names) // 25)
    axis.set_xticks(ticks, [names[n] for n in ticks])
    axis.set_yticks(ticks, [names[n] for n in ticks])
    axis.tick_params(length=0, labelsize=8)
    if len(names) > MAX_LABELLED + 1:
        axis.tick_params(axis="x", rotation=90)
    axis.spines[:].set_visible(False)
    if numbers and len(names) <= MAX_LABELLED + 1:
        for (row, column), value in np.ndenumerate(matrix):
            if not np.isnan(value):
                red, green, blue, _ = image.cmap(image.norm(value))
                dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
                text = f"{round(value, 2) + 0.0:.2f}" if limits[1] < 10 else f"{value:.1f}"  # + 0.0: not −0.00
                axis.text(column, row, text, ha="center", va="center", fontsize=7.5, color="white" if dark else INK)
    figure.colorbar(image, ax=axis, shrink=0.75).outline.set_visible(False)


def style_axes(axis: Axes) -> None:
    """Horizontal grid lines; no top and right spines."""
    axis.grid(axis="y", color=FAINT, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def highlight_cell(row: int, column: int) -> Rectangle:
    """A frame around one cell of a heat map."""
    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=COLOURS[1], linewidth=1.8, zorder=3)


def remove_frame(axis: Axes) -> None:
    """Hide spines and tick marks; tick labels stay."""
    axis.tick_params(length=0, labelsize=8)
    axis.spines[:].set_visible(False)


def sequential_colours(count: int) -> list[tuple[float, ...]]:
    """Colours of increasing lightness, in order also in greyscale; none too light on white."""
    return [tuple(colour) for colour in mpl.colormaps["viridis"](np.linspace(0, 0.85, count))]


def heat_map_inches(count: int) -> float:
    """Side of a heat map of `count` rows, in inches."""
    return float(np.clip(1.6 + 0.36 * count, 3.2, 6.4))


def row_colours(count: int) -> list[str]:
    """`count` colours: the palette, then lighter, then darker, then the palette again."""
    return [_mix(COLOURS[n % len(COLOURS)], *TINTS[n // len(COLOURS) % len(TINTS)]) for n in range(count)]


def _mix(colour: str, other: str, share: float) -> str:
    """`share` of `colour`, the rest `other`."""
    red, green, blue = (share * a + (1 - share) * b for a, b in zip(to_rgb(colour), to_rgb(other), strict=True))
    return to_hex((red, green, blue))
