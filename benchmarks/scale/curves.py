"""Curves of what grows: the benchmarks of scale at several sizes, and a plot of them.

    python benchmarks/scale/curves.py [--only classes users]

Measurements go to runs/scale/curves.jsonl; sizes that are there are not run again. The plot has a panel for each figure: its values
over the size, and the line that is to be reached.
"""

import argparse
import json
import math
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

HERE = Path(__file__).parent
RESULTS, PLOT = Path("runs/scale/curves.jsonl"), Path("docs/scale.svg")
COLUMNS = 3
NOT_OF_SIZE = ("scores, two threads / one, ratio",)
"""Figures that depend on idle cores, not on the size."""


@dataclass(frozen=True)
class Curve:
    """A benchmark whose option gives a size."""

    script: str
    option: str
    sizes: Sequence[int]

    def run(self, size: int) -> list[dict[str, Any]]:
        """Its measurements at this size."""
        command = [sys.executable, str(HERE.parent / self.script), self.option, str(size)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]


CURVES: Mapping[str, Curve] = {
    "classes": Curve("scale/classes.py", "--classes", (200, 500, 1000)),
    "users": Curve("scale/users.py", "--users", (10_000, 100_000, 1_000_000)),
    "users of two processes": Curve("scale/shards.py", "--users", (100_000, 300_000, 1_000_000)),
    "items": Curve("serving/one_request.py", "--items", (1000, 10_000, 100_000, 1_000_000)),
}


def figure_name(measurement: Mapping[str, Any], size: int) -> str:
    """The measurement's name without the size: the same for all points of a curve."""
    return re.sub(
        r"\s+", " ", re.sub(rf"(?<![\d,]){size:,}(?![\d,])|(?<!\d){size}(?!\d)", "n", measurement["name"])
    ).strip()


def draw(lines: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel for each figure with at least two sizes."""
    panels: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        panels.setdefault(f"{line['figure']}, {line['unit']}", []).append(line)
    shown = {
        name: sorted(points, key=lambda p: p["size"])
        for name, points in panels.items()
        if len(points) > 1 and name not in NOT_OF_SIZE
    }
    figure = Figure(figsize=(4 * COLUMNS, 2.6 * math.ceil(len(shown) / COLUMNS)), layout="constrained")
    for number, (name, points) in enumerate(shown.items(), 1):
        axes = figure.add_subplot(math.ceil(len(shown) / COLUMNS), COLUMNS, number)
        axes.plot([p["size"] for p in points], [p["value"] for p in points], "o-")
        if (target := points[-1]["target"]) is not None:
            axes.axhline(target, linestyle="--", color="gray")
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_title(textwrap.fill(name, 44), fontsize=8)
        axes.set_xlabel(points[0]["curve"])
    return figure


def main(only: Sequence[str]) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.touch()
    lines = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    for name, curve in CURVES.items():
        for size in curve.sizes if name in only else ():
            if any((line["curve"], line["size"]) == (name, size) for line in lines):
                continue
            print(f"── {name}: {size:,}", flush=True)
            found = [{**one, "curve": name, "size": size, "figure": figure_name(one, size)} for one in curve.run(size)]
            lines += found
            with RESULTS.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in found)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "newcomer"}):
        draw(lines).savefig(PLOT, metadata={"Date": None})
    print(f"plot: {PLOT}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(CURVES), default=list(CURVES))
    main(parser.parse_args().only)
