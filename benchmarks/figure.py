"""A figure: one measured number with everything that is needed to make it again, as one line of JSON."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from newcomer.errors import DataError, NewcomerError

DATA_MISSING = 2
"""How a benchmark exits whose data are not here; with 1 where anything else is wrong."""


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


@contextmanager
def one_line() -> Iterator[None]:
    """Within, an error of this library's own ends the benchmark by one line and an exit code."""
    try:
        yield
    except NewcomerError as error:
        print(error, file=sys.stderr)
        sys.exit(DATA_MISSING if isinstance(error, DataError) else 1)
