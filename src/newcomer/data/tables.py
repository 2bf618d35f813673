"""CSV and parquet files, whole, with errors that name the file and the row."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from newcomer.errors import DataError, nearest


def read_table(file: Path) -> pl.DataFrame:
    """A table with all its columns; those of a CSV file are text, so that '01' stays '01'.

    Raises DataError for a file that is missing, empty, neither CSV nor parquet, or text that is not UTF-8.
    """
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        ".csv": _read_csv,
        ".parquet": pl.read_parquet,
        ".pq": pl.read_parquet,
    }
    if file.suffix.lower() not in readers:
        raise DataError(f"{file}: neither .csv nor .parquet; convert it to one of the two")
    with reading(file):
        table = readers[file.suffix.lower()](file)
    if not len(table):
        raise DataError(f"{file}: has no rows")
    return table


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
            raise DataError(f"{where}: no column '{column}'; {nearest(column, columns)}")


def _read_csv(file: Path) -> pl.DataFrame:
    content = file.read_bytes()
    require_utf8(content, file)
    return pl.read_csv(content, infer_schema=False)


def require_utf8(content: bytes, file: Path, lines_before: Callable[[], int] = lambda: 0) -> None:
    """Raises DataError with the line that is not UTF-8; the content begins after so many lines of the file."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = lines_before() + content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}: line {line} is not UTF-8; save the file as UTF-8") from None
