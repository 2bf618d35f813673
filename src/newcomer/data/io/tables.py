"""Reading of tables into memory, with errors that name the file and the row."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import polars as pl

from newcomer.data.io.formats import content_size, decompression_errors, format_of, open_content
from newcomer.data.io.json_lines import frame_from_jsonl
from newcomer.data.io.log_files import with_partitions
from newcomer.data.io.remote import LogFile, local
from newcomer.errors import DataError, nearest

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""Separators that are read, if a header has one of them only."""

QUOTED = re.compile(r'"(?:[^"]|"")*"')


def read_table(file: LogFile) -> pl.DataFrame:
    """Read a table with all its columns; CSV columns are text, so that '01' stays '01'.

    Trailing empty lines are skipped. Raises DataError for a file that is missing, empty, of no format that is read, not UTF-8 or
    of an ambiguous separator, and for a row with more values than the header.
    """
    table = read_possibly_empty(file)
    if not len(table):
        raise DataError(f"{file}: has no rows")
    return table


def read_tables(files: Sequence[LogFile]) -> dict[LogFile, pl.DataFrame]:
    """Read the parts of one table: as `read_table`, but some parts may be empty."""
    found = read_parts(files)
    if not any(map(len, found.values())):
        raise DataError(f"{files[0]}: {'is empty' if is_empty(files[0]) else 'has no rows'}")
    return found


def read_parts(files: Sequence[LogFile]) -> dict[LogFile, pl.DataFrame]:
    """As `read_tables`, but all parts may be empty."""
    return {file: pl.DataFrame() if is_empty(file) else read_possibly_empty(file) for file in files}


def is_empty(file: LogFile) -> bool:
    """Whether a file has no content."""
    format_of(file)
    with reading_errors(file):
        return not content_size(file, most=0)


@contextmanager
def reading_errors(file: LogFile) -> Iterator[None]:
    """Context that converts read errors to a DataError with the file."""
    try:
        with decompression_errors():
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
        is_parse_error = format_of(file).separator and isinstance(error, pl.exceptions.PolarsError)
        if is_parse_error and (line := _stray_quote_line(file)):
            raise DataError(
                f"{file}: cannot be read: line {line} has a quotation mark inside a value; put the whole value in quotation marks, "
                "and double those in it"
            ) from None
        raise DataError(f"{file}: cannot be read ({str(error).splitlines()[0]})") from None


def file_separator(file: LogFile) -> str:
    """The separator of a delimited file."""
    with open_content(file) as stream:
        return separator_of(stream.read(1 << 20), format_of(file).separator or ",")


def open_text(file: LogFile, newline: str) -> io.TextIOWrapper:
    """The text of a file, decompressed; bytes that are not UTF-8 become a replacement character."""
    return io.TextIOWrapper(open_content(file), encoding="utf-8-sig", errors="replace", newline=newline)


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


def read_possibly_empty(file: LogFile) -> pl.DataFrame:
    """Like `read_table`, for a file that may have no rows."""
    form = format_of(file)
    with reading_errors(file):
        if form.scan:
            return with_partitions(form.scan(local(file)).collect(), file)
        with open_content(file) as stream:
            content = stream.read()
        parse = parse_json if form.is_json else _parse_delimited
        return with_partitions(parse(content, file), file)


def parse_json(content: bytes, file: LogFile, lines_before: Callable[[], int] = lambda: 0) -> pl.DataFrame:
    """Table of JSON lines that follow `lines_before()` lines of the file."""
    require_utf8(content, file, lines_before)
    return frame_from_jsonl(content.decode().split("\n"), str(file), lines_before())


def _parse_delimited(content: bytes, file: LogFile) -> pl.DataFrame:
    separator = checked_separator(content, file)
    require_closed_quotes(content, file)
    return drop_trailing_blank_rows(pl.read_csv(content, infer_schema=False, separator=separator))


def checked_separator(content: bytes, file: LogFile) -> str:
    """The separator of a delimited file that begins with this content. Raises DataError for a first line that is no header."""
    require_utf8(content, file)
    require_newlines(content, file)
    require_header(content, file)
    return separator_of(content, format_of(file).separator or ",")


def separator_of(content: bytes, usual: str) -> str:
    """The usual separator of the file's suffix, or the only other one that its header has.

    >>> separator_of(b'item;"a,b"', ","), separator_of(b"item;a\\tb", ",")
    (';', ',')
    """
    header = QUOTED.sub("", content.lstrip(b"\xef\xbb\xbf\r\n").partition(b"\n")[0].decode(errors="replace"))
    found = [separator for separator in (*SEPARATORS, "|") if separator in header]
    return found[0] if len(found) == 1 and found[0] in SEPARATORS and usual not in found else usual


def require_header(content: bytes, file: LogFile) -> None:
    """Raises DataError for a first line that is not a header: a spreadsheet's separator line, or a comment."""
    line = content.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0].decode().strip()
    if line.lower().startswith("sep="):
        raise DataError(
            f"{file}: line 1 is {line!r}, which tells a spreadsheet the separator, not a header; delete the line"
        )
    if line.startswith("#") and not any(separator in line for separator in SEPARATORS):
        raise DataError(f"{file}: line 1 is a comment, {line[:60]!r}, not a header; delete the line")


def require_commas(columns: Sequence[str], where: str) -> None:
    """Raises DataError, with the separator, for a header that is separated by none that is read, or by several."""
    names = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
    if len(columns) == 1 and (found := [separator for separator in names if separator in columns[0]]):
        raise DataError(
            f"{where}: the header is separated by {names[found[0]]}, not by commas; write the file with commas, or as .parquet"
        )


def require_closed_quotes(content: bytes, file: LogFile) -> None:
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


def _longer_row(file: LogFile) -> tuple[int, int, int] | None:
    """First row with more values than the header: its number from 1, the number of names, the number of values."""
    separator = file_separator(file)
    with open_text(file, newline="") as stream:
        rows = csv.reader(stream, delimiter=separator)
        header = next((row for row in rows if row), [])
        for number, row in enumerate(rows, 1):
            if len(row) > len(header):
                return number, len(header), len(row)
    return None


def _stray_quote_line(file: LogFile) -> int | None:
    """First line with a value that is only partly in quotation marks."""
    value = _value_pattern(file_separator(file))
    with open_text(file, newline="\n") as stream:
        record, first, quotes = list[str](), 1, 0
        for number, line in enumerate(stream, 1):
            record.append(line)
            quotes += line.count('"')
            if quotes % 2:  # a quoted value goes on in the next line
                continue
            if (line_in_record := _invalid_line("".join(record), value)) is not None:
                return first + line_in_record
            record, first = [], number + 1
    line_in_record = _invalid_line("".join(record), value)
    return None if line_in_record is None else first + line_in_record


def _value_pattern(separator: str) -> re.Pattern[str]:
    """A value of a delimited file and what ends it."""
    return re.compile(rf'(?:"(?:[^"]|"")*"|[^"{separator}\n]*)\r?(?:{separator}|\n|\Z)')


def _invalid_line(record: str, value: re.Pattern[str]) -> int | None:
    """Line, from 0, of the first invalid value in a record of a CSV file."""
    position = 0
    while position < len(record):
        found = value.match(record, position)
        if found is None:
            return record.count("\n", 0, position)
        position = found.end()
    return None


def require_newlines(content: bytes, file: LogFile) -> None:
    """Raises DataError if lines end in CR alone: all of them would be one."""
    if b"\r" in content.rstrip() and b"\n" not in content:
        raise DataError(f"{file}: lines end in CR alone, as on old Macs; save it with LF or CR LF line ends")


def require_utf8(content: bytes, file: LogFile, lines_before: Callable[[], int] = lambda: 0) -> None:
    """Raises DataError with the line that is not UTF-8; `content` begins after `lines_before()` lines of the file."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError(f"{file}: is UTF-16, as spreadsheets save 'Unicode text'; save it as UTF-8") from None
        line = lines_before() + content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}: line {line} is not UTF-8; save the file as UTF-8") from None
