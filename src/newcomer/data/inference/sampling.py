"""Bounded sampling of a click log from positions spread over its files, in seconds for any size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl

from newcomer.data.canonical import canonical_names
from newcomer.data.io.column_parsing import to_simple_dtype
from newcomer.data.io.csv_chunking import row_ends
from newcomer.data.io.formats import content_size, find_format, format_of, open_content
from newcomer.data.io.log_files import with_partitions
from newcomer.data.io.remote import LogFile, local
from newcomer.data.io.tables import (
    file_separator,
    is_empty,
    parse_json,
    read_possibly_empty,
    reading_errors,
    require_commas,
    require_header,
    require_newlines,
)
from newcomer.data.value_conflicts import COUNT
from newcomer.errors import DataError

ROWS, MEGABYTES, FILES, POSITIONS = 100_000, 32, 16, 8
"""Limits of a sample: rows, megabytes, files, and positions per file."""

COUNTED_MEGABYTES = 1024
"""For logs up to this size the events of every item are counted in full; for files that are read whole, up to a quarter of it."""


@dataclass(frozen=True)
class Sample:
    """Rows of a log, and the total number of rows if known (from parquet metadata or by reading everything)."""

    frame: pl.DataFrame
    rows: int | None
    parts: Mapping[LogFile, pl.DataFrame] = field(default_factory=dict)
    """The rows of each file."""

    @property
    def is_whole(self) -> bool:
        return self.rows == len(self.frame)


def sample(files: Sequence[LogFile], rows: int = ROWS, megabytes: float = MEGABYTES) -> Sample:
    """Rows from the beginning and from evenly spaced positions of each file, in order; all rows of a small log.

    Raises DataError for unreadable files and if there are no rows.
    """
    filled = [file for file in files if not _is_empty(file)] or [files[0]]
    chosen = [filled[n] for n in _evenly_spaced(len(filled), FILES)]
    parts = {file: _part(file, rows // len(chosen), int(megabytes * 2**20) // len(chosen)) for file in chosen}
    frame = pl.concat(
        [_categoricals_as_text(part.frame) for part in parts.values() if len(part.frame)] or [pl.DataFrame()],
        how="diagonal_relaxed",
    )
    if not len(frame):
        raise DataError(f"{files[0]}: has no rows")
    known = [parts[file].rows if file in parts else _rows(file) for file in filled]
    rows_in_all = None if None in known else sum(filter(None, known))
    return Sample(frame, rows_in_all, {file: part.frame for file, part in parts.items()})


def count_values(files: Sequence[LogFile], column: str) -> pl.Series | None:
    """Number of rows of each value of a column over all files; None if the log is too large."""
    most = COUNTED_MEGABYTES * 2**20
    whole = [file for file in files if (form := format_of(file)).decompress or form.is_json]
    if _size(files, most) > most or _size(whole, most // 4) > most // 4:
        return None
    found = []
    for file in (file for file in files if not _is_empty(file)):
        with reading_errors(file):
            scanned = _scan(file, column)
            if column not in scanned.collect_schema() and scanned.head(1).collect().is_empty():
                continue
            counted = scanned.group_by(column).len(COUNT).collect(engine="streaming")
        found.append(
            counted.with_columns(canonical_names(to_simple_dtype(counted[column], str(file)), str(file))).drop_nulls(
                column
            )
        )
    return pl.concat(found).group_by(column).agg(pl.col(COUNT).sum())[COUNT]


def _scan(file: LogFile, column: str) -> pl.LazyFrame:
    """One column of a file; files that cannot be scanned are read whole."""
    form = format_of(file)
    if form.decompress or form.is_json:
        return read_possibly_empty(file).lazy()
    scanned = (
        form.scan(local(file))
        if form.scan
        else pl.scan_csv(local(file), infer_schema=False, glob=False, separator=file_separator(file))
    )
    return scanned if column in scanned.collect_schema() else with_partitions(read_possibly_empty(file), file).lazy()


def _size(files: Sequence[LogFile], most: int) -> int:
    """Size of the files after decompression, or more than `most`."""
    size = 0
    for file in files:
        with reading_errors(file):
            size += content_size(file, most - size) if size <= most else 0
    return size


def _part(file: LogFile, rows: int, size: int) -> Sample:
    form = format_of(file)
    if isinstance(file, Path) and not file.is_file():
        raise DataError(f"{file}: no such file")
    if form.scan:
        return _columnar(file, rows, size)
    with reading_errors(file), open_content(file) as opened:
        header, lines = b"" if form.is_json else opened.readline(), opened.read(2**16)
    if not form.is_json:
        require_newlines(header, file)
        require_header(header, file)
    length = max(1, len(lines) // max(1, lines.count(b"\n")))
    size = min(size, rows * length)
    with reading_errors(file):
        is_small = content_size(file, size + len(header)) <= size + len(header)
    if is_small:
        frame = read_possibly_empty(file)
        require_commas(frame.columns, str(file))
        return Sample(frame, len(frame))
    return Sample(_text(file, header, length, size), None)


def _columnar(file: LogFile, rows: int, size: int) -> Sample:
    scanned = format_of(file).scan
    assert scanned is not None
    with reading_errors(file):
        scan, count = scanned(local(file)), _rows(file) or 0
        head = scan.head(1000).collect()
        rows = min(rows, max(1000, size * len(head) // max(1, int(head.estimated_size()))))
        if count <= rows:
            return Sample(with_partitions(scan.collect(), file), count)
        each = max(1, rows // POSITIONS)
        positions = [scan.slice(begin, each).collect() for begin in _evenly_spaced(count - each, POSITIONS)]
        return Sample(with_partitions(pl.concat(positions), file), count)


def _text(file: LogFile, header: bytes, length: int, size: int) -> pl.DataFrame:
    """The head and, unless the file is compressed or values contain line breaks (undetectable from a position in the middle),
    other positions."""
    with reading_errors(file):
        content = _head(file, max(1, size // 2 // length))
        head = _parse(content, file)
    require_commas(head.columns, str(file))
    is_json, compressed = format_of(file).is_json, format_of(file).decompress
    has_breaks = not is_json and any("\n" in column or head[column].str.contains("\n").any() for column in head.columns)
    if not compressed and not has_breaks:
        end, each = local(file).stat().st_size, size // (2 * POSITIONS)
        begins = [n for n in _evenly_spaced(end - each, POSITIONS) if n > size // 2]
        with reading_errors(file):
            if is_json:
                head = _parse(content + b"".join(_lines_at(file, begin, each) for begin in begins), file)
            else:
                head = pl.concat([head, *(_parse(header + _lines_at(file, begin, each), file) for begin in begins)])
    return with_partitions(head, file)


def _head(file: LogFile, rows: int) -> bytes:
    """So many rows from the beginning, and the header."""
    if format_of(file).is_json:
        with open_content(file) as opened:
            return b"".join(islice(opened, rows))
    count = 0
    for ends in row_ends(file):
        count += len(ends)
        if count > rows:
            end = int(ends[rows - count])
            break
    else:
        end = int(ends[-1])
    with open_content(file) as opened:
        return opened.read(end)


def _parse(content: bytes, file: LogFile) -> pl.DataFrame:
    if format_of(file).is_json:
        return parse_json(content, file)
    return pl.read_csv(content, infer_schema=False, separator=file_separator(file))


def _lines_at(file: LogFile, begin: int, size: int) -> bytes:
    """Complete lines in this byte range."""
    with open_content(file) as opened:
        opened.seek(begin)
        block = opened.read(size)
    return block[block.find(b"\n") + 1 : block.rfind(b"\n") + 1]


def _is_empty(file: LogFile) -> bool:
    """Whether a file is known to have no rows: no bytes, or by the metadata of a columnar file."""
    if isinstance(file, Path) and not file.is_file():
        return False
    return find_format(file.name) is not None and (is_empty(file) or _rows(file) == 0)


def _categoricals_as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """Cast categoricals to text, so that files can be concatenated."""
    kinds = (pl.Categorical, pl.Enum)
    return frame.with_columns(pl.col(name).cast(pl.String) for name in frame.columns if frame[name].dtype in kinds)


def _rows(file: LogFile) -> int | None:
    """Number of rows from the metadata of a columnar file; None for text."""
    if (scan := format_of(file).scan) is None:
        return None
    with reading_errors(file):
        return int(scan(local(file)).select(pl.len()).collect().item())


def _evenly_spaced(count: int, positions: int) -> list[int]:
    """`positions` evenly spaced integers below `count`, including 0."""
    return sorted({int(n) for n in np.linspace(0, max(0, count - 1), min(positions, max(count, 1)))})
