"""A measurement: one number with its command, seeds, machine and commit, as one line of JSON."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

from newcomer.errors import DataError, NewcomerError

DATA_MISSING = 2
"""Exit code of a benchmark without its data; 1 for any other error."""


Better = Literal["lower", "higher"]
"""Which values of a measurement are better."""


@dataclass(frozen=True)
class Measurement:
    name: str
    value: float
    unit: str
    command: str
    seeds: Sequence[int]
    machine: Mapping[str, Any]
    commit: str | None
    target: float | None = None
    """The value to reach, if any."""
    std: float | None = None
    """Standard deviation over seeds or repeats, with n − 1."""
    better: Better = "lower"


def emit(measurements: Iterable[Measurement]) -> None:
    """Print one JSON line per measurement; every benchmark ends with this."""
    for measurement in measurements:
        print(json.dumps(asdict(measurement), ensure_ascii=False), flush=True)


@contextmanager
def one_line() -> Iterator[None]:
    """Turns a NewcomerError into one line on stderr and an exit code."""
    try:
        yield
    except NewcomerError as error:
        print(error, file=sys.stderr)
        sys.exit(DATA_MISSING if isinstance(error, DataError) else 1)
