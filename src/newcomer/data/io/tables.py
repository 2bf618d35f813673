"""Reading of CSV and parquet files into memory, with errors that name the file and the row."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from newcomer.errors import DataError, nearest

FORMATS = (".csv", ".parquet", ".pq")

CSV_VALUE = re.compile(r'(?:"(?:[^"]|"")*"|[^",\n]*)\r?(?:,|\n|\Z)')
"""A value of a CSV file and what ends it."""

UNSUPPORTED = {
    **dict.fromkeys((".csv.gz", ".tsv.gz", ".parquet.gz", ".gz", ".zip", ".bz2", ".xz", ".zst"), "a compressed file"),
    **dict.fromkeys((".tsv", ".tab"), "a table separated by tabs"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "a spreadsheet"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "JSON"),
    **dict.fromkeys((".feather", ".arrow", ".orc", ".avro"), "a columnar file of another kind"),
}
"""Names of unsupported formats by suffix."""


def read_table(file: Path) -> pl.DataFrame:
    """Read a table with all its columns; CSV columns are text, so that '01' stays '01'.

    Trailing empty lines are skipped. Raises DataError for a file that is missing, empty, neither CSV nor parquet, not UTF-8 or
    not comma-separated, and for a row with more values than the header.
    """
    table = read_possibly_empty(file)
    if not len(table):
        raise DataError(f"{file}: has no rows")
    return table


def read_tables(files: Sequence[Path]) -> dict[Path, pl.DataFrame]:
    """Read the parts of one table: as `read_table`, but some parts may be empty."""
    found = {}
    for file in files:
        require_format(file)
        with reading_errors(file):
            empty = not file.stat().st_size
        found[file] = pl.DataFrame() if empty else read_possibly_empty(file)
    if not any(map(len, found.values())):
        raise DataError(f"{files[0]}: {'is empty' if not files[0].stat().st_size else 'has no rows'}")
    return found


def require_format(file: Path) -> None:
    """Raises DataError for a file that is neither CSV nor parquet, with its format if known by suffix."""
    if file.is_dir():
        raise DataError(f"{file}: is a folder; give a pattern such as '{file / '*.parquet'}'")
    name = file.name.lower()
    for suffix, what in UNSUPPORTED.items():
        if name.endswith(suffix):
            raise DataError(f"{file}: neither .csv nor .parquet, but {what}; write it as one of the two")
    if file.suffix.lower() not in FORMATS:
        raise DataError(f"{file}: neither .csv nor .parquet; convert it to one of the two")


@contextmanager
def reading_errors(file: Path) -> Iterator[None]:
    """Context that converts read errors to a DataError with the file."""
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
        is_parse_error = file.suffix.lower() == ".csv" and isinstance(error, pl.exceptions.PolarsError)
        if is_parse_error and (line := _stray_quote_line(file)):
            raise DataError(
                f"{file}: cannot be read: line {line} has a quotation mark inside a value; put the whole value in quotation marks, "
                "and double those in it"
            ) from None
        raise DataError(f"{file}: cannot be read ({str(error).splitlines()[0]})") from None


def require_columns(columns: Iterable[str], wanted: Iterable[str], where: str) -> None:
    """Raises DataError, with the nearest name, unless all wanted columns exist.

    >>> require_columns(["text", "label"], ["lable"], "a.csv")
    Traceback (most recent call last):
    newcomer.errors.DataError: a.csv: no column 'lable'; did you mean 'label'?
    """
    columns = list(columns)
    for column in wanted:
        if column not in columns:
            require_commas(columns, f"{where}: no column '{column}'")
            raise DataError(f"{where}: no column '{column}'; {nearest(column, columns, 'there are')}")
        if f"{column}_duplicated_0" in columns:  # polars' name of the second one
            raise DataError(f"{where}: column '{column}' occurs twice; keep one of them, or rename the other")


def read_possibly_empty(file: Path) -> pl.DataFrame:
    """Like `read_table`, for a file that may have no rows."""
    require_format(file)
    with reading_errors(file):
        if file.suffix.lower() != ".csv":
            return pl.read_parquet(file, glob=False)
        content = file.read_bytes()
        require_utf8(content, file)
        require_newlines(content, file)
        require_header(content, file)
        require_closed_quotes(content, file)
        return drop_trailing_blank_rows(pl.read_csv(content, infer_schema=False))


def require_header(content: bytes, file: Path) -> None:
    """Raises DataError for a first line that is not a header: a spreadsheet's separator line, or a comment."""
    line = content.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0].decode().strip()
    if line.lower().startswith("sep="):
        raise DataError(
            f"{file}: line 1 is {line!r}, which tells a spreadsheet the separator, not a header; delete the line"
        )
    if line.startswith("#") and "," not in line:
        raise DataError(f"{file}: line 1 is a comment, {line[:60]!r}, not a header; delete the line")


def require_commas(columns: Sequence[str], where: str) -> None:
    """Raises DataError, with the separator, for a header that is not separated by commas."""
    names = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
    if len(columns) == 1 and (found := [separator for separator in names if separator in columns[0]]):
        raise DataError(
            f"{where}: the header is separated by {names[found[0]]}, not by commas; write the file with commas, or as .parquet"
        )


def require_closed_quotes(content: bytes, file: Path) -> None:
    """Raises DataError for an unterminated quote: everything after it would be one value."""
    if content.count(b'"') % 2:
        lines = (number for number, line in enumerate(content.splitlines(), 1) if line.count(b'"') % 2)
        raise DataError(
            f"{file}: a quotation mark is never closed, perhaps in line {next(lines)}; "
            "close it, or write a quotation mark in a value twice"
        )


def drop_trailing_blank_rows(table: pl.DataFrame) -> pl.DataFrame:
    """Drop empty rows at the end."""
    count = len(table)
    while count and all(value is None for value in table.row(count - 1)):
        count -= 1
    return table.head(count)


def _longer_row(file: Path) -> tuple[int, int, int] | None:
    """First row with more values than the header: its number from 1, the number of names, the number of values."""
    with file.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream)
        header = next((row for row in rows if row), [])
        for number, row in enumerate(rows, 1):
            if len(row) > len(header):
                return number, len(header), len(row)
    return None


def _stray_quote_line(file: Path) -> int | None:
    """First line with a value that is only partly in quotation marks."""
    with file.open(encoding="utf-8-sig", errors="replace", newline="\n") as stream:
        record, first, quotes = list[str](), 1, 0
        for number, line in enumerate(stream, 1):
            record.append(line)
            quotes += line.count('"')
            if quotes % 2:  # a quoted value goes on in the next line
                continue
            if (line_in_record := _invalid_line("".join(record))) is not None:
                return first + line_in_record
            record, first = [], number + 1
    line_in_record = _invalid_line("".join(record))
    return None if line_in_record is None else first + line_in_record


def _invalid_line(record: str) -> int | None:
    """Line, from 0, of the first invalid value in a record of a CSV file."""
    position = 0
    while position < len(record):
        found = CSV_VALUE.match(record, position)
        if found is None:
            return record.count("\n", 0, position)
        position = found.end()
    return None


def require_newlines(content: bytes, file: Path) -> None:
    """Raises DataError if lines end in CR alone: all of them would be one."""
    if b"\r" in content.rstrip() and b"\n" not in content:
        raise DataError(f"{file}: lines end in CR alone, as on old Macs; save it with LF or CR LF line ends")


def require_utf8(content: bytes, file: Path, lines_before: Callable[[], int] = lambda: 0) -> None:
    """Raises DataError with the line that is not UTF-8; `content` begins after `lines_before()` lines of the file."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError(f"{file}: is UTF-16, as spreadsheets save 'Unicode text'; save it as UTF-8") from None
        line = lines_before() + content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}: line {line} is not UTF-8; save the file as UTF-8") from None
