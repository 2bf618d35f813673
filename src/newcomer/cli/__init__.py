"""Command-line interface. User errors are one line on stderr and exit code 2."""

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from newcomer.errors import MissingExtraError
from newcomer.extras import optional_imports

if TYPE_CHECKING:
    from newcomer.cli.entry import app

__all__ = ["app", "main"]

STOPPED = 130
"""Exit code of a command that Ctrl-C ended."""


def main() -> None:
    """Entry point of the `newcomer` program."""
    try:
        with importing():
            from newcomer.cli.entry import perform
    except MissingExtraError as error:
        print(f"newcomer: {error}", file=sys.stderr)
        sys.exit(2)
    perform()


@contextmanager
def importing() -> Iterator[None]:
    """Within, Ctrl-C ends the program at once with one line, and a missing optional dependency raises MissingExtraError.

    For slow imports. Imported objects live as long as the process, so garbage collection is off meanwhile and they are frozen
    afterwards, which saves a fifth of the time of a short command.
    """
    collects, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    before = signal.getsignal(signal.SIGINT)
    handled = threading.current_thread() is threading.main_thread() and before is signal.default_int_handler
    if handled:
        signal.signal(signal.SIGINT, _stop)
    try:
        with optional_imports():
            yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
        if collects:
            gc.enable()
        if handled:
            signal.signal(signal.SIGINT, before)


def _stop(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"newcomer: stopped before it began\n")
    os._exit(STOPPED)  # a KeyboardInterrupt in the middle of an import would end in a trace of somebody else's


def __getattr__(name: str) -> object:
    # Imported when it is asked for: so that `main` can end cleanly while that goes on.
    if name != "app":
        raise AttributeError(f"module 'newcomer.cli' has no attribute '{name}'")
    from newcomer.cli.entry import app

    return app
