"""The command line: the user's words into runs and models. Mistakes are one line on stderr and exit code 2."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from newcomer.cli import analysis, comparison, inspection, items, models, runs
from newcomer.cli.program import app
from newcomer.errors import DataWarning, NewcomerError
from newcomer.printable import printable

__all__ = ["analysis", "app", "comparison", "inspection", "items", "main", "models", "runs"]


def main() -> None:
    """The entry point: errors of ours become one line and exit code 2, warnings about data one line."""
    try:
        with _said():
            app()
    except NewcomerError as error:
        print(f"newcomer: {printable(error)}", file=sys.stderr)
        sys.exit(2)


@contextmanager
def _said() -> Iterator[None]:
    """Within, a warning about data is one line on stderr, whatever else is done with warnings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=DataWarning)
        show = warnings.showwarning

        def say(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, DataWarning):
                print(f"newcomer: {printable(message)}", file=sys.stderr)
            else:
                show(message, category, *place, **more)

        warnings.showwarning = say
        yield
