"""Folders of pictures: `root/{train,test}/<class>/<any name>`."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from newcomer.data.examples import Examples, Picture
from newcomer.data.places import locate
from newcomer.errors import DataError

LITTER = {"Thumbs.db", "desktop.ini"}
"""What file managers leave behind; hidden files are passed over as well."""

LAYOUT = "lay the pictures out as {path}/train/<class>/* and {path}/test/<class>/*"


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


def read_picture(source: Path | bytes, name: str | None = None) -> Picture:
    """A picture as RGB, from a file or from its bytes; `name` stands in the message for bytes.

    Raises DataError that names a file that is truncated or no picture.
    """
    where = name or (str(source) if isinstance(source, Path) else "picture")
    with _named(where), Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
        return picture.convert("RGB")


def class_folder(root: Path) -> Examples:
    """Every folder in `root` is a class, every file in it one of its pictures; both in order of their names.

    Headers are looked at now, pixels when a picture is asked for.
    Raises DataError for a class without pictures and for a file that is none.
    """
    files = class_files(root, LAYOUT.format(path=root.parent))
    for file in files:
        check_header(file)
    return Examples(PictureFiles(files), [file.parent.name for file in files])


def class_files(root: Path, get: str) -> list[Path]:
    """What lies in the class folders of `root`, in order of their names; no file is opened. `get` ends the messages.

    Raises DataError for a folder that is missing or has no class folders, and for a class without pictures.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; {get}")
    found: list[Path] = []
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        files = sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name not in LITTER)
        if not files:
            raise DataError(f"{folder}: a class without pictures; add some or remove the folder")
        found += files
    if not found:
        raise DataError(f"{root}: holds no class folders; {get}")
    return found


def image_folder(path: str) -> tuple[Examples, Examples]:
    """Training and test examples of `path/train/<class>/*` and `path/test/<class>/*`.

    Raises DataError: see `class_folder`.
    """
    root = locate(path, "a folder of pictures", LAYOUT.format(path=path))
    return class_folder(root / "train"), class_folder(root / "test")


def check_header(file: Path) -> None:
    """Raises DataError for a file that does not begin as a picture does."""
    with _named(str(file)), Image.open(file):
        pass


@contextmanager
def _named(where: str) -> Iterator[None]:
    """What goes wrong with a picture becomes one line that says with which."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # odd metadata, which nobody asked for
            yield
    except (UnidentifiedImageError, IsADirectoryError):
        raise DataError(f"{where}: not a picture that can be read; remove it or replace it") from None
    except Exception as error:  # decoders fail in every way there is
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{where}: a damaged picture ({reason}); remove it or replace it") from None
