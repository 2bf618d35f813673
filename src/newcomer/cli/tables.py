"""Tables that commands are given: files, or JSON lines on the standard input, some at a time."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from newcomer.data.io.frames import frame_of_rows
from newcomer.data.io.row_files import LINES, read_rows
from newcomer.errors import DataError

STDIN = "-"


@dataclass(frozen=True)
class Given:
    """A table, what messages call it, and which of its rows, by their number from 0, are empty because their line is no object.

    Where no line is one the table has no row.
    """

    frame: pl.DataFrame
    where: str
    broken: dict[int, str] = field(default_factory=dict)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Within, an error about the table is one about its first broken line, if it has one."""
        try:
            yield
        except DataError:
            if self.broken:
                raise DataError(next(iter(self.broken.values()))) from None
            raise

    def without_echo(self, lines: Sequence[str]) -> list[str]:
        """What was left out, said once: of a line that is no object not also what the row that stands for it lacks."""
        empty = tuple(f"{self.where}: row {row + 1}, " for row in self.broken)
        return [*self.broken.values(), *(line for line in lines if not line.startswith(empty or ("\0",)))]


def given(source: str, strict: bool) -> Given:
    """All of a table.

    Raises DataError for a file that cannot be read; `strict`: for a line that is no object too.
    """
    if source != STDIN and Path(source).suffix.lower() not in LINES:
        return Given(read_rows(Path(source)), source)
    if source == STDIN:
        return _all_of_lines([line for part in _arriving() for line in part], "standard input", strict)
    try:
        content = Path(source).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{source}: no such file") from None
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error})") from None
    return _all_of_lines([_decoded(line) for line in content.split(b"\n")], source, strict)


def arriving(source: str, strict: bool) -> Iterator[Given]:
    """The same, what comes on the standard input as it comes."""
    if source != STDIN:
        yield given(source, strict)
        return
    before = 0
    for lines in _arriving():
        yield _of_lines(lines, f"standard input{f' after line {before:,}' if before else ''}", before, strict)
        before += len(lines)


def _arriving() -> Iterator[list[str]]:
    """Whole lines, as many at a time as are there."""
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


def _all_of_lines(lines: Sequence[str], where: str, strict: bool) -> Given:
    """Raises DataError where no line is an object."""
    found = _of_lines(lines, where, 0, strict)
    if found.broken and not len(found.frame):
        raise DataError(found.broken[0])
    return found


def _of_lines(lines: Sequence[str], where: str, before: int, strict: bool) -> Given:
    rows, broken = list[dict[str, Any]](), dict[int, str]()
    source = where.partition(" after ")[0]
    for number, line in enumerate(lines, before + 1):
        if not line.strip():
            continue
        row = _object(line)
        if row is None:
            broken[len(rows)] = f'{source}: line {number} is no JSON object; write one a line, such as {{"item": "i7"}}'
            if strict:
                raise DataError(broken[len(rows)])
        rows.append(row or {})
    return Given(frame_of_rows(rows, where), where, broken)


def _object(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line.removeprefix("\ufeff"))
        if "\\ud" in line.lower():  # half of a character that was cut is none
            json.dumps(row, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
