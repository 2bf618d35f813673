"""A click log in files that is never whole in memory: read piece by piece."""

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import polars as pl

from newcomer.data.click_log import Log
from newcomer.data.io.column_parsing import ROW
from newcomer.data.io.csv_chunking import NEWLINE, cuts, lines_before
from newcomer.data.io.log_reader import Settled, Source, _checked, _encoded, _paths, read_log
from newcomer.data.io.tables import reading, require_format, require_utf8
from newcomer.data.io.timestamps import are_dates
from newcomer.data.schema import Schema
from newcomer.errors import DataError, SettingError

SMALL = 256 * 2**20
"""Bytes of files that are read whole: in memory they take several times as much."""


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of one file."""

    file: Path
    begin: int
    """Where it begins and ends: bytes of a CSV file, rows of a parquet file."""
    end: int
    first: int
    """Its first row, counted from the beginning of all files."""
    in_file: int
    """The same row, counted from the beginning of its own file."""
    rows: int


@dataclass(frozen=True)
class _File:
    stamp: tuple[int, int]
    columns: list[str]
    header: bytes = b""


class LogFiles:
    """What `read_log` reads, one piece of about `rows` rows at a time.

    The pieces are found at once and in little memory: a CSV file is looked through for the ends of its rows, of a parquet file the
    footer is read. Of a parquet file's row group all compressed values are read for a piece of it; groups of at most a million rows
    keep that small.

    Raises DataError as `read_log` does; for one that is found in a piece's rows, when that piece is read.
    """

    def __init__(self, source: Source, schema: Schema, rows: int = 250_000) -> None:
        if rows < 1:
            raise SettingError(f"rows = {rows}: a piece of a log has at least one row; raise it")
        self.schema, self.pieces = schema, list[Piece]()
        self.settled: Settled = {}
        """Whose rows disagree, with the values that count; known after a survey."""
        self._files: dict[Path, _File] = {}
        self._dated: tuple[bool, Path] | None = None
        for path in _paths(source):
            with reading(path):
                self._files[path], found = _opened(path, rows)
            self.pieces += [Piece(path, begin, end, len(self) + row, row, count) for begin, end, row, count in found]

        if not self.pieces:
            path, file = next(iter(self._files.items()))
            raise DataError(f"{path}: {'has no rows' if file.stamp[0] else 'is empty'}")
        self._anywhere = {name for file in self._files.values() for name in file.columns}

    def __len__(self) -> int:
        """Rows of all pieces."""
        return self.pieces[-1].first + self.pieces[-1].rows if self.pieces else 0

    def read(self, *pieces: Piece, items: bool = True, labels: bool = True) -> Log:
        """These pieces' rows as one log, whose `row` counts from the beginning of all files.

        `items` and `labels`: see `read_log`. Raises DataError as it does, and for a file that has changed since it was opened.
        """
        frames = [self.table(piece, items=items, labels=labels) for piece in pieces]
        return self.encoded(pl.concat(frames), items=items)

    def encoded(self, rows: pl.DataFrame, *, items: bool = True) -> Log:
        """Rows of some of the tables as a log."""
        return _encoded(rows, self.schema, items, self.settled, len(self))

    def table(self, piece: Piece, *, items: bool = True, labels: bool = True) -> pl.DataFrame:
        """The schema's columns of these rows, checked but not encoded; see `read._checked`."""
        file = self._files[piece.file]
        self._require_unchanged(piece.file)
        needed = {
            *(node.name for node in self.schema.nodes if node.missing == "error"),
            self.schema.label,
            self.schema.time,
        }
        names = needed | {node.name for node in self.schema.nodes}
        # where one is missing all are read, so that the error can offer the nearest
        chosen = [name for name in file.columns if name.partition("_duplicated_")[0] in names or name in names]
        columns = chosen if needed <= set(file.columns) else file.columns
        with reading(piece.file):
            found = (_csv if file.header else _parquet)(piece, columns, file.header)
        self._require_unchanged(piece.file)
        if labels and self.schema.time in columns:
            self._require_one_clock(are_dates(found[self.schema.time]), piece.file)
        try:
            anywhere = self._anywhere if items and labels else None
            checked = _checked(found, self.schema, str(piece.file), items, labels, anywhere)
        except DataError as error:
            raise _moved(error, piece) from None
        return checked.with_columns(pl.col(ROW) + piece.first)

    def _require_unchanged(self, path: Path) -> None:
        with reading(path):
            changed = _stamp(path) != self._files[path].stamp
        if changed:
            raise DataError(
                f"{path}: has changed since it was opened; keep it as it is until all is read, and begin again"
            )

    def _require_one_clock(self, dates: bool, path: Path) -> None:
        self._dated = self._dated or (dates, path)
        if dates != self._dated[0]:
            one, other = (path, self._dated[1]) if dates else (self._dated[1], path)
            raise DataError(
                f"time '{self.schema.time}' has dates in {one} and numbers in {other}; write all of them in one way"
            )


def open_log(source: Source, schema: Schema) -> Log | LogFiles:
    """The log in these files: as a whole where they are small, else to be read piece by piece.

    Raises DataError: see `read_log`.
    """
    small = sum(_stamp(path)[0] for path in _paths(source)) <= SMALL
    return read_log(source, schema) if small else LogFiles(source, schema)


def _opened(path: Path, rows: int) -> tuple[_File, list[tuple[int, int, int, int]]]:
    """What is known of a file, and of each of its pieces the begin, the end, the first row and the number of rows."""
    require_format(path)
    way = _open_csv if path.suffix.lower() == ".csv" else _open_parquet
    file, marks, count = way(path, rows)
    firsts = range(0, count, rows)
    return file, [
        (begin, end, row, min(rows, count - row)) for (begin, end), row in zip(pairwise(marks), firsts, strict=True)
    ]


def _open_csv(path: Path, rows: int) -> tuple[_File, list[int], int]:
    stamp = _stamp(path)
    if not stamp[0]:
        return _File(stamp, [], b"\n"), [0], 0
    marks, count = cuts(path, rows)
    with path.open("rb") as stream:
        header = stream.read(marks[0])
    require_utf8(header, path)
    header = header if header.endswith(b"\n") else header + b"\n"
    columns = pl.read_csv(header, infer_schema=False).columns
    return _File(stamp, columns, header), marks, count


def _open_parquet(path: Path, rows: int) -> tuple[_File, list[int], int]:
    stamp, table = _stamp(path), pl.scan_parquet(path, glob=False)
    count = int(table.select(pl.len()).collect().item())
    return _File(stamp, table.collect_schema().names()), [*range(0, count, rows), count], count


def _csv(piece: Piece, columns: list[str], header: bytes) -> pl.DataFrame:
    with piece.file.open("rb") as stream:
        stream.seek(piece.begin)
        content = header + stream.read(piece.end - piece.begin)
    require_utf8(content, piece.file, lambda: lines_before(piece.file, piece.begin) - header.count(NEWLINE))
    return pl.read_csv(content, columns=columns, infer_schema=False)


def _parquet(piece: Piece, columns: list[str], _: bytes) -> pl.DataFrame:
    return pl.scan_parquet(piece.file, glob=False).select(columns).slice(piece.begin, piece.rows).collect()


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _moved(error: DataError, piece: Piece) -> DataError:
    """The same error, its row counted from the beginning of the file."""
    found = re.match(rf"{re.escape(str(piece.file))}: row (\d+)", str(error))
    if found is None:
        return error
    begin, end = found.span(1)
    return DataError(f"{str(error)[:begin]}{int(found[1]) + piece.in_file}{str(error)[end:]}")
