"""What a user hands over: a folder or table of examples to learn from, pictures to be answered."""

from collections.abc import Sequence
from pathlib import Path

from newcomer.data.examples import Examples
from newcomer.data.inputs import Asked
from newcomer.data.io.image_folders import class_folder, picture_files, visible
from newcomer.data.io.text_files import STANDARD_INPUT, TABLES
from newcomer.data.io.text_files import texts as texts
from newcomer.data.io.text_tables import class_table
from newcomer.data.paths import is_there
from newcomer.errors import DataError


def lesson(path: Path, text: str = "text", label: str = "label", left_out: list[str] | None = None) -> Examples:
    """Examples to learn from: a table with a column of texts and one of labels, or a folder with a folder of pictures a class.

    A folder that has `train/` is read from there. With a list `left_out`, what cannot be learned from is named there and passed
    over: files that are no pictures, classes without any, rows without text or class. Raises DataError that says what was expected.
    """
    if not is_there(path):
        raise DataError(f"{path}: no such file or folder; give a folder of class folders, or a CSV or parquet table")
    if path.is_dir():
        return class_folders(path, left_out)
    if path.suffix.lower() not in TABLES:
        raise DataError(f"{path}: neither a folder of class folders nor a .csv or .parquet table")
    return class_table(path, text, label, left_out)


def class_folders(path: Path, left_out: list[str] | None = None) -> Examples:
    """The pictures of a folder in which every folder is a class; one that has `train/` is read from there.

    Raises DataError: see `class_folder`.
    """
    return class_folder(path / "train" if _holds_classes(path / "train") else path, left_out)


def pictures(paths: Sequence[str]) -> list[Asked]:
    """These files, and all files in these folders at any depth, in order of their names; none is opened.

    What is not there, holds nothing or cannot be listed has a `problem`.
    """
    found: list[Asked] = []
    for path in paths:
        try:
            found += _pictures_of(path)
        except DataError as error:
            found.append(Asked(path, path, str(error)))
    return found


def _pictures_of(given: str) -> list[Asked]:
    if given in STANDARD_INPUT:
        raise DataError(f"{given}: pictures are not read from standard input; give files or folders")
    path = Path(given)
    if not is_there(path):
        raise DataError(f"{path}: no such file or folder; this model reads pictures")
    if not path.is_dir():
        return [Asked(str(path), path)]
    left_out: list[str] = []
    files = [Asked(str(file), file) for file in picture_files(path, left_out)]
    return files + [Asked(problem.partition(":")[0], "", problem) for problem in left_out]


def _holds_classes(folder: Path) -> bool:
    """Not so where 'train' is itself a class, of pictures of trains."""
    return folder.is_dir() and any(p.is_dir() for p in visible(folder))
