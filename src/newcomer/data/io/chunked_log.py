"""Click log larger than memory, read from files in chunks."""

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import polars as pl

from newcomer.data.click_log import ClickLog
from newcomer.data.io.column_parsing import ROW
from newcomer.data.io.csv_chunking import NEWLINE, chunk_offsets, lines_before
from newcomer.data.io.log_reader import ResolvedValues, Source, checked_columns, encode_log, matching_files, read_log
from newcomer.data.io.tables import reading_errors, require_format, require_header, require_newlines, require_utf8
from newcomer.data.io.timestamps import are_dates
from newcomer.data.schema import Schema
from newcomer.errors import DataError, SettingError

SMALL = 256 * 2**20
"""Maximum size in bytes of logs that are read whole: in memory they take several times as much."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of one file."""

    file: Path
    begin: int
    """Range in the file: bytes of CSV, rows of parquet."""
    end: int
    first: int
    """Index of its first row over all files."""
    in_file: int
    """The same row within its file."""
    rows: int


@dataclass(frozen=True)
class _File:
    stamp: tuple[int, int]
    columns: list[str]
    header: bytes = b""


class ChunkedLog:
    """Click log that `read_log` would read, in chunks of about `rows` rows.

    Chunk boundaries are found on opening, in little memory: by scanning a CSV file for row ends, or from the footer of a parquet
    file. Reading a chunk of a parquet file decompresses its whole row group; groups of at most a million rows keep that small.

    Raises DataError as `read_log` does; for errors in a chunk's rows, when that chunk is read.
    """

    def __init__(self, source: Source, schema: Schema, rows: int = 250_000) -> None:
        if rows < 1:
            raise SettingError(f"rows = {rows}: a chunk has at least one row; raise it")
        self.schema, self.chunks = schema, list[Chunk]()
        self.resolved: ResolvedValues = {}
        """ResolvedValues values of entities whose rows disagree; known after `LogStatistics.of`."""
        self._files: dict[Path, _File] = {}
        self._has_dates: tuple[bool, Path] | None = None
        for path in matching_files(source):
            with reading_errors(path):
                self._files[path], found = _open_file(path, rows)
            self.chunks += [Chunk(path, begin, end, len(self) + row, row, count) for begin, end, row, count in found]

        if not self.chunks:
            path, file = next(iter(self._files.items()))
            raise DataError(f"{path}: {'has no rows' if file.stamp[0] else 'is empty'}")
        self._anywhere = {name for file in self._files.values() for name in file.columns}

    def __len__(self) -> int:
        """Number of rows."""
        return self.chunks[-1].first + self.chunks[-1].rows if self.chunks else 0

    def read(self, *chunks: Chunk, items: bool = True, labels: bool = True) -> ClickLog:
        """Rows of these chunks as one log, with `row` counted over all files.

        `items`, `labels`: see `read_log`. Raises DataError as it does, and for a file that changed after opening.
        """
        frames = [self.table(chunk, items=items, labels=labels) for chunk in chunks]
        return self.encode(pl.concat(frames), items=items)

    def encode(self, rows: pl.DataFrame, *, items: bool = True) -> ClickLog:
        """Encode rows of `table` as a log."""
        return encode_log(rows, self.schema, items, self.resolved, len(self))

    def table(self, chunk: Chunk, *, items: bool = True, labels: bool = True) -> pl.DataFrame:
        """Columns of the schema for these rows, checked but not encoded; see `checked_columns`."""
        file = self._files[chunk.file]
        self._require_unchanged(chunk.file)
        needed = {
            *(node.name for node in self.schema.nodes if node.missing == "error"),
            self.schema.label,
            self.schema.time,
        }
        names = needed | {node.name for node in self.schema.nodes}
        # if one is missing read all, so that the error can suggest the nearest name
        chosen = [name for name in file.columns if name.partition("_duplicated_")[0] in names or name in names]
        columns = chosen if needed <= set(file.columns) else file.columns
        with reading_errors(chunk.file):
            found = (_read_csv if file.header else _read_parquet)(chunk, columns, file.header)
        self._require_unchanged(chunk.file)
        if labels and self.schema.time in columns:
            self._require_one_clock(are_dates(found[self.schema.time]), chunk.file)
        try:
            anywhere = self._anywhere if items and labels else None
            checked = checked_columns(found, self.schema, str(chunk.file), items, labels, anywhere)
        except DataError as error:
            raise _with_file_row(error, chunk) from None
        return checked.with_columns(pl.col(ROW) + chunk.first)

    def _require_unchanged(self, path: Path) -> None:
        with reading_errors(path):
            changed = _stamp(path) != self._files[path].stamp
        if changed:
            raise DataError(
                f"{path}: has changed since it was opened; do not modify it while it is read, and start again"
            )

    def _require_one_clock(self, dates: bool, path: Path) -> None:
        self._has_dates = self._has_dates or (dates, path)
        if dates != self._has_dates[0]:
            one, other = (path, self._has_dates[1]) if dates else (self._has_dates[1], path)
            raise DataError(
                f"time '{self.schema.time}' has dates in {one} and numbers in {other}; use one format in all files"
            )


def open_log(source: Source, schema: Schema) -> ClickLog | ChunkedLog:
    """Open the log in these files: in memory if small, else in chunks.

    Raises DataError: see `read_log`.
    """
    small = sum(_stamp(path)[0] for path in matching_files(source)) <= SMALL
    return read_log(source, schema) if small else ChunkedLog(source, schema)


def _open_file(path: Path, rows: int) -> tuple[_File, list[tuple[int, int, int, int]]]:
    """File information, and (begin, end, first row, number of rows) of each chunk."""
    require_format(path)
    open_format = _open_csv if path.suffix.lower() == ".csv" else _open_parquet
    file, offsets, count = open_format(path, rows)
    firsts = range(0, count, rows)
    return file, [
        (begin, end, row, min(rows, count - row)) for (begin, end), row in zip(pairwise(offsets), firsts, strict=True)
    ]


def _open_csv(path: Path, rows: int) -> tuple[_File, list[int], int]:
    stamp = _stamp(path)
    if not stamp[0]:
        return _File(stamp, [], b"\n"), [0], 0
    offsets, count = chunk_offsets(path, rows)
    with path.open("rb") as stream:
        header = stream.read(offsets[0])
    require_utf8(header, path)
    require_newlines(header, path)
    require_header(header, path)
    header = header if header.endswith(b"\n") else header + b"\n"
    columns = pl.read_csv(header, infer_schema=False).columns
    return _File(stamp, columns, header), offsets, count


def _open_parquet(path: Path, rows: int) -> tuple[_File, list[int], int]:
    stamp, table = _stamp(path), pl.scan_parquet(path, glob=False)
    count = int(table.select(pl.len()).collect().item())
    return _File(stamp, table.collect_schema().names()), [*range(0, count, rows), count], count


def _read_csv(chunk: Chunk, columns: list[str], header: bytes) -> pl.DataFrame:
    with chunk.file.open("rb") as stream:
        stream.seek(chunk.begin)
        content = header + stream.read(chunk.end - chunk.begin)
    require_utf8(content, chunk.file, lambda: lines_before(chunk.file, chunk.begin) - header.count(NEWLINE))
    return pl.read_csv(content, columns=columns, infer_schema=False)


def _read_parquet(chunk: Chunk, columns: list[str], _: bytes) -> pl.DataFrame:
    return pl.scan_parquet(chunk.file, glob=False).select(columns).slice(chunk.begin, chunk.rows).collect()


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _with_file_row(error: DataError, chunk: Chunk) -> DataError:
    """The same error with the row counted from the beginning of the file."""
    found = re.match(rf"{re.escape(str(chunk.file))}: row (\d+)", str(error))
    if found is None:
        return error
    begin, end = found.span(1)
    return DataError(f"{str(error)[:begin]}{int(found[1]) + chunk.in_file}{str(error)[end:]}")
