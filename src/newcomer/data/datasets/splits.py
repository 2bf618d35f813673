"""Fixed train/test splits of image data sets.

An image is named by the end of its path, '<class>/<file>', in any folder: the split is the same whether it comes as train/ and
test/ folders or as lists of names.
"""

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

import yaml

from newcomer.data.examples import Examples
from newcomer.data.io.image_folders import ImageFiles, class_files
from newcomer.errors import DataError

ImagesByName = Mapping[str, Path]
"""Files of images by name."""


def by_name(files: Iterable[Path], parts: int = 2) -> ImagesByName:
    """Index files by the last `parts` components of their paths.

    >>> by_name([Path("birds/train/wren/1.jpg")])
    {'wren/1.jpg': PosixPath('birds/train/wren/1.jpg')}
    """
    return {"/".join(file.parts[-parts:]): file for file in files}


def split_folders(root: Path, get: str) -> tuple[ImagesByName, ImagesByName]:
    """Images in `root/train/<class>/*` and in `root/test/<class>/*`.

    Raises DataError: see `class_files`.
    """
    return by_name(class_files(root / "train", get)), by_name(class_files(root / "test", get))


def read_list(file: Path, get: str, parts: int = 2) -> list[str]:
    """Read names from a list: YAML with paths under `data`, or text with one path per line, optionally followed by a class
    number.

    Only the last `parts` components of a path are used; the folder, not the number, gives the class. `get` ends the error
    messages. Raises DataError for a missing or invalid list.
    """
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".yaml":
            paths = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["data"]
        else:
            paths = [_without_number(line) for line in text.splitlines() if line.strip()]
        return ["/".join(PurePosixPath(path).parts[-parts:]) for path in paths]
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; {get}") from None
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        raise DataError(f"{file}: not a list of images; {get}") from None


def select_listed(names: Iterable[str], images: ImagesByName, where: Path, get: str) -> ImagesByName:
    """Images that a list names; `where` and `get` begin and end the error message.

    Raises DataError for a name without an image, and for a class without a folder.
    """
    names = set(names)
    if missing := sorted(names - images.keys()):
        folder = missing[0].rpartition("/")[0]
        if not any(name.startswith(f"{folder}/") for name in images):
            raise DataError(f"{where}: no folder '{folder}', whose images the split lists; {get}")
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{where}: '{missing[0]}'{more} of the split's list is missing; {get}")
    return {name: images[name] for name in names}


def digest(train: Collection[str], test: Collection[str]) -> str:
    """SHA-256 of the lines 'train/<name>' and 'test/<name>', sorted by bytes.

    In a folder with only train/ and test/: `find train test -type f | LC_ALL=C sort | sha256sum`.
    """
    lines = [f"train/{name}\n" for name in train] + [f"test/{name}\n" for name in test]
    return hashlib.sha256(b"".join(sorted(map(os.fsencode, lines)))).hexdigest()


def fixed_split(
    train: ImagesByName, test: ImagesByName, *, where: Path, get: str, sizes: tuple[int, int] | None, sha256: str | None
) -> tuple[Examples, Examples]:
    """Training and test examples sorted by name; the last folder of a name is the class, the one before it, if any, the domain.

    `sizes`: expected numbers of images, `sha256`: expected `digest`; None: not checked. Raises DataError for an image in both
    parts and for another split than expected.
    """
    if both := sorted(train.keys() & test.keys()):
        raise DataError(f"{where}: '{both[0]}' is in both the training and the test set; {get}")
    if sizes is not None and (len(train), len(test)) != sizes:
        raise DataError(
            f"{where}: {len(train)} training and {len(test)} test images instead of {sizes[0]} and {sizes[1]}; "
            f"set data.complete to false to use a part, else {get}"
        )
    if sha256 is not None and (found := digest(train, test)) != sha256.lower():
        raise DataError(f"{where}: the split has SHA-256 {found}, data.split_sha256 asks for {sha256}; {get}")
    return _examples(train), _examples(test)


def _examples(images: ImagesByName) -> Examples:
    names = sorted(images)
    folders = [name.split("/")[:-1] for name in names]
    return Examples(
        ImageFiles([images[name] for name in names]),
        [parts[-1] for parts in folders],
        domains=[parts[-2] for parts in folders if len(parts) > 1],
    )


def _without_number(line: str) -> str:
    path, _, number = line.strip().rpartition(" ")
    return path if path and number.isdigit() else line.strip()
