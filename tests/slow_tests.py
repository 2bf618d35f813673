"""Which tests take long: those that are listed in slow_tests.txt are `slow`, but for those that are marked `always`.

    python -m pytest --numprocesses 2 -m 'not slow' --list-slow     # writes the list anew: adds those that took longer

A listed name is a function, of which every case is meant, or a single case.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

LIST = Path(__file__).with_suffix(".txt")
SECONDS = 0.5
"""A test that takes longer is slow."""


def mark_slow(items: Sequence[pytest.Item]) -> None:
    """Mark the listed tests."""
    listed = set(LIST.read_text(encoding="utf-8").splitlines())
    for item in items:
        is_listed = item.nodeid in listed or item.nodeid.split("[")[0] in listed
        if is_listed and not item.get_closest_marker("always"):
            item.add_marker(pytest.mark.slow)


class Durations:
    """Writes the list from the times of a run."""

    def __init__(self) -> None:
        self.seconds = defaultdict[str, float](float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        found = {name for name, seconds in self.seconds.items() if seconds > SECONDS}
        listed = set(LIST.read_text(encoding="utf-8").splitlines()) if LIST.exists() else set()
        LIST.write_text("\n".join(sorted(found | listed)) + "\n", encoding="utf-8")
