"""Folders of pictures: `root/{train,test}/<class>/<any name>`."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from newcomer.data.class_names import class_name
from newcomer.data.examples import Examples, Picture
from newcomer.data.io.image_decoding import check_header as check_header
from newcomer.data.io.image_decoding import check_picture
from newcomer.data.io.image_decoding import read_picture as read_picture
from newcomer.data.paths import locate
from newcomer.errors import DataError

LITTER = {
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "icon\r",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "__macosx",
    "picasa.ini",
}
"""What file managers leave behind, in lower case; hidden files and folders are passed over as well."""

LAYOUT = "lay the pictures out as {path}/train/<class>/* and {path}/test/<class>/*"

CHECKERS = 4
"""Threads that decode pictures to find the damaged ones."""


class PictureFiles(Sequence[Picture]):
    """Pictures that are read, as RGB, when they are asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # one rule for an index and a slice
        if isinstance(index, slice):
            return PictureFiles(self.paths[index])
        return read_picture(self.paths[index])


def class_folder(root: Path, left_out: list[str] | None = None) -> Examples:
    """Every folder in `root` is a class, every file in it one of its pictures; both in order of their names.

    Headers are looked at now, pixels when a picture is asked for. With a list `left_out`, what is no picture and a class without
    any are named there and passed over.
    Raises DataError for a class without pictures and for a file that is none, and where nothing is left.
    """
    get = LAYOUT.format(path=root.parent)
    files = readable(class_files(root, get, left_out), left_out)
    if not files:
        raise DataError(f"{root}: holds no picture that can be read; {get}")
    return Examples(PictureFiles(files), [file.parent.name for file in files])


def class_files(root: Path, get: str, left_out: list[str] | None = None) -> list[Path]:
    """What lies in the class folders of `root`, in order of their names; no file is opened. `get` ends the messages.

    With a list `left_out`, a class without pictures is named there and passed over.
    Raises DataError for a folder that is missing or has no class folders, for a class without pictures, and for a folder whose name
    is no text.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; {get}")
    found: list[Path] = []
    for folder in (p for p in visible(root) if p.is_dir()):
        try:
            class_name(folder.name)
        except DataError as error:
            raise DataError(f"{folder}: {error}") from None
        files = [file for file in visible(folder) if _is_regular(file) or file.is_dir() or not file.exists()]
        if not files:
            message = f"{folder}: a class without pictures; add some or remove the folder"
            if left_out is None:
                raise DataError(message)
            left_out.append(message)
        found += files
    if not found:
        raise DataError(f"{root}: holds no class folders; {get}")
    return found


def picture_files(root: Path, left_out: list[str]) -> list[Path]:
    """All files in a folder at any depth, in order of their names, but for those of file managers and hidden ones.

    Folders that cannot be listed are named in `left_out`. Raises DataError where there is no file.
    """
    found: list[Path] = []
    for folder, folders, files in os.walk(root, onerror=lambda e: left_out.append(f"{e.filename}: {e.strerror}")):
        folders[:] = [name for name in folders if not _is_litter(name)]
        found += [file for name in files if not _is_litter(name) and _is_regular(file := Path(folder, name))]
    if not found and not left_out:
        raise DataError(f"{root}: holds no pictures")
    return sorted(found)


def readable(files: Sequence[Path], left_out: list[str] | None) -> list[Path]:
    """Those of the files that begin as pictures do; the others are named in `left_out`, or raise DataError without such a list."""
    found: list[Path] = []
    for file in files:
        try:
            check_header(file)
            found.append(file)
        except DataError as error:
            if left_out is None:
                raise
            left_out.append(str(error))
    return found


def damaged(files: Sequence[Path]) -> Iterator[str | None]:
    """What is wrong with each file when it is decoded to its end, in order; None where nothing is."""
    pool = ThreadPoolExecutor(CHECKERS)
    try:
        yield from pool.map(_damage, files)
    finally:
        pool.shutdown(cancel_futures=True)


def image_folder(path: str) -> tuple[Examples, Examples]:
    """Training and test examples of `path/train/<class>/*` and `path/test/<class>/*`.

    Raises DataError: see `class_folder`.
    """
    root = locate(path, "a folder of pictures", LAYOUT.format(path=path))
    return class_folder(root / "train"), class_folder(root / "test")


def _damage(file: Path) -> str | None:
    try:
        check_picture(file)
    except DataError as error:
        return str(error)
    return None


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, but for what is hidden or left by file managers. Raises DataError if it cannot be listed."""
    try:
        return sorted(p for p in folder.iterdir() if not _is_litter(p.name))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror or error})") from None


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in LITTER


def _is_regular(file: Path) -> bool:
    """Not a pipe or a device; a link that leads nowhere is told of when it is read."""
    return file.is_file() or file.is_symlink()
