"""One command from its words to its exit code: whatever goes wrong is one line on stderr, never a trace."""

import codecs
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

import typer

from newcomer.cli import STOPPED, analysis, comparison, inspection, items, models, runs
from newcomer.cli.program import CLOSED, app
from newcomer.errors import DataWarning, NewcomerError
from newcomer.printable import printable

__all__ = ["analysis", "app", "comparison", "inspection", "items", "models", "perform", "runs"]

ESCAPED = "newcomer-escape"
MISTAKE = 2
WORDS_THAT_CANNOT_BE = cast(type[Exception], typer.BadParameter.__mro__[2])
"""Whatever the command-line library says of the words themselves; it has no public name in all its versions."""


def perform() -> None:
    """Run the command that the words of this process say, and exit."""
    for stream in (sys.stdout, sys.stderr):
        speak_all_scripts(stream)
    code = _ended()
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _cannot_speak(error)
    if code:
        sys.exit(code)


def _ended() -> int:
    """The exit code of the command, its one line said."""
    try:
        with _warnings_said():
            code = app(standalone_mode=False)
    except NewcomerError as error:
        return _say(str(error))
    except typer.Abort:
        return _say("the standard input ended")
    except (KeyboardInterrupt, typer.Exit):  # the second only while words are being read
        return STOPPED
    except BrokenPipeError as error:
        return _cannot_speak(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"{where}{error.strerror or error}")
    except MemoryError:
        return _say("there is too little memory for this; give it less at a time, or a smaller batch_size")
    except WORDS_THAT_CANNOT_BE as error:
        return _misread(error)
    return code if isinstance(code, int) else 0


@contextmanager
def _warnings_said() -> Iterator[None]:
    """Within, a warning about data is one line on stderr, whatever else is done with warnings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=DataWarning)
        show = warnings.showwarning

        def say(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, DataWarning):
                _say(str(message))
            else:
                show(message, category, *place, **more)

        warnings.showwarning = say
        yield


def _say(text: str) -> int:
    print(f"newcomer: {printable(text)}", file=sys.stderr)
    return MISTAKE


def _misread(error: Any) -> int:
    """What the command-line library says of words that it cannot read, in one line; its help where there are none."""
    message = str(error.format_message())
    if "\n" in message:
        error.show()
        return int(error.exit_code)
    path = error.ctx.command_path if getattr(error, "ctx", None) else "newcomer"
    return _say(f"{message.rstrip('.')}; see `{path} --help`")


def _cannot_speak(error: OSError) -> int:
    """Nobody reads what is printed, or the disk it goes to is full: nothing more is tried, at the end of Python neither."""
    code = CLOSED if isinstance(error, BrokenPipeError) else _say(f"standard output: {error.strerror or error}")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return code


def speak_all_scripts(stream: TextIO) -> None:
    """What a terminal's encoding lacks is printed as its escape, as JSON writes it: text and JSON alike remain readable."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors=ESCAPED)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    units = (int.from_bytes(text[n : n + 2], "big") for n in range(0, len(text), 2))
    return "".join(f"\\u{unit:04x}" for unit in units), error.end


codecs.register_error(ESCAPED, _escape)
