"""How pictures look: one style, colours, heat maps and frames; each an SVG that stands by itself."""

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
MIXTURES = (("white", 1.0), ("white", 0.5), ("black", 0.6))
"""What colours are mixed with when they come again, and how much of them stays."""
INK, FAINT = "#22313a", "#d5dde0"
NUMBERED = 12
"""Rows up to which a heat map has numbers in it, and a curve a name of its own."""
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
NO_GLYPH = r"Glyph .* missing from font"
"""The warning of a font that cannot draw a name."""


def drawn(width: float, height: float, draw: Callable[[Figure], None]) -> str:
    """The SVG of a figure of this size in inches, the same bytes for the same picture."""
    try:
        svg = _svg(width, height, draw, STYLE)
    except UserWarning:  # the font lacks a script: the reader's fonts draw its names
        svg = _svg(width, height, draw, STYLE | {"svg.fonttype": "none"})
    return re.sub(r' (width|height)="[\d.]+pt"', "", svg[svg.index("<svg") :])  # the page sets the size


def _svg(width: float, height: float, draw: Callable[[Figure], None], style: dict[Any, Any]) -> str:
    """Raises UserWarning where letters would be drawn as boxes."""
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("error" if style["svg.fonttype"] == "path" else "ignore", NO_GLYPH)
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return out.getvalue()


def entry(name: str) -> str:
    """A name for a legend, which leaves out those that begin with an underscore."""
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
    """Squares with a colour bar, with `numbers` where there is room; NaN stays empty."""
    image = axis.imshow(matrix, cmap=colours, vmin=limits[0], vmax=limits[1])
    every = range(0, len(names), 1 + len(names) // 25)
    axis.set_xticks(every, [names[n] for n in every])
    axis.set_yticks(every, [names[n] for n in every])
    axis.tick_params(length=0, labelsize=8)
    if len(names) > NUMBERED + 1:
        axis.tick_params(axis="x", rotation=90)
    axis.spines[:].set_visible(False)
    if numbers and len(names) <= NUMBERED + 1:
        for (row, column), value in np.ndenumerate(matrix):
            if not np.isnan(value):
                red, green, blue, _ = image.cmap(image.norm(value))
                dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
                text = f"{round(value, 2) + 0.0:.2f}" if limits[1] < 10 else f"{value:.1f}"  # no −0.00
                axis.text(column, row, text, ha="center", va="center", fontsize=7.5, color="white" if dark else INK)
    figure.colorbar(image, ax=axis, shrink=0.75).outline.set_visible(False)


def framed(axis: Axes) -> None:
    """Lines across, and no box."""
    axis.grid(axis="y", color=FAINT, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def framed_square(row: int, column: int) -> Rectangle:
    """A frame around one square of a heat map."""
    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=COLOURS[1], linewidth=1.8, zorder=3)


def bare(axis: Axes) -> None:
    """No box and no ticks, only their names."""
    axis.tick_params(length=0, labelsize=8)
    axis.spines[:].set_visible(False)


def shades(count: int) -> list[tuple[float, ...]]:
    """From dark to light, so that they stay in order without colour; none too light for white paper."""
    return [tuple(colour) for colour in mpl.colormaps["viridis"](np.linspace(0, 0.85, count))]


def side_inches(count: int) -> float:
    """Inches of a heat map's side."""
    return float(np.clip(1.6 + 0.36 * count, 3.2, 6.4))


def cycle(count: int) -> list[str]:
    """So many colours; after the eighth they come again lighter, then darker, then as they were."""
    return [_mixed(COLOURS[n % len(COLOURS)], *MIXTURES[n // len(COLOURS) % len(MIXTURES)]) for n in range(count)]


def _mixed(colour: str, other: str, share: float) -> str:
    """This share of the one, the rest of the other."""
    red, green, blue = (
        share * mine + (1 - share) * its for mine, its in zip(to_rgb(colour), to_rgb(other), strict=True)
    )
    return to_hex((red, green, blue))
