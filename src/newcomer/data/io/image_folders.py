"""Image folder data sets: `root/{train,test}/<class>/<any name>`."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from newcomer.data.class_names import class_name
from newcomer.data.examples import Examples, PILImage
from newcomer.data.io.image_decoding import HEIC, check_image
from newcomer.data.io.image_decoding import check_header as check_header
from newcomer.data.io.image_decoding import read_image as read_image
from newcomer.data.io.train_test_split import Part, require_no_share, stratified
from newcomer.data.paths import locate
from newcomer.errors import DataError

SYSTEM_FILES = {
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
"""Names (lower case) of files that operating systems create; hidden files are ignored as well."""

LAYOUT = "lay the images out as {path}/train/<class>/* and {path}/test/<class>/*"

DECODING_THREADS = 4
"""Threads that decode images to find damaged ones."""


class ImageFiles(Sequence[PILImage]):
    """Lazy sequence of RGB images, decoded when indexed."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # one rule for an index and a slice
        if isinstance(index, slice):
            return ImageFiles(self.paths[index])
        return read_image(self.paths[index])


def class_folder(root: Path, left_out: list[str] | None = None) -> Examples:
    """Examples of a folder with one subfolder per class; classes and files sorted by name.

    File headers are checked at once, pixels are decoded lazily. With a list `left_out`, invalid files and empty classes are
    skipped and reported there. Raises DataError for a class without images, for a file that is not an image, and if nothing is
    left.
    """
    in_parts = root.name in ("train", "test")
    get = (
        LAYOUT.format(path=root.parent) if in_parts else f"give a folder with one subfolder per class: {root}/<class>/*"
    )
    files = filter_readable(found := class_files(root, get, left_out), left_out)
    if left_out is not None:
        kept = {file.parent for file in files}
        folders = (folder for folder in dict.fromkeys(file.parent for file in found) if folder not in kept)
        left_out += [f"{folder}: no readable image; the class is not learned" for folder in folders]
    if not files:
        raise DataError(f"{root}: holds no readable image; {get}")
    return Examples(ImageFiles(files), [file.parent.name for file in files])


def class_files(root: Path, get: str, left_out: list[str] | None = None) -> list[Path]:
    """Files in the class folders of `root`, sorted; none is opened. `get` ends the error messages.

    With a list `left_out`, classes without images are skipped and reported there. Raises DataError for a missing folder, one
    without class folders, a class without images, and an invalid class name.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; {get}")
    found: list[Path] = []
    for file in (p for p in list_visible(root) if p.is_file() and has_image_suffix(p)):
        message = f"{file}: an image beside the class folders; move it into the folder of its class"
        if left_out is None:
            raise DataError(message)
        left_out.append(message)
    for folder in (p for p in list_visible(root) if p.is_dir()):
        try:
            class_name(folder.name)
        except DataError as error:
            raise DataError(f"{folder}: {error}") from None
        files = [file for file in list_visible(folder) if _is_regular(file) or file.is_dir() or not file.exists()]
        if not files:
            message = f"{folder}: a class without images; add some or remove the folder"
            if left_out is None:
                raise DataError(message)
            left_out.append(message)
        found += files
    if not found:
        raise DataError(f"{root}: holds no class folders; {get}")
    return found


def image_files(root: Path, left_out: list[str]) -> list[Path]:
    """All files in a folder, recursively, sorted, except system and hidden files.

    Unreadable folders are reported in `left_out`. Raises DataError if there is no file.
    """
    found: list[Path] = []
    for folder, folders, files in os.walk(root, onerror=lambda e: left_out.append(f"{e.filename}: {e.strerror}")):
        folders[:] = [name for name in folders if not _is_system_file(name)]
        found += [file for name in files if not _is_system_file(name) and _is_regular(file := Path(folder, name))]
    if not found and not left_out:
        raise DataError(f"{root}: holds no images")
    return sorted(found)


def filter_readable(files: Sequence[Path], left_out: list[str] | None) -> list[Path]:
    """Files with an image header; the others are reported in `left_out`, or raise DataError without such a list."""
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


def decoding_problems(files: Sequence[Path]) -> Iterator[str | None]:
    """Error message of each file when it is decoded completely, in order; None if it is valid."""
    pool = ThreadPoolExecutor(DECODING_THREADS)
    try:
        yield from pool.map(_decoding_problem, files)
    finally:
        pool.shutdown(cancel_futures=True)


def image_folder(path: str, *, test_share: Part | None = None, seed: int = 0) -> tuple[Examples, Examples]:
    """Training and test examples of `path/train/<class>/*` and `path/test/<class>/*`.

    Of a folder without these two, `path/<class>/*`, `test_share` of each class (a fifth by default), drawn from the seed, is for
    testing. Raises DataError: see `class_folder` and `stratified`.
    """
    root = locate(path, "a folder of images", LAYOUT.format(path=path))
    if not (root / "train").exists() and not (root / "test").exists():
        return stratified(class_folder(root), test_share, seed, str(root))
    require_no_share(test_share, str(root))
    return class_folder(root / "train"), class_folder(root / "test")


def _decoding_problem(file: Path) -> str | None:
    try:
        check_image(file)
    except DataError as error:
        return str(error)
    return None


def list_visible(folder: Path) -> list[Path]:
    """Entries of a folder, sorted, except hidden and system files. Raises DataError if it cannot be listed."""
    try:
        return sorted(p for p in folder.iterdir() if not _is_system_file(p.name))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror or error})") from None


def has_image_suffix(file: Path) -> bool:
    """Whether its name says that it is an image."""
    suffix = file.suffix.lower()
    return suffix in HEIC or Image.registered_extensions().get(suffix) in Image.OPEN


def _is_system_file(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def _is_regular(file: Path) -> bool:
    """Not a pipe or a device; a broken link is reported when it is read."""
    return file.is_file() or file.is_symlink()
