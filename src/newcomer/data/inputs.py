"""Inputs of a classifier in any form: texts, images, paths, arrays, encoded bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL.Image import Image

from newcomer.data.containers import SCALAR_TYPES, as_list, is_missing, to_python
from newcomer.data.io.image_decoding import PILImage, from_array, read_image, to_rgb
from newcomer.data.paths import path_exists
from newcomer.errors import DataError

Input = PILImage | str | Path
"""Input of a class learner: an image, the path of one, or a text."""

EAGER = (list, tuple)
"""Containers whose elements are checked at once; other sequences may load lazily and are checked when indexed."""


@dataclass(frozen=True)
class Query:
    """One input of a command, with its name in the output."""

    name: str
    """File, text, or position in a file where a text is missing."""
    input: str | Path
    problem: str = ""
    """Error message if the input is already known to be invalid; it begins with the position."""


def is_single(given: Any) -> bool:
    """Whether this is a single input: a text, path, image, encoded bytes, or the array of one image.

    >>> is_single("my card"), is_single(["my card"]), is_single(np.zeros((8, 8, 3), np.uint8))
    (True, False, True)
    """
    if isinstance(given, np.ndarray):
        return _is_image(given) or not given.ndim
    return isinstance(given, SCALAR_TYPES) or _is_open_file(given)


def as_inputs(given: Any, what: str = "inputs") -> Sequence[Any]:
    """Sequence of inputs; lists and tuples are checked at once, lazy sequences when they are indexed.

    Raises DataError for a single input, a non-sequence, and an element that is missing or neither text nor image.
    """
    if isinstance(given, np.ndarray) and given.ndim > 1:  # a stack of images
        _require_no_channels_first(given, what)
        given = list(given)
    if _is_open_file(given):
        raise DataError(f"{what}: one open file, where a list was expected; give a list of files")
    if isinstance(given, Sequence) and not isinstance(given, SCALAR_TYPES) and type(given) not in EAGER:
        return given
    return [_checked(one, f"{what}[{index}]") for index, one in enumerate(as_list(given, what))]


def load_input(one: Any, images: bool, where: str) -> Any:
    """Load one input for a model: for an image model, open a path, bytes or array; texts are then paths.

    Raises DataError for an input that is missing, empty or unreadable.
    """
    one = _checked(one, where)
    if not images:
        if isinstance(one, bytes):
            raise DataError(f"{where}: bytes, but this model reads texts; decode them")
        if isinstance(one, str) and not one.isascii():
            try:
                one.encode()
            except UnicodeEncodeError:
                raise DataError(f"{where}: {one[:40]!a} holds half of a surrogate pair; give valid Unicode") from None
        return one
    if isinstance(one, Image):
        return one if one.mode == "RGB" and not one.info else to_rgb(one, where)
    if isinstance(one, bytes):
        return read_image(one, where)
    if isinstance(one, np.ndarray):
        return from_array(one, where)
    path = Path(one)
    if not path_exists(path):
        meant = (
            ", but was given a str; give the path of an image, or use a text encoder" if isinstance(one, str) else ""
        )
        raise DataError(f"{_shortened(path)}: no such file; this model reads images{meant}")
    return read_image(path)


class LoadedInputs(Sequence[Any]):
    """Inputs that are loaded when they are indexed: see `load_input`."""

    def __init__(self, inputs: Sequence[Any], images: bool) -> None:
        self.inputs, self.images = inputs, images

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # one rule for an index and a slice
        if isinstance(index, slice):
            return LoadedInputs(self.inputs[index], self.images)
        return load_input(self.inputs[index], self.images, f"inputs[{index}]")


def _checked(one: Any, where: str) -> Any:
    """Check one input: a text, image, path, bytes or the array of an image."""
    one = to_python(one)
    if isinstance(one, str) and not one.strip():
        raise DataError(f"{where}: an empty text; remove it")
    if _is_open_file(one):
        return _content(one, where)
    if is_missing(one):
        raise DataError(f"{where}: missing value; give a text or an image, or remove it")
    if isinstance(one, PurePath) and not isinstance(one, Path):
        return Path(one)
    if isinstance(one, (bytearray, memoryview)):
        return bytes(one)
    if isinstance(one, (str, Path, Image, bytes)):
        return one
    if isinstance(one, np.ndarray) and one.ndim in (2, 3):
        return one
    raise DataError(f"{where}: neither a text nor an image, but of type {type(one).__name__}")


def _is_open_file(given: Any) -> bool:
    """Whether this is an open file or has its `read` method."""
    return callable(getattr(given, "read", None))


def _content(file: Any, where: str) -> bytes:
    """Content of an open binary file, from its beginning if it can seek.

    Raises DataError for a closed file and for one opened as text.
    """
    try:
        if getattr(file, "seekable", bool)():
            file.seek(0)
        content = file.read()
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: an open file that cannot be read ({error}); give its path") from None
    if not isinstance(content, bytes):
        raise DataError(f"{where}: a file opened as text; open it with 'rb', or give its path")
    return content


def _is_image(array: np.ndarray[Any, Any]) -> bool:
    return array.dtype != object and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4)))


def _require_no_channels_first(array: np.ndarray[Any, Any], what: str) -> None:
    """Raises DataError for 3 × height × width or 4 × height × width: more often one image than three or four grey ones."""
    if array.ndim == 3 and array.shape[0] in (3, 4) and min(array.shape[1:]) > 4:
        raise DataError(
            f"{what}: an array of shape {array.shape}, one image with its channels first or {array.shape[0]} grey images; give "
            "height × width × channels, or a list of arrays"
        )


def _shortened(path: Path, limit: int = 200) -> str:
    text = str(path)
    return text if len(text) <= limit else text[:limit] + "…"
