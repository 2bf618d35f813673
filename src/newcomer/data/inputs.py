"""What a classifier is asked about, in whatever form it is handed over: texts, pictures, paths, arrays, bytes of files."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL.Image import Image

from newcomer.data.containers import SINGLE, as_list, is_missing, plain
from newcomer.data.io.image_decoding import Picture, from_array, read_picture, to_rgb
from newcomer.data.paths import is_there
from newcomer.errors import DataError

Input = Picture | str | Path
"""What a class learner is shown: a picture, the path of one, or a text."""

READ_AHEAD = (list, tuple)
"""Containers that are looked through at once; other sequences may read from disk, and are left alone until they are asked."""


@dataclass(frozen=True)
class Asked:
    """One thing that a command was asked about."""

    name: str
    """What it is called in an answer: a file, a text, or the place in a file where a text is missing."""
    input: str | Path
    problem: str = ""
    """Why it cannot be answered, where that is known already; it begins with where it is."""


def is_single(given: Any) -> bool:
    """Whether this is one input and not many: a text, a path, a picture, the bytes of a file, or the array of one picture.

    >>> is_single("my card"), is_single(["my card"]), is_single(np.zeros((8, 8, 3), np.uint8))
    (True, False, True)
    """
    if isinstance(given, np.ndarray):
        return _is_picture(given) or not given.ndim
    return isinstance(given, SINGLE)


def as_inputs(given: Any, what: str = "inputs") -> Sequence[Any]:
    """Many inputs, each by its place; lists are looked through now, sequences that may read from disk when they are asked.

    Raises DataError for a single input, for no sequence, and for what is neither text nor picture or is missing.
    """
    if isinstance(given, np.ndarray) and given.ndim > 1:  # a stack of pictures
        given = list(given)
    if isinstance(given, Sequence) and not isinstance(given, SINGLE) and type(given) not in READ_AHEAD:
        return given
    return [_known(one, f"{what}[{place}]") for place, one in enumerate(as_list(given, what))]


def opened(one: Any, pictures: bool, where: str) -> Any:
    """One input as a model takes it: of one that reads pictures a path, bytes and an array are opened, texts are paths.

    Raises DataError for what is missing, empty or cannot be read.
    """
    one = _known(one, where)
    if not pictures:
        if isinstance(one, str) and not one.isascii():
            try:
                one.encode()
            except UnicodeEncodeError:
                raise DataError(f"{where}: {one[:40]!a} holds half of a character; give whole ones") from None
        return one
    if isinstance(one, Image):
        return one if one.mode == "RGB" and not one.info else to_rgb(one, where)
    if isinstance(one, bytes):
        return read_picture(one, where)
    if isinstance(one, np.ndarray):
        return from_array(one, where)
    path = Path(one)
    if not is_there(path):
        meant = ", but was given a str" if isinstance(one, str) else ""
        raise DataError(f"{_shortened(path)}: no such file; this model reads pictures{meant}")
    return read_picture(path)


class Opened(Sequence[Any]):
    """Inputs that are opened when they are asked for: see `opened`."""

    def __init__(self, inputs: Sequence[Any], pictures: bool) -> None:
        self.inputs, self.pictures = inputs, pictures

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # one rule for an index and a slice
        if isinstance(index, slice):
            return Opened(self.inputs[index], self.pictures)
        return opened(self.inputs[index], self.pictures, f"inputs[{index}]")


def _known(one: Any, where: str) -> Any:
    """A text, a picture, a path, bytes or the array of a picture."""
    one = plain(one)
    if isinstance(one, str) and not one.strip():
        raise DataError(f"{where}: an empty text; leave it out")
    if is_missing(one):
        raise DataError(f"{where}: nothing there; give a text or a picture, or leave it out")
    if isinstance(one, PurePath) and not isinstance(one, Path):
        return Path(one)
    if isinstance(one, io.IOBase):
        return _content(one, where)
    if isinstance(one, (bytearray, memoryview)):
        return bytes(one)
    if isinstance(one, (str, Path, Image, bytes)):
        return one
    if isinstance(one, np.ndarray) and one.ndim in (2, 3):
        return one
    raise DataError(f"{where}: neither a text nor a picture, but of type {type(one).__name__}")


def _content(file: Any, where: str) -> bytes:
    """All of an open file, which stays at its end.

    Raises DataError for one that is closed or was opened as text.
    """
    try:
        content = file.read()
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: an open file that cannot be read ({error}); give its path") from None
    if not isinstance(content, bytes):
        raise DataError(f"{where}: a file opened as text; open it with 'rb', or give its path")
    return content


def _is_picture(array: np.ndarray[Any, Any]) -> bool:
    return array.dtype != object and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4)))


def _shortened(path: Path, limit: int = 200) -> str:
    text = str(path)
    return text if len(text) <= limit else text[:limit] + "…"
