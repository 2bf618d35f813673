"""Tables that go in and out of commands: CSV, parquet, and JSON lines, one object a row."""

import json
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

import polars as pl

from newcomer.data.io.frames import frame_of_rows
from newcomer.data.io.tables import read_table
from newcomer.data.paths import is_there
from newcomer.errors import DataError
from newcomer.printable import printable_json

LINES = (".jsonl", ".ndjson")


def read_rows(file: Path) -> pl.DataFrame:
    """The table in this file, by its suffix.

    Raises DataError for what cannot be read, with the line where there is one.
    """
    if file.suffix.lower() not in LINES:
        return read_table(file)
    try:
        return from_lines(file.read_text(encoding="utf-8").split("\n"), str(file))
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from None


def from_lines(lines: Iterable[str], where: str) -> pl.DataFrame:
    """The table of these JSON objects, one a line; what a line does not name is missing there. Empty lines are passed over.

    A column whose lines hold values of several types is text, each value as an id is spelled: no line is read by the others.

    >>> from_lines(['{"film": "Alien", "price": 2}', '{"film": "Brazil"}'], "table").rows()
    [('Alien', 2), ('Brazil', None)]

    Raises DataError for a line that is no object.
    """
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise DataError(f'{where}: line {number} is no JSON object; write one a line, such as {{"item": "i7"}}')
            rows.append(row)
    return frame_of_rows(rows, where)


def to_lines(frame: pl.DataFrame) -> Iterable[str]:
    """The rows as JSON, without line ends."""
    return (printable_json(row) for row in frame.iter_rows(named=True))


def require_rows_file(file: Path | None, source: str | None = None) -> None:
    """Raises DataError for a file that `write_rows` would not write, before anything is done for it; `source` is what is read."""
    if file is None:
        return
    if file.suffix.lower() not in (".csv", ".parquet", *LINES):
        raise DataError(f"{file}: neither .csv, .parquet nor .jsonl; choose one of them")
    if not file.parent.is_dir():
        raise DataError(f"{file}: cannot be written (no folder {file.parent}); give a place that can")
    if source is not None and is_there(Path(source)) and file.resolve() == Path(source).resolve():
        raise DataError(f"{file}: the answers would replace what is read; choose another file")


def write_rows(frame: pl.DataFrame, file: Path) -> None:
    """Write the table as the file's suffix says: whole, or an older file stays as it is.

    Raises DataError for another suffix, and where the disk refuses.
    """
    require_rows_file(file)
    target = file.resolve()
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as opened:  # never through a link that lies there
            _write(frame, file.suffix.lower(), opened)
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(target)
    except (OSError, pl.exceptions.PolarsError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]
        raise DataError(f"{file}: cannot be written ({said}); give a place that can") from None
    finally:
        with suppress(OSError):
            part.unlink()


def _write(frame: pl.DataFrame, suffix: str, opened: IO[bytes]) -> None:
    if suffix == ".csv":
        frame.write_csv(opened)
    elif suffix == ".parquet":
        frame.write_parquet(opened)
    else:
        opened.writelines(f"{line}\n".encode() for line in to_lines(frame))
