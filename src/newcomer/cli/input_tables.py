"""Input tables of commands: files, or JSON lines on standard input, streamed."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from newcomer.data.io.frames import frame_from_rows
from newcomer.data.io.row_files import JSON_LINES, json_object, read_rows
from newcomer.errors import DataError

STDIN = "-"


@dataclass(frozen=True)
class InputTable:
    """A table, its name in messages, and the errors of lines that are not JSON objects, by row: these rows are empty.

    The table has no rows if no line is an object.
    """

    frame: pl.DataFrame
    where: str
    broken: dict[int, str] = field(default_factory=dict)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Within, an error about a table with broken lines is reported as that of its first broken line."""
        try:
            yield
        except DataError:
            if self.broken:
                raise DataError(next(iter(self.broken.values()))) from None
            raise

    def without_echo(self, lines: Sequence[str]) -> list[str]:
        """Messages for left-out rows; broken lines are reported once, not also as rows with missing columns."""
        empty = tuple(f"{self.where}: row {row + 1}, " for row in self.broken)
        return [*self.broken.values(), *(line for line in lines if not line.startswith(empty or ("\0",)))]


def read_input(source: str, strict: bool) -> InputTable:
    """Read a whole table.

    Raises DataError for a file that cannot be read, and if `strict` for a line that is not an object.
    """
    if source != STDIN and Path(source).suffix.lower() not in JSON_LINES:
        return InputTable(read_rows(Path(source)), source)
    if source == STDIN:
        return _table_of_all([line for part in _stdin_lines() for line in part], "standard input", strict)
    try:
        content = Path(source).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{source}: no such file") from None
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or error})") from None
    return _table_of_all([_decoded(line) for line in content.split(b"\n")], source, strict)


def stream_input(source: str, strict: bool) -> Iterator[InputTable]:
    """Read a table in parts; standard input is streamed."""
    if source != STDIN:
        yield read_input(source, strict)
        return
    before = 0
    for lines in _stdin_lines():
        yield _table_of(lines, f"standard input{f' after line {before:,}' if before else ''}", before, strict)
        before += len(lines)


def _stdin_lines() -> Iterator[list[str]]:
    """Complete lines from standard input, as they arrive."""
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        yield list(sys.stdin)
        return
    rest = b""
    while part := stream.read1(1 << 20):
        *whole, rest = (rest + part).split(b"\n")
        if whole:
            yield [_decoded(line) for line in whole]
    if rest:
        yield [_decoded(rest)]


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return "\ufffd"  # no JSON object, and said to be none


def _table_of_all(lines: Sequence[str], where: str, strict: bool) -> InputTable:
    """Raises DataError if no line is an object."""
    found = _table_of(lines, where, 0, strict)
    if found.broken and not len(found.frame):
        raise DataError(found.broken[0])
    return found


def _table_of(lines: Sequence[str], where: str, before: int, strict: bool) -> InputTable:
    rows, broken = list[dict[str, Any]](), dict[int, str]()
    source = where.partition(" after ")[0]
    for number, line in enumerate(lines, before + 1):
        if not line.strip():
            continue
        try:
            rows.append(json_object(line, f"{source}: line {number}"))
        except DataError as error:
            if strict:
                raise
            broken[len(rows)] = str(error)
            rows.append({})
    return InputTable(frame_from_rows(rows, where), where, broken)
