"""CSV and parquet files, whole, with errors that name the file and the row."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from newcomer.errors import DataError, nearest

FORMATS = (".csv", ".parquet", ".pq")

OTHERS = {
    **dict.fromkeys((".csv.gz", ".tsv.gz", ".parquet.gz", ".gz", ".zip", ".bz2", ".xz", ".zst"), "a compressed file"),
    **dict.fromkeys((".tsv", ".tab"), "a table separated by tabs"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "a spreadsheet"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "JSON"),
    **dict.fromkeys((".feather", ".arrow", ".orc", ".avro"), "a columnar file of another kind"),
}
"""What other files are by their names."""


def read_table(file: Path) -> pl.DataFrame:
    """A table with all its columns; those of a CSV file are text, so that '01' stays '01'.

    Empty lines at the end are passed over. Raises DataError for a file that is missing, empty, neither CSV nor parquet, text that
    is not UTF-8 or not separated by commas, and a row with more values than the header has names.
    """
    table = read_part(file)
    if not len(table):
        raise DataError(f"{file}: has no rows")
    return table


def read_tables(files: Sequence[Path]) -> dict[Path, pl.DataFrame]:
    """Several tables that are one: as `read_table`, but some of them may be empty, as parts of a folder are."""
    found = {}
    for file in files:
        require_format(file)
        with reading(file):
            empty = not file.stat().st_size
        found[file] = pl.DataFrame() if empty else read_part(file)
    if not any(map(len, found.values())):
        raise DataError(f"{files[0]}: {'is empty' if not files[0].stat().st_size else 'has no rows'}")
    return found


def require_format(file: Path) -> None:
    """Raises DataError for a file that is neither CSV nor parquet, with what it is where its name says so."""
    if file.is_dir():
        raise DataError(f"{file}: is a folder; give its files by a pattern such as '{file / '*.parquet'}'")
    name = file.name.lower()
    for suffix, what in OTHERS.items():
        if name.endswith(suffix):
            raise DataError(f"{file}: neither .csv nor .parquet, but {what}; write it as one of the two")
    if file.suffix.lower() not in FORMATS:
        raise DataError(f"{file}: neither .csv nor .parquet; convert it to one of the two")


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Within, a file that cannot be read is a DataError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except pl.exceptions.NoDataError:
        raise DataError(f"{file}: is empty") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        if "found more fields" in str(error) and (row := _longer_row(file)):
            raise DataError(
                f"{file}: cannot be read: row {row[0]} has {row[2]} values, but the header has {row[1]} names; "
                "put a value that holds a comma in quotation marks"
            ) from None
        raise DataError(f"{file}: cannot be read ({str(error).splitlines()[0]})") from None


def require_columns(columns: Iterable[str], wanted: Iterable[str], where: str) -> None:
    """Raises DataError, with the nearest column offered, unless all wanted columns are there.

    >>> require_columns(["text", "label"], ["lable"], "a.csv")
    Traceback (most recent call last):
    newcomer.errors.DataError: a.csv: no column 'lable'; did you mean 'label'?
    """
    columns = list(columns)
    for column in wanted:
        if column not in columns:
            require_commas(columns, f"{where}: no column '{column}'")
            raise DataError(f"{where}: no column '{column}'; {nearest(column, columns)}")
        if f"{column}_duplicated_0" in columns:  # as polars calls the second
            raise DataError(
                f"{where}: column '{column}' is there twice; keep one of them, or give the other another name"
            )


def read_part(file: Path) -> pl.DataFrame:
    """As `read_table`, of a file that may have no rows."""
    require_format(file)
    with reading(file):
        if file.suffix.lower() != ".csv":
            return pl.read_parquet(file, glob=False)
        content = file.read_bytes()
        require_utf8(content, file)
        require_closed_quotes(content, file)
        return without_last_blanks(pl.read_csv(content, infer_schema=False))


def require_commas(columns: Sequence[str], where: str) -> None:
    """Raises DataError, with the separator, for a header whose names something else than commas stands between."""
    names = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
    if len(columns) == 1 and (found := [sign for sign in names if sign in columns[0]]):
        raise DataError(
            f"{where}: the header is separated by {names[found[0]]}, not by commas; write the file with commas, or as .parquet"
        )


def require_closed_quotes(content: bytes, file: Path) -> None:
    """Raises DataError for a quotation mark that is never closed: everything behind it would be one value."""
    if content.count(b'"') % 2:
        lines = (number for number, line in enumerate(content.splitlines(), 1) if line.count(b'"') % 2)
        raise DataError(
            f"{file}: a quotation mark is never closed, perhaps in line {next(lines)}; "
            "close it, or write a quotation mark in a value twice"
        )


def without_last_blanks(table: pl.DataFrame) -> pl.DataFrame:
    """Without the rows of empty lines at the end."""
    count = len(table)
    while count and all(value is None for value in table.row(count - 1)):
        count -= 1
    return table.head(count)


def _longer_row(file: Path) -> tuple[int, int, int] | None:
    """The first row with more values than the header has names: its number from 1, how many names, how many values."""
    with file.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream)
        header = next((row for row in rows if row), [])
        for number, row in enumerate(rows, 1):
            if len(row) > len(header):
                return number, len(header), len(row)
    return None


def require_utf8(content: bytes, file: Path, lines_before: Callable[[], int] = lambda: 0) -> None:
    """Raises DataError with the line that is not UTF-8; the content begins after so many lines of the file."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = lines_before() + content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}: line {line} is not UTF-8; save the file as UTF-8") from None
