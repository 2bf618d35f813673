"""The command line: the user's words into runs and models. Mistakes are one line on stderr and exit code 2."""

import sys

from newcomer.cli import analysis, comparison, inspection, items, models, runs
from newcomer.cli.program import app
from newcomer.errors import NewcomerError
from newcomer.printable import printable

__all__ = ["analysis", "app", "comparison", "inspection", "items", "main", "models", "runs"]


def main() -> None:
    """The entry point: errors of ours become one line and exit code 2."""
    try:
        app()
    except NewcomerError as error:
        print(f"newcomer: {printable(error)}", file=sys.stderr)
        sys.exit(2)
