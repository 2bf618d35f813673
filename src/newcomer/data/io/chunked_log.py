"""Click log larger than memory, read from files in chunks."""

import re
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import polars as pl

from newcomer.data.click_log import ClickLog
from newcomer.data.io.column_parsing import ROW
from newcomer.data.io.csv_chunking import NEWLINE, chunk_offsets, json_chunk_offsets, lines_before
from newcomer.data.io.formats import content_size, format_of, open_content
from newcomer.data.io.log_files import Source, matching_files, partitions, with_partitions
from newcomer.data.io.log_reader import ResolvedValues, checked_columns, encode_log, read_log
from newcomer.data.io.remote import LogFile, RemoteFile, local
from newcomer.data.io.tables import checked_separator, is_empty, parse_json, reading_errors, require_utf8
from newcomer.data.io.timestamps import are_dates
from newcomer.data.schema import Schema
from newcomer.errors import DataError, SettingError

SMALL = 256 * 2**20
"""Maximum size in bytes of logs that are read whole: in memory they take several times as much. Also that of a compressed file
of a larger log, which every chunk decompresses from its beginning."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of one file."""

    file: LogFile
    begin: int
    """Range in the file: bytes of text, after decompression; rows of columnar files."""
    end: int
    first: int
    """Index of its first row over all files."""
    in_file: int
    """The same row within its file."""
    rows: int
    """Number of its rows, without those that a log leaves out."""


@dataclass(frozen=True)
class _File:
    stamp: tuple[int, int | str]
    columns: list[str]
    read: Callable[[Chunk, list[str]], pl.DataFrame]
    """Reads columns of a chunk."""


class ChunkedLog:
    """Click log that `read_log` would read, in chunks of about `rows` rows.

    Chunk boundaries are found on opening, in little memory: by scanning a CSV file for row ends, parsing JSON lines, or from the
    metadata of a columnar file. Reading a chunk of a columnar file decompresses its whole row group; groups of at most a million
    rows keep that small.

    Raises DataError as `read_log` does; for errors in a chunk's rows, when that chunk is read.
    """

    def __init__(self, source: Source, schema: Schema, rows: int = 250_000) -> None:
        if rows < 1:
            raise SettingError(f"rows = {rows}: a chunk has at least one row; raise it")
        self.schema, self.chunks = schema, list[Chunk]()
        self.resolved: ResolvedValues = {}
        """Resolved values of entities whose rows disagree; known after `LogStatistics.of`."""
        self._left_out: pl.Series | None = None
        """Ids of items whose rows are left out."""
        self._files: dict[LogFile, _File] = {}
        self._has_dates: tuple[bool, LogFile] | None = None
        for path in matching_files(source):
            with reading_errors(path):
                self._files[path], found = _open_file(path, rows)
            before = len(self)
            self.chunks += [Chunk(path, begin, end, before + row, row, count) for begin, end, row, count in found]

        if not self.chunks:
            path, file = next(iter(self._files.items()))
            raise DataError(f"{path}: {'has no rows' if file.stamp[0] else 'is empty'}")
        self._anywhere = {name for file in self._files.values() for name in file.columns}

    def __len__(self) -> int:
        """Number of rows."""
        return sum(chunk.rows for chunk in self.chunks)

    def without_items(self, ids: Sequence[str]) -> Self:
        """This log without the events of these items (canonical ids), in chunks of the same places; takes a pass to count rows.

        Raises DataError if no event is left.
        """
        rest = copy(self)
        rest.resolved, rest._left_out = {}, pl.Series(ids, dtype=pl.String).implode()
        counted = [replace(chunk, rows=len(rest.table(chunk))) for chunk in self.chunks]
        rest.chunks = [chunk for chunk in counted if chunk.rows]
        if not rest.chunks:
            raise DataError(f"all events of the log are of {len(ids)} items that are left out; leave out fewer")
        return rest

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
            *self.schema.event_columns,
        }
        names = needed | {node.name for node in self.schema.nodes}
        # if one is missing read all, so that the error can suggest the nearest name
        chosen = [name for name in file.columns if name.partition("_duplicated_")[0] in names or name in names]
        columns = chosen if needed <= set(file.columns) else file.columns
        with reading_errors(chunk.file):
            found = file.read(chunk, columns)
        self._require_unchanged(chunk.file)
        if labels and self.schema.time in columns:
            self._require_one_clock(are_dates(found[self.schema.time]), chunk.file)
        try:
            anywhere = self._anywhere if items and labels else None
            checked = checked_columns(found, self.schema, str(chunk.file), items, labels, anywhere)
        except DataError as error:
            raise _with_file_row(error, chunk) from None
        found = checked.with_columns(pl.col(ROW) + chunk.first)
        return found if self._left_out is None else found.filter(~pl.col(self.schema.item).is_in(self._left_out))

    def _require_unchanged(self, path: LogFile) -> None:
        with reading_errors(path):
            changed = _stamp(path) != self._files[path].stamp
        if changed:
            raise DataError(
                f"{path}: has changed since it was opened; do not modify it while it is read, and start again"
            )

    def _require_one_clock(self, dates: bool, path: LogFile) -> None:
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
    size = 0
    for file in matching_files(source):
        with reading_errors(file):
            size += content_size(file, SMALL)
        if size > SMALL:
            return ChunkedLog(source, schema)
    return read_log(source, schema)


def _open_file(path: LogFile, rows: int) -> tuple[_File, list[tuple[int, int, int, int]]]:
    """File information, and (begin, end, first row, number of rows) of each chunk."""
    form = format_of(path)
    if form.decompress and content_size(path, SMALL) > SMALL:
        raise DataError(
            f"{path}: more than {SMALL >> 20} MiB when decompressed, too much to read in chunks; decompress it "
            f"(such as by `gzip -d` or `zstd -d`), or write it as parquet or as smaller files"
        )
    open_format = _open_columnar if form.scan else _open_json if form.is_json else _open_delimited
    file, offsets, count = (
        (_File(_stamp(path), [], _read_nothing), [0], 0) if is_empty(path) else open_format(path, rows)
    )
    firsts = range(0, count, rows)
    return file, [
        (begin, end, row, min(rows, count - row)) for (begin, end), row in zip(pairwise(offsets), firsts, strict=True)
    ]


def _open_delimited(path: LogFile, rows: int) -> tuple[_File, list[int], int]:
    offsets, count = chunk_offsets(path, rows)
    header = _content(path, 0, offsets[0])
    separator = checked_separator(header, path)
    header = header if header.endswith(b"\n") else header + b"\n"

    def read(chunk: Chunk, columns: list[str]) -> pl.DataFrame:
        content = header + _content(path, chunk.begin, chunk.end)
        require_utf8(content, path, lambda: lines_before(path, chunk.begin) - header.count(NEWLINE))
        return pl.read_csv(content, columns=columns, infer_schema=False, separator=separator)

    return _file(path, pl.read_csv(header, infer_schema=False, separator=separator).columns, read), offsets, count


def _open_json(path: LogFile, rows: int) -> tuple[_File, list[int], int]:
    names, offsets, count = json_chunk_offsets(path, rows)

    def read(chunk: Chunk, columns: list[str]) -> pl.DataFrame:
        content = _content(path, chunk.begin, chunk.end)
        found = parse_json(content, path, lambda: lines_before(path, chunk.begin))
        absent = [pl.lit(None).alias(name) for name in columns if name not in found.columns]
        return found.with_columns(absent).select(columns)

    return _file(path, names, read), offsets, count


def _open_columnar(path: LogFile, rows: int) -> tuple[_File, list[int], int]:
    scan = format_of(path).scan
    assert scan is not None
    table = scan(local(path))

    def read(chunk: Chunk, columns: list[str]) -> pl.DataFrame:
        return scan(local(path)).select(columns).slice(chunk.begin, chunk.end - chunk.begin).collect()

    count = int(table.select(pl.len()).collect().item())
    return _file(path, table.collect_schema().names(), read), [*range(0, count, rows), count], count


def _file(path: LogFile, own: Sequence[str], read: Callable[[Chunk, list[str]], pl.DataFrame]) -> _File:
    """A file with the columns of its own and those that its folders name."""

    def read_all(chunk: Chunk, columns: list[str]) -> pl.DataFrame:
        found = read(chunk, [name for name in columns if name in own])
        return with_partitions(found, path).select(columns)

    return _File(_stamp(path), list(dict.fromkeys([*own, *partitions(path)])), read_all)


def _read_nothing(_: Chunk, columns: list[str]) -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))


def _content(path: LogFile, begin: int, end: int) -> bytes:
    with open_content(path) as stream:
        stream.seek(begin)
        return stream.read(end - begin)


def _stamp(path: LogFile) -> tuple[int, int | str]:
    if isinstance(path, RemoteFile):
        return path.size, path.version
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _with_file_row(error: DataError, chunk: Chunk) -> DataError:
    """The same error with the row counted from the beginning of the file."""
    found = re.match(rf"{re.escape(str(chunk.file))}: row (\d+)", str(error))
    if found is None:
        return error
    begin, end = found.span(1)
    return DataError(f"{str(error)[:begin]}{int(found[1]) + chunk.in_file}{str(error)[end:]}")
