"""Fixed splits: which pictures of a data set teach and which examine, the same for everybody.

A picture's name is the end of its path, '<class>/<file>', whatever folder it lies in: a split is the same split whether it comes
as train/ and test/ folders or as lists of names.
"""

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

import yaml

from newcomer.data.examples import Examples
from newcomer.data.io.image_folders import PictureFiles, class_files
from newcomer.errors import DataError

Pictures = Mapping[str, Path]
"""The file of every picture, by name."""


def named(files: Iterable[Path], parts: int = 2) -> Pictures:
    """Files by the last `parts` of their paths.

    >>> named([Path("birds/train/wren/1.jpg")])
    {'wren/1.jpg': PosixPath('birds/train/wren/1.jpg')}
    """
    return {"/".join(file.parts[-parts:]): file for file in files}


def split_folders(root: Path, get: str) -> tuple[Pictures, Pictures]:
    """The pictures of `root/train/<class>/*` and those of `root/test/<class>/*`.

    Raises DataError: see `class_files`.
    """
    return named(class_files(root / "train", get)), named(class_files(root / "test", get))


def read_list(file: Path, get: str, parts: int = 2) -> list[str]:
    """The names in a list: YAML that has paths under `data`, or text with a path a line and, maybe, the number of its class.

    Only the last `parts` of a path count; classes are told by folders, not by numbers. `get` ends the messages.
    Raises DataError for a list that is missing or is none.
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
        raise DataError(f"{file}: not a list of pictures; {get}") from None


def listed(names: Iterable[str], pictures: Pictures, where: Path, get: str) -> Pictures:
    """Those of the pictures that a list names; `where` and `get` begin and end the message.

    Raises DataError for a name without a picture, and for a class without a folder.
    """
    names = set(names)
    if missing := sorted(names - pictures.keys()):
        folder = missing[0].rpartition("/")[0]
        if not any(name.startswith(f"{folder}/") for name in pictures):
            raise DataError(f"{where}: there is no folder '{folder}', whose pictures the split lists; {get}")
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{where}: '{missing[0]}'{more}, which the split lists, is not there; {get}")
    return {name: pictures[name] for name in names}


def digest(train: Collection[str], test: Collection[str]) -> str:
    """SHA-256 of the lines 'train/<name>' and 'test/<name>' in order of their bytes.

    In a folder that holds nothing but train/ and test/: `find train test -type f | LC_ALL=C sort | sha256sum`.
    """
    lines = [f"train/{name}\n" for name in train] + [f"test/{name}\n" for name in test]
    return hashlib.sha256(b"".join(sorted(map(os.fsencode, lines)))).hexdigest()


def fixed_split(
    train: Pictures, test: Pictures, *, where: Path, get: str, sizes: tuple[int, int] | None, sha256: str | None
) -> tuple[Examples, Examples]:
    """Training and test examples in order of their names; the last folder of a name is the class.

    `sizes` says how many pictures each part must have, `sha256` what `digest` must give; None: not asked for.
    Raises DataError for a picture in both parts and for a split that is not the one asked for.
    """
    if both := sorted(train.keys() & test.keys()):
        raise DataError(f"{where}: '{both[0]}' is in the training part and in the test part; {get}")
    if sizes is not None and (len(train), len(test)) != sizes:
        raise DataError(
            f"{where}: {len(train)} training and {len(test)} test pictures instead of {sizes[0]} and {sizes[1]}; "
            f"set data.complete to false if a part is meant, else {get}"
        )
    if sha256 is not None and (found := digest(train, test)) != sha256.lower():
        raise DataError(f"{where}: the split has SHA-256 {found}, data.split_sha256 asks for {sha256}; {get}")
    return _examples(train), _examples(test)


def _examples(pictures: Pictures) -> Examples:
    names = sorted(pictures)
    return Examples(PictureFiles([pictures[name] for name in names]), [name.split("/")[-2] for name in names])


def _without_number(line: str) -> str:
    path, _, number = line.strip().rpartition(" ")
    return path if path and number.isdigit() else line.strip()
