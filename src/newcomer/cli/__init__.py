"""The command line: the user's words into runs and models. Mistakes are one line on stderr and exit code 2."""

import os
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from newcomer.cli.entry import app

__all__ = ["app", "main"]

STOPPED = 130
"""Exit code of a command that Ctrl-C ended."""


def main() -> None:
    """The entry point: errors of ours become one line and exit code 2."""
    # What all commands stand on takes seconds to import; Ctrl-C meanwhile ends the program, with nothing to undo.
    ours = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if ours := ours and before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    try:
        from newcomer.cli.entry import perform
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)
    perform()


def _stop(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"newcomer: stopped before it began\n")
    os._exit(STOPPED)  # a KeyboardInterrupt in the middle of an import would end in a trace of somebody else's


def __getattr__(name: str) -> object:
    # Imported when it is asked for: so that `main` can end cleanly while that goes on.
    if name != "app":
        raise AttributeError(f"module 'newcomer.cli' has no attribute '{name}'")
    from newcomer.cli.entry import app

    return app
