"""Input and output tables of commands: CSV, parquet, and JSON lines."""

import csv
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import dropwhile
from pathlib import Path
from typing import IO, Any

import polars as pl

from newcomer.data.io.frames import frame_from_rows
from newcomer.data.io.tables import read_table
from newcomer.data.paths import path_exists
from newcomer.errors import DataError
from newcomer.printable import printable_json

JSON_LINES = (".jsonl", ".ndjson")


def read_rows(file: Path) -> pl.DataFrame:
    """Read a table by its suffix; blank lines of a CSV file are skipped.

    Raises DataError for an unreadable file, with the line if known.
    """
    if file.suffix.lower() == ".json":
        raise DataError(f"{file}: JSON as a whole; write JSON lines (.jsonl), one object per line, or CSV or parquet")
    if file.suffix.lower() not in JSON_LINES:
        return _without_blank_lines(read_table(file), file)
    try:
        return frame_from_jsonl(file.read_text(encoding="utf-8").split("\n"), str(file))
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from None


def _without_blank_lines(table: pl.DataFrame, file: Path) -> pl.DataFrame:
    """Drop the rows of blank lines of a CSV file; rows of empty values between commas stay."""
    if file.suffix.lower() != ".csv" or not table.select(pl.all_horizontal(pl.all().is_null()).any()).item():
        return table
    with file.open(encoding="utf-8-sig", newline="") as stream:
        rows = dropwhile(lambda row: not row, csv.reader(stream))
        next(rows)
        blank = [not row for row in rows]
    return table.filter(~pl.Series(blank[: len(table)]))


def frame_from_jsonl(lines: Iterable[str], where: str) -> pl.DataFrame:
    """Frame of JSON objects, one per line; missing keys are null, blank lines are skipped.

    A column of mixed types becomes text, each value converted on its own.

    >>> frame_from_jsonl(['{"film": "Alien", "price": 2}', '{"film": "Brazil"}'], "table").rows()
    [('Alien', 2), ('Brazil', None)]

    Raises DataError for a line that is not a JSON object.
    """
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            rows.append(json_object(line, f"{where}: line {number}"))
    return frame_from_rows(rows, where)


def json_object(line: str, where: str) -> dict[str, Any]:
    """The JSON object in this line. Raises DataError for anything else, and for a key that occurs twice."""
    try:
        row = json.loads(line.removeprefix("\ufeff"), object_pairs_hook=_unique_keys)
        if "\\ud" in line.lower():  # an unpaired surrogate is no character
            json.dumps(row, ensure_ascii=False).encode("utf-8")
    except DataError as error:
        raise DataError(f"{where} {error}") from None
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise DataError(f'{where} is not a JSON object; write one per line, in UTF-8, such as {{"item": "i7"}}')
    return row


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise DataError(f"has the key '{name}' twice; write it once")
    return found


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
