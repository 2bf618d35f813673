"""What a user hands over: a folder or table of examples to learn from, pictures and texts to be answered."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from newcomer.data.examples import Examples, Input
from newcomer.data.pictures import LITTER, PictureFiles, check_header, class_folder
from newcomer.data.tables import read_table, require_columns
from newcomer.data.texts import class_table
from newcomer.errors import DataError

TABLES = {".csv", ".parquet", ".pq"}


def lesson(path: Path, text: str = "text", label: str = "label") -> Examples:
    """Examples to learn from: a table with a column of texts and one of labels, or a folder with a folder of pictures a class.

    A folder that has `train/` is read from there. Raises DataError that says what was expected.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give a folder of class folders, or a CSV or parquet table")
    if path.is_dir():
        return class_folder(path / "train" if _holds_classes(path / "train") else path)
    if path.suffix.lower() not in TABLES:
        raise DataError(f"{path}: neither a folder of class folders nor a .csv or .parquet table")
    return class_table(path, text, label)


def pictures(paths: Sequence[str]) -> tuple[list[str], Sequence[Input]]:
    """Names and pictures of these files, and of all files in these folders at any depth, in order of their names.

    Headers are looked at now, pixels when a picture is asked for.
    Raises DataError for what is not there and what is no picture.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise DataError(f"{path}: no such file or folder; this model reads pictures")
        found = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p, path)) if path.is_dir() else [path]
        if not found:
            raise DataError(f"{path}: holds no pictures")
        files += found
    for file in files:
        check_header(file)
    return [str(file) for file in files], PictureFiles(files)


def texts(given: Sequence[str], column: str = "text") -> tuple[list[str], list[Input]]:
    """These texts; in place of a table's name its column of texts. A name has no spaces, unless it is that of a file.

    Raises DataError for a table that cannot be read or has no such column.
    """
    found: list[str] = []
    for text in given:
        if Path(text).suffix.lower() in TABLES and (Path(text).exists() or not text.count(" ")):
            table = read_table(Path(text))
            require_columns(table.columns, [column], text)
            found += table[column].cast(pl.String).fill_null("").to_list()
        else:
            found.append(text)
    return found, list(found)


def _holds_classes(folder: Path) -> bool:
    """Not so where 'train' is itself a class, of pictures of trains."""
    return folder.is_dir() and any(p.is_dir() for p in folder.iterdir())


def _hidden(file: Path, root: Path) -> bool:
    return file.name in LITTER or any(part.startswith(".") for part in file.relative_to(root).parts)
