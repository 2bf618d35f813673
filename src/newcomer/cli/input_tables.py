"""Input tables of commands: files, or JSON lines on standard input, streamed."""

import glob
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from newcomer.data.io.formats import find_format, open_content
from newcomer.data.io.frames import frame_from_rows
from newcomer.data.io.json_lines import json_object
from newcomer.data.io.log_files import matching_files, with_partitions
from newcomer.data.io.remote import LogFile, remote_url
from newcomer.data.io.row_files import read_rows
from newcomer.data.io.tables import reading_errors
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

    Raises DataError for a file that cannot be read, for several, and if `strict` for a line that is not an object.
    """
    if source == STDIN:
        return _table_of_all([line for part in _stdin_lines() for line in part], "standard input", strict)
    first, *others = _files(source)
    if others:
        raise DataError(f"{source}: names {len(others) + 1} files; give one at a time, the earlier ones first")
    return _read_file(first, strict)


def _files(source: str) -> list[LogFile]:
    is_file = not glob.has_magic(source) and remote_url(source) is None and not Path(source).is_dir()
    return [Path(source)] if is_file else matching_files(source)


def _read_file(file: LogFile, strict: bool, may_be_empty: bool = False) -> InputTable:
    form = find_format(file.name)
    if form is None or not form.is_json:
        return InputTable(read_rows(file, may_be_empty), str(file))
    with reading_errors(file), open_content(file) as stream:
        content = stream.read()
    found = _table_of_all([_decoded(line) for line in content.split(b"\n")], str(file), strict)
    return replace(found, frame=with_partitions(found.frame, file))


def stream_input(source: str, strict: bool, left_out: list[str]) -> Iterator[InputTable]:
    """Read a table in parts; standard input is streamed, files come one after the other.

    Of several files, those without rows are skipped, and unless `strict` those that cannot be read are named in `left_out`. Raises
    DataError if all are so.
    """
    if source == STDIN:
        before = 0
        for lines in _stdin_lines():
            yield _table_of(lines, f"standard input{f' after line {before:,}' if before else ''}", before, strict)
            before += len(lines)
        return
    files = _files(source)
    if len(files) == 1:
        yield _read_file(files[0], strict)
        return
    parts = 0
    for file in files:
        try:
            part = _read_file(file, strict, may_be_empty=True)
        except DataError as error:
            if strict:
                raise
            left_out.append(str(error))
            continue
        if part.broken or len(part.frame):
            parts += 1
            yield part
    if not parts:
        raise DataError(left_out[0] if left_out else f"{files[0]}: has no rows")


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
