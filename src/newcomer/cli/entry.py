"""Run one command: every error is one line on stderr and an exit code, never a traceback."""

import codecs
import os
import sys
from typing import Any, TextIO, cast

import typer

from newcomer.cli import STOPPED
from newcomer.cli.program import CLOSED, app
from newcomer.errors import NewcomerError, data_warnings_to
from newcomer.printable import printable

__all__ = ["app", "perform"]

ESCAPED = "newcomer-escape"
MISTAKE = 2
USAGE_ERROR = cast(type[Exception], typer.BadParameter.__mro__[2])
"""Base class of the command-line library's usage errors; it has no public name in all versions."""


def perform() -> None:
    """Run the command of this process's arguments, and exit."""
    for stream in (sys.stdout, sys.stderr):
        escape_unencodable(stream)
    code = _run()
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _stdout_failed(error)
    if code:
        sys.exit(code)


def _run() -> int:
    """Run the command; report its error, if any, in one line; return the exit code."""
    try:
        with data_warnings_to(_report):
            code = app(standalone_mode=False)
    except NewcomerError as error:
        return _report(str(error))
    except typer.Abort:
        return _report("the standard input ended")
    except (KeyboardInterrupt, typer.Exit):  # the second only while words are being read
        return STOPPED
    except BrokenPipeError as error:
        return _stdout_failed(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _report(f"{where}{error.strerror or error}")
    except MemoryError:
        return _report("there is too little memory for this; give it less at a time, or a smaller batch_size")
    except USAGE_ERROR as error:
        return _usage_error(error)
    return code if isinstance(code, int) else 0


def _report(text: str) -> int:
    print(f"newcomer: {printable(text)}", file=sys.stderr)
    return MISTAKE


def _usage_error(error: Any) -> int:
    """Report a usage error of the command-line library in one line; print the help if there are no arguments."""
    message = str(error.format_message())
    if "\n" in message:
        error.show()
        return int(error.exit_code)
    path = error.ctx.command_path if getattr(error, "ctx", None) else "newcomer"
    return _report(f"{message.rstrip('.')}; see `{path} --help`")


def _stdout_failed(error: OSError) -> int:
    """Standard output is closed or its disk is full: redirect it to null, so that Python's exit does not fail either."""
    code = CLOSED if isinstance(error, BrokenPipeError) else _report(f"standard output: {error.strerror or error}")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return code


def escape_unencodable(stream: TextIO) -> None:
    """Print characters that the terminal's encoding lacks as JSON escapes, which are valid in text and in JSON."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors=ESCAPED)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    units = (int.from_bytes(text[n : n + 2], "big") for n in range(0, len(text), 2))
    return "".join(f"\\u{unit:04x}" for unit in units), error.end


codecs.register_error(ESCAPED, _escape)
