"""A figure: one measured number with everything that is needed to make it again, as one line of JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    name: str
    value: float
    unit: str
    command: str
    seeds: Sequence[int]
    machine: Mapping[str, Any]
    commit: str | None
    target: float | None = None
    """What it was to reach; None where there is nothing to reach."""
    spread: float | None = None
    """Standard deviation over seeds or repeats, with n − 1."""


def emit(figures: Iterable[Figure]) -> None:
    """Print one JSON line a figure: how every benchmark ends."""
    for figure in figures:
        print(json.dumps(asdict(figure), ensure_ascii=False), flush=True)
