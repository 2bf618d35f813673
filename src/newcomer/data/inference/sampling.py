"""A bounded sample of a click log, from places spread over its files, so that a log of any size is looked at in seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from newcomer.data.canonical import names
from newcomer.data.io.column_parsing import plain
from newcomer.data.io.tables import read_part, reading, require_commas, require_format
from newcomer.errors import DataError

ROWS, MEGABYTES, FILES, PLACES = 100_000, 32, 16, 8
"""At most so many rows and so much of files are read, from so many files and places in each."""

COUNTED_MEGABYTES = 1024
"""Logs up to this size have one column read in full, to count the events of every item."""


@dataclass(frozen=True)
class Sample:
    """Some rows of a log, and how many there are in all where a parquet file's header or a whole reading tells."""

    frame: pl.DataFrame
    rows: int | None

    @property
    def is_whole(self) -> bool:
        return self.rows == len(self.frame)


def sample(files: Sequence[Path], rows: int = ROWS, megabytes: float = MEGABYTES) -> Sample:
    """Rows from the beginning and from places spread over each of the files, in their order; everything of a small log.

    Raises DataError for files that cannot be read or have no rows.
    """
    filled = [file for file in files if not _is_empty(file)] or [files[0]]
    chosen = [filled[n] for n in _spread(len(filled), FILES)]
    parts = {file: _part(file, rows // len(chosen), int(megabytes * 2**20) // len(chosen)) for file in chosen}
    frame = pl.concat(
        [_plain(part.frame) for part in parts.values() if len(part.frame)] or [pl.DataFrame()], how="diagonal_relaxed"
    )
    if not len(frame):
        raise DataError(f"{files[0]}: has no rows")
    known = [parts[file].rows if file in parts else _rows(file) for file in filled]
    return Sample(frame, None if None in known else sum(filter(None, known)))


def counts(files: Sequence[Path], column: str) -> pl.Series | None:
    """How many rows each value of the column has in all the files; None for a log too large to read one column of."""
    if sum(file.stat().st_size for file in files) > COUNTED_MEGABYTES * 2**20:
        return None
    found = []
    for file in (file for file in files if not _is_empty(file)):
        scan = pl.scan_parquet(file) if _is_parquet(file) else pl.scan_csv(file, infer_schema=False)
        with reading(file):
            counted = scan.group_by(column).len().collect(engine="streaming")
        found.append(counted.with_columns(names(plain(counted[column], str(file)), str(file))).drop_nulls(column))
    return pl.concat(found).group_by(column).agg(pl.col("len").sum())["len"]


def _part(file: Path, rows: int, size: int) -> Sample:
    require_format(file)
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    if _is_parquet(file):
        return _parquet(file, rows, size)
    with file.open("rb") as opened:
        header, lines = opened.readline(), opened.read(2**16)
    length = max(1, len(lines) // max(1, lines.count(b"\n")))
    size = min(size, rows * length)
    if file.stat().st_size <= size + len(header):
        frame = read_part(file)
        require_commas(frame.columns, str(file))
        return Sample(frame, len(frame))
    return Sample(_csv(file, header, length, size), None)


def _parquet(file: Path, rows: int, size: int) -> Sample:
    with reading(file):
        scan, count = pl.scan_parquet(file), _rows(file) or 0
        head = scan.head(1000).collect()
        rows = min(rows, max(1000, size * len(head) // max(1, int(head.estimated_size()))))
        if count <= rows:
            return Sample(scan.collect(), count)
        each = max(1, rows // PLACES)
        places = [scan.slice(begin, each).collect() for begin in _spread(count - each, PLACES)]
        return Sample(pl.concat(places), count)


def _csv(file: Path, header: bytes, length: int, size: int) -> pl.DataFrame:
    """The head, and where no value of it holds a line break (which a place in the middle could not tell) some other places."""
    with reading(file):
        head = pl.scan_csv(file, infer_schema=False).head(max(1, size // 2 // length)).collect()
    require_commas(head.columns, str(file))
    if any("\n" in column or head[column].str.contains("\n").any() for column in head.columns):
        return head
    begins = [n for n in _spread(file.stat().st_size - size // (2 * PLACES), PLACES) if n > size // 2]
    return pl.concat([head, *(_place(file, header, begin, size // (2 * PLACES)) for begin in begins)])


def _place(file: Path, header: bytes, begin: int, size: int) -> pl.DataFrame:
    """The whole lines among these bytes."""
    with file.open("rb") as opened:
        opened.seek(begin)
        piece = opened.read(size)
    lines = piece[piece.find(b"\n") + 1 : piece.rfind(b"\n") + 1]
    with reading(file):
        return pl.read_csv(header + lines, infer_schema=False)


def _is_empty(file: Path) -> bool:
    """Whether a file is known to have no rows: it has no bytes, or its footer says so."""
    if not file.is_file():
        return False
    return not file.stat().st_size or (_is_parquet(file) and _rows(file) == 0)


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Categories as text, so that parts of several files are one."""
    kinds = (pl.Categorical, pl.Enum)
    return frame.with_columns(pl.col(name).cast(pl.String) for name in frame.columns if frame[name].dtype in kinds)


def _rows(file: Path) -> int | None:
    """What a parquet file's header says."""
    if not _is_parquet(file):
        return None
    with reading(file):
        return int(pl.scan_parquet(file).select(pl.len()).collect().item())


def _is_parquet(file: Path) -> bool:
    return file.suffix.lower() in (".parquet", ".pq")


def _spread(count: int, places: int) -> list[int]:
    """So many of the numbers below `count`, evenly, the first among them."""
    return sorted({int(n) for n in np.linspace(0, max(0, count - 1), min(places, max(count, 1)))})
