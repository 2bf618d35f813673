"""Input and output tables of commands: CSV, parquet, and JSON lines."""

import csv
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import dropwhile
from pathlib import Path
from typing import IO

import polars as pl

from newcomer.data.io.formats import format_of
from newcomer.data.io.remote import LogFile
from newcomer.data.io.tables import file_separator, open_text, read_parts, read_table
from newcomer.data.paths import path_exists
from newcomer.errors import DataError
from newcomer.printable import printable_json

JSON_LINES = (".jsonl", ".ndjson")


def read_rows(file: LogFile, may_be_empty: bool = False) -> pl.DataFrame:
    """Read a table by its suffix; blank lines of a CSV file are skipped.

    Raises DataError for an unreadable file, with the line if known, and unless it `may_be_empty` for one without rows.
    """
    if file.name.lower().endswith(".json"):
        raise DataError(f"{file}: JSON as a whole; write JSON lines (.jsonl), one object per line, or CSV or parquet")
    if may_be_empty:
        (table,) = read_parts([file]).values()
    else:
        table = read_table(file)
    return _without_blank_lines(table, file) if len(table) else table


def _without_blank_lines(table: pl.DataFrame, file: LogFile) -> pl.DataFrame:
    """Drop the rows of blank lines of a delimited file; rows of empty values between separators stay."""
    if not format_of(file).separator or not table.select(pl.all_horizontal(pl.all().is_null()).any()).item():
        return table
    separator = file_separator(file)
    with open_text(file, newline="") as stream:
        rows = dropwhile(lambda row: not row, csv.reader(stream, delimiter=separator))
        next(rows)
        blank = [not row for row in rows]
    return table.filter(~pl.Series(blank[: len(table)]))


def frame_to_jsonl(frame: pl.DataFrame) -> Iterable[str]:
    """Rows as JSON strings, without line ends."""
    return (printable_json(row) for row in frame.iter_rows(named=True))


def require_rows_file(file: Path | None, source: str | None = None) -> None:
    """Raises DataError early for a file that `write_rows` could not write; `source` is the input file."""
    if file is None:
        return
    _require_suffix(file)
    if not file.parent.is_dir():
        raise DataError(f"{file}: cannot be written (no folder {file.parent}); choose another path")
    if file.is_dir():
        raise DataError(f"{file}: cannot be written (it is a folder); give a file in it")
    if source is not None and path_exists(Path(source)) and file.resolve() == Path(source).resolve():
        raise DataError(f"{file}: the output would overwrite the input; choose another file")
    part = _part(file)
    with _writing(file, part):
        part.open("xb").close()


def _require_suffix(file: Path) -> None:
    if file.suffix.lower() not in (".csv", ".parquet", *JSON_LINES):
        raise DataError(f"{file}: neither .csv, .parquet nor .jsonl; choose one of them")


def write_rows(frame: pl.DataFrame, file: Path) -> None:
    """Write a table atomically in the format of the file's suffix.

    Raises DataError for another suffix, and if writing fails.
    """
    _require_suffix(file)
    part = _part(file)
    with _writing(file, part):
        with part.open("xb") as opened:  # never follow a link
            _write(frame, file.suffix.lower(), opened)
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(file.resolve())


def _part(file: Path) -> Path:
    """Temporary file in the same folder."""
    target = file.resolve()
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")


@contextmanager
def _writing(file: Path, part: Path) -> Iterator[None]:
    """Context that converts write errors to a DataError with the file, and removes the temporary file at the end."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]
        raise DataError(f"{file}: cannot be written ({reason}); choose another path") from None
    finally:
        with suppress(OSError):
            part.unlink()


def _write(frame: pl.DataFrame, suffix: str, opened: IO[bytes]) -> None:
    if suffix == ".csv":
        frame.write_csv(opened)
    elif suffix == ".parquet":
        frame.write_parquet(opened)
    else:
        opened.writelines(f"{line}\n".encode() for line in frame_to_jsonl(frame))
