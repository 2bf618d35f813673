"""Bounded sampling of a click log from positions spread over its files, in seconds for any size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from newcomer.data.canonical import canonical_names
from newcomer.data.io.column_parsing import to_simple_dtype
from newcomer.data.io.tables import (
    read_possibly_empty,
    reading_errors,
    require_commas,
    require_format,
    require_header,
    require_newlines,
)
from newcomer.data.value_conflicts import COUNT
from newcomer.errors import DataError

ROWS, MEGABYTES, FILES, POSITIONS = 100_000, 32, 16, 8
"""Limits of a sample: rows, megabytes, files, and positions per file."""

COUNTED_MEGABYTES = 1024
"""For logs up to this size the events of every item are counted in full."""


@dataclass(frozen=True)
class Sample:
    """Rows of a log, and the total number of rows if known (from parquet metadata or by reading everything)."""

    frame: pl.DataFrame
    rows: int | None

    @property
    def is_whole(self) -> bool:
        return self.rows == len(self.frame)


def sample(files: Sequence[Path], rows: int = ROWS, megabytes: float = MEGABYTES) -> Sample:
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
    return Sample(frame, None if None in known else sum(filter(None, known)))


def count_values(files: Sequence[Path], column: str) -> pl.Series | None:
    """Number of rows of each value of a column over all files; None if the log is too large."""
    if sum(file.stat().st_size for file in files) > COUNTED_MEGABYTES * 2**20:
        return None
    found = []
    for file in (file for file in files if not _is_empty(file)):
        scan = pl.scan_parquet(file) if _is_parquet(file) else pl.scan_csv(file, infer_schema=False)
        with reading_errors(file):
            counted = scan.group_by(column).len(COUNT).collect(engine="streaming")
        found.append(
            counted.with_columns(canonical_names(to_simple_dtype(counted[column], str(file)), str(file))).drop_nulls(
                column
            )
        )
    return pl.concat(found).group_by(column).agg(pl.col(COUNT).sum())[COUNT]


def _part(file: Path, rows: int, size: int) -> Sample:
    require_format(file)
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    if _is_parquet(file):
        return _parquet(file, rows, size)
    with file.open("rb") as opened:
        header, lines = opened.readline(), opened.read(2**16)
    require_newlines(header, file)
    require_header(header, file)
    length = max(1, len(lines) // max(1, lines.count(b"\n")))
    size = min(size, rows * length)
    if file.stat().st_size <= size + len(header):
        frame = read_possibly_empty(file)
        require_commas(frame.columns, str(file))
        return Sample(frame, len(frame))
    return Sample(_csv(file, header, length, size), None)


def _parquet(file: Path, rows: int, size: int) -> Sample:
    with reading_errors(file):
        scan, count = pl.scan_parquet(file), _rows(file) or 0
        head = scan.head(1000).collect()
        rows = min(rows, max(1000, size * len(head) // max(1, int(head.estimated_size()))))
        if count <= rows:
            return Sample(scan.collect(), count)
        each = max(1, rows // POSITIONS)
        positions = [scan.slice(begin, each).collect() for begin in _evenly_spaced(count - each, POSITIONS)]
        return Sample(pl.concat(positions), count)


def _csv(file: Path, header: bytes, length: int, size: int) -> pl.DataFrame:
    """The head and, unless values contain line breaks (undetectable from a position in the middle), other positions."""
    with reading_errors(file):
        head = pl.scan_csv(file, infer_schema=False).head(max(1, size // 2 // length)).collect()
    require_commas(head.columns, str(file))
    if any("\n" in column or head[column].str.contains("\n").any() for column in head.columns):
        return head
    begins = [n for n in _evenly_spaced(file.stat().st_size - size // (2 * POSITIONS), POSITIONS) if n > size // 2]
    return pl.concat([head, *(_lines_at(file, header, begin, size // (2 * POSITIONS)) for begin in begins)])


def _lines_at(file: Path, header: bytes, begin: int, size: int) -> pl.DataFrame:
    """Complete lines in this byte range."""
    with file.open("rb") as opened:
        opened.seek(begin)
        block = opened.read(size)
    lines = block[block.find(b"\n") + 1 : block.rfind(b"\n") + 1]
    with reading_errors(file):
        return pl.read_csv(header + lines, infer_schema=False)


def _is_empty(file: Path) -> bool:
    """Whether a file is known to have no rows: no bytes, or by parquet metadata."""
    if not file.is_file():
        return False
    return not file.stat().st_size or (_is_parquet(file) and _rows(file) == 0)


def _categoricals_as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """Cast categoricals to text, so that files can be concatenated."""
    kinds = (pl.Categorical, pl.Enum)
    return frame.with_columns(pl.col(name).cast(pl.String) for name in frame.columns if frame[name].dtype in kinds)


def _rows(file: Path) -> int | None:
    """Number of rows from parquet metadata; None for CSV."""
    if not _is_parquet(file):
        return None
    with reading_errors(file):
        return int(pl.scan_parquet(file).select(pl.len()).collect().item())


def _is_parquet(file: Path) -> bool:
    return file.suffix.lower() in (".parquet", ".pq")


def _evenly_spaced(count: int, positions: int) -> list[int]:
    """`positions` evenly spaced integers below `count`, including 0."""
    return sorted({int(n) for n in np.linspace(0, max(0, count - 1), min(positions, max(count, 1)))})
