"""Loading of user data: examples from folders or tables, and images to classify."""

from collections.abc import Sequence
from pathlib import Path

from newcomer.data.examples import Examples
from newcomer.data.inputs import Query
from newcomer.data.io.image_folders import class_folder, image_files, list_visible
from newcomer.data.io.text_files import STANDARD_INPUT, TABLES
from newcomer.data.io.text_files import text_queries as text_queries
from newcomer.data.io.text_tables import class_table
from newcomer.data.paths import path_exists
from newcomer.errors import DataError


def training_examples(
    path: Path, text: str = "text", label: str = "label", left_out: list[str] | None = None
) -> Examples:
    """Training examples from a table with a text and a label column, or from a folder with one image folder per class.

    If a folder has `train/`, that is used. With a list `left_out`, invalid files, classes without images, and rows without text
    or label are skipped and reported there. Raises DataError that says what was expected.
    """
    if not path_exists(path):
        raise DataError(f"{path}: no such file or folder; give a folder of class folders, or a CSV or parquet table")
    if path.is_dir():
        return class_folders(path, left_out)
    if path.suffix.lower() not in TABLES:
        raise DataError(f"{path}: neither a folder of class folders nor a .csv or .parquet table")
    return class_table(path, text, label, left_out)


def class_folders(path: Path, left_out: list[str] | None = None) -> Examples:
    """Examples of a folder with one subfolder per class, or of its `train/`.

    Raises DataError: see `class_folder`.
    """
    return class_folder(training_part(path) or path, left_out)


def training_part(path: Path) -> Path | None:
    """The `train/` of a folder of images that has one with class folders."""
    return path / "train" if _holds_classes(path / "train") else None


def image_queries(paths: Sequence[str]) -> list[Query]:
    """Queries for these files and all files in these folders, recursively, sorted by name; none is opened.

    A missing or unreadable path, or one without files, has a `problem`.
    """
    found: list[Query] = []
    for path in paths:
        try:
            found += _images_of(path)
        except DataError as error:
            found.append(Query(path, path, str(error)))
    return found


def _images_of(given: str) -> list[Query]:
    if given in STANDARD_INPUT:
        raise DataError(f"{given}: images cannot be read from standard input; give files or folders")
    path = Path(given)
    if not path_exists(path):
        raise DataError(f"{path}: no such file or folder; this model reads images")
    if not path.is_dir():
        return [Query(str(path), path)]
    left_out: list[str] = []
    files = [Query(str(file), file) for file in image_files(path, left_out)]
    return files + [Query(problem.partition(":")[0], "", problem) for problem in left_out]


def _holds_classes(folder: Path) -> bool:
    """False if 'train' is itself a class of images."""
    return folder.is_dir() and any(p.is_dir() for p in list_visible(folder))
