"""Files of a table: paths, patterns, folders and URLs, and the columns that hive partitions add to them."""

import fnmatch
import glob
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from newcomer.data.io.formats import COMPRESSIONS, find_format
from newcomer.data.io.remote import LogFile, remote_files, remote_url
from newcomer.data.paths import path_exists
from newcomer.errors import DataError, DataWarning

Source = str | Path | Sequence[str | Path]

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""What Hive and Spark write for a missing value."""

VERSIONED = {"_delta_log": "a Delta table", ".hoodie": "a Hudi table"}
"""Folders of formats whose parquet files include rows that were deleted."""


def matching_files(source: Source) -> list[LogFile]:
    """The files that these paths, folders, patterns and URLs name, each once.

    Raises DataError if there are none. DataWarning for a file that is named twice, also by a symbolic link.
    """
    patterns = [source] if isinstance(source, (str, Path)) else list(source)
    files = [file for pattern in patterns for file in _matching(pattern)]
    if not files:
        raise DataError(
            f"{', '.join(map(str, patterns))}: no such file; give a CSV or parquet file, a folder of them, "
            "or a pattern that matches some"
        )
    return _without_repeated(files)


def _without_repeated(files: Sequence[LogFile]) -> list[LogFile]:
    found = dict[LogFile, LogFile]()
    for file in files:
        other = found.setdefault(file.resolve() if isinstance(file, Path) else file, file)
        if other is not file:
            same = "is named twice" if other == file else f"is the same file as {other}"
            warnings.warn(f"{file}: {same}; its rows are read once", DataWarning, stacklevel=3)
    return [*found.values()]


def partitions(file: LogFile) -> dict[str, str | None]:
    """Columns that the folders of a file name.

    >>> partitions(Path("clicks/date=2024-01-01/country=C%C3%B4te/part-0.parquet"))
    {'date': '2024-01-01', 'country': 'Côte'}
    """
    pairs = (part.partition("=") for part in file.parts[:-1])
    return {
        unquote(name): None if value == NO_VALUE else unquote(value) for name, sign, value in pairs if sign and name
    }


def with_partitions(table: pl.DataFrame, file: LogFile) -> pl.DataFrame:
    """The table with the columns that its folders name, as text; a column in the file itself counts."""
    absent = {name: value for name, value in partitions(file).items() if name not in table.columns}
    return table.with_columns(pl.lit(value, dtype=pl.String).alias(name) for name, value in absent.items())


def holds_tables(folder: Path) -> bool:
    """Whether a folder holds a file of a format that is read."""
    return any(find_format(path.name) for path in folder.rglob("*") if not _is_marker(path.relative_to(folder).parts))


def _matching(pattern: str | Path) -> Iterable[LogFile]:
    if url := remote_url(pattern):
        return _remote(url)
    is_pattern = glob.has_magic(str(pattern)) and not path_exists(Path(pattern))
    found = [Path(path) for path in sorted(glob.glob(str(pattern), recursive=True))] if is_pattern else [Path(pattern)]  # noqa: PTH207
    if not is_pattern and not path_exists(found[0]):
        return []
    if is_pattern:
        found = [path for path in found if path.suffix or path.is_dir() or not _is_marker([path.name])]
    if is_pattern and "**" in str(pattern):  # matches the folders and the files in them
        found = [path for path in found if not path.is_dir()]
    return [file for path in found for file in (_in_folder(path) if path.is_dir() else [path])]


def _in_folder(folder: Path) -> list[Path]:
    below = sorted(folder.rglob("*"))
    files = [path for path in below if path.is_file() and not _is_marker(path.relative_to(folder).parts)]
    _require_tables(str(folder), files, [path.relative_to(folder).parts for path in below])
    return files


def _remote(url: str) -> list[LogFile]:
    scheme, root = url.split("://", 1)
    if scheme.startswith("http"):  # lists no files, and ? begins a query
        return [*remote_files(url)]
    is_pattern = glob.has_magic(root)
    fixed = re.split(r"[*?\[]", root)[0]
    start = (fixed.rpartition("/")[0] if is_pattern else root).rstrip("/")
    listed = sorted(remote_files(f"{scheme}://{start}"), key=lambda file: file.parts)
    if not listed or [file.url for file in listed] == [f"{scheme}://{start}"]:
        return [*listed]
    below = {file: file.url.removeprefix(f"{scheme}://{start}").strip("/").split("/") for file in listed}
    files = [file for file, parts in below.items() if not _is_marker(parts) and parts[-1]]
    if is_pattern:
        wanted = re.compile(f"{scheme}://{_expression(root)}")
        return [file for file in files if wanted.fullmatch(file.url)]
    _require_tables(url, files, list(below.values()))
    return [*files]


def _expression(pattern: str) -> str:
    """Regular expression of a pattern as `glob` reads it: only ** crosses folders.

    >>> bool(re.fullmatch(_expression("b/**/*.csv"), "b/x/y/a.csv")), bool(re.fullmatch(_expression("b/*"), "b/x/a"))
    (True, False)
    """
    parts = pattern.split("/")
    found = [
        ("(?:[^/]+/)*" if number < len(parts) - 1 else ".*")
        if part == "**"
        else fnmatch.translate(part).replace(".*", "[^/]*").removesuffix(r"\Z").removesuffix(r"\z")
        + ("/" if number < len(parts) - 1 else "")
        for number, part in enumerate(parts)
    ]
    return "".join(found)


def _require_tables(folder: str, files: Sequence[LogFile], below: Iterable[Sequence[str]]) -> None:
    """Raises DataError for a folder whose files would not be the rows of one table."""
    names = {part for parts in below for part in parts}
    for name, what in VERSIONED.items():
        if name in names:
            raise DataError(f"{folder}: is {what}, whose files include deleted rows; write its rows as parquet")
    if "metadata" in names and any(name.endswith(".metadata.json") for name in names):
        raise DataError(f"{folder}: is an Iceberg table, whose files include deleted rows; write its rows as parquet")
    if not files:
        raise DataError(f"{folder}: is a folder without files; give one with CSV or parquet files")
    stems = dict[tuple[str, ...], LogFile]()
    for file in files:
        if find_format(file.name) is None:
            raise DataError(
                f"{folder}: holds {file}, which is of no format that is read; remove it, "
                "or give a pattern such as '**/*.parquet' below the folder"
            )
        other = stems.setdefault((*file.parts[:-1], _stem(file.name)), file)
        if other != file:
            raise DataError(
                f"{folder}: holds {other} and {file}, perhaps the same rows; keep one of them, or give a pattern"
            )


def _stem(name: str) -> str:
    """The name without the suffixes of its compression and its format."""
    path = Path(name)
    return path.with_suffix("").stem if path.suffix.lower() in COMPRESSIONS else path.stem


def _is_marker(parts: Sequence[str]) -> bool:
    """Whether a path is hidden, or of a warehouse itself, such as `_SUCCESS`."""
    return any(part.startswith((".", "_")) and "=" not in part for part in parts)
