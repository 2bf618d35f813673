"""Tables that go in and out of commands: CSV, parquet, and JSON lines, one object a row."""

import json
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from newcomer.data.tables import read_table
from newcomer.errors import DataError

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
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame({name: _series(name, [row.get(name) for row in rows], where) for name in names})


def to_lines(frame: pl.DataFrame) -> Iterable[str]:
    """The rows as JSON, without line ends."""
    return (json.dumps(row, ensure_ascii=False) for row in frame.iter_rows(named=True))


def write_rows(frame: pl.DataFrame, file: Path) -> None:
    """Write the table as the file's suffix says.

    Raises DataError for another suffix, and where the disk refuses.
    """
    suffix = file.suffix.lower()
    if suffix not in (".csv", ".parquet", *LINES):
        raise DataError(f"{file}: neither .csv, .parquet nor .jsonl; choose one of them")
    try:
        if suffix == ".csv":
            frame.write_csv(file)
        elif suffix == ".parquet":
            frame.write_parquet(file)
        else:
            file.write_text("".join(f"{line}\n" for line in to_lines(frame)), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{file}: cannot be written ({error.strerror or error}); give a place that can") from None


def _series(name: str, values: list[object], where: str) -> pl.Series:
    """A column; values of several kinds become text."""
    try:
        return pl.Series(name, values)
    except (TypeError, pl.exceptions.PolarsError):
        kinds = (str, int, float, bool, type(None))
        if not all(isinstance(value, kinds) for value in values):
            raise DataError(f"{where}: column '{name}' holds lists and single values; write one of the two") from None
        return pl.Series(name, [None if value is None else str(value) for value in values])
