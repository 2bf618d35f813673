"""One reader for every picture: as its owner sees it, in RGB of 8 bits a channel, whoever asks and whatever the file holds.

- *Orientation.* The EXIF orientation is applied: what a phone held upright is upright.
- *Transparency* is laid on white.
- *More than 8 bits* (grey of 16 or 32 bits, floats): see `to_bytes`. A picture's own numbers decide, so that it is read alike
  alone and among others.
- *Animations* are their first picture. Colour profiles are not applied.
- *Size.* A picture of more than `BIG` pixels is made smaller, its shorter side never below `SHORTER`: a JPEG while it is decoded,
  others by the mean of their pixels. What is more than `MOST` pixels when it is decoded is refused. Of big pictures one is
  decoded at a time.

Ordinary pictures (grey or RGB of 8 bits, without orientation or transparency) give the bits that they always had.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from newcomer.errors import DataError

Picture = Image.Image

BIG = 4_000_000
"""Pixels: what has more is made smaller, and never decoded beside another one."""
SHORTER = 1024
"""Pixels of the shorter side that remain of a big picture: twice what backbones read."""
MOST = 64_000_000
"""Pixels that are decoded at all; 256 MB."""

TIFF_PHOTOMETRIC = 0x0106
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each value of the EXIF orientation; 1 is upright."""

TYPICAL = 0.999
"""Share of the pixels that the scale of a deep picture must hold: a few hot pixels do not darken the rest."""

HEIC = {".heic", ".heif"}

SAMPLE = 2**20
"""Pixels that the scale of a deep picture is found from; of more, evenly spaced ones."""

ROWS = 256
"""Rows of a deep picture that are scaled at once."""

_one_big = Lock()


def read_picture(source: Path | bytes, name: str | None = None) -> Picture:
    """A picture as RGB, from a file or from its bytes; `name` stands in the message for bytes.

    Raises DataError that names a file that is truncated, too large or no picture.
    """
    where = name or (str(source) if isinstance(source, Path) else "picture")
    with named(where), _stream(source) as stream, Image.open(stream) as picture:
        _smaller(picture)
        with _alone(picture):
            return _rgb(picture)


def _stream(source: Path | bytes) -> BinaryIO:
    """By a path Pillow maps some files into memory, and then turns those that lie on their side wrongly."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def to_rgb(picture: Picture, where: str = "picture") -> Picture:
    """A picture of a caller as RGB, upright and without transparency; the caller's own stays as it is.

    Raises DataError where it cannot be decoded, or was closed.
    """
    with named(where):
        return _rgb(picture)


def from_array(pixels: NDArray[Any], where: str = "picture") -> Picture:
    """The picture of an array: height × width, or height × width × 1, 3 (RGB) or 4 (RGBA), in bytes; or grey of 16 bits.

    >>> from_array(np.zeros((5, 6, 3), np.uint8)).size
    (6, 5)

    Raises DataError for another layout or type.
    """
    grey = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 1)
    right = pixels.dtype == np.uint8 or (grey and pixels.dtype in (np.uint16, np.bool_))
    if not pixels.size or not right or not (grey or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise DataError(
            f"{where}: an array of {pixels.dtype} of shape {pixels.shape}; give uint8 of height × width × 3 (RGB), 4 (RGBA) or 1"
        )
    flat = pixels[:, :, 0] if pixels.ndim == 3 and grey else pixels
    return to_rgb(Image.fromarray(np.ascontiguousarray(flat)), where)


def check_header(file: Path) -> None:
    """Raises DataError for a file that does not begin as a picture does."""
    with named(str(file)), _stream(file) as stream, Image.open(stream):
        pass


def check_picture(file: Path) -> None:
    """Raises DataError for a file that cannot be decoded to its end, or is too large; as small as its format allows."""
    with named(str(file)), _stream(file) as stream, Image.open(stream) as picture:
        if not _is_big(picture):
            picture.draft(None, (1, 1))  # a JPEG at an eighth of its size, read to its end
        _smaller(picture)
        _limited(picture)
        with _alone(picture):
            picture.load()


@contextmanager
def named(where: str) -> Iterator[None]:
    """What goes wrong with a picture becomes one line that says with which."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # odd metadata, which nobody asked for
            yield
    except DataError:
        raise
    except (UnidentifiedImageError, IsADirectoryError):
        if Path(where).suffix.lower() in HEIC:
            raise DataError(f"{where}: HEIC pictures are not read; convert it to JPEG") from None
        raise DataError(f"{where}: not a picture that can be read; remove it or replace it") from None
    except Image.DecompressionBombError:
        raise DataError(f"{where}: too many pixels; make it smaller, {MOST // 1_000_000} megapixels at most") from None
    except Exception as error:  # decoders fail in every way there is
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{where}: a damaged picture ({reason}); remove it or replace it") from None


def to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey of more than 8 bits, or in floats, as bytes.

    - Whole numbers that are bytes written twice (v · 257) or moved up (v · 256) are those bytes again.
    - Other whole numbers from 0 on: 0 is black, white is the highest number of so many bits, 8 at least, as hold all but a
      thousandth of the pixels: of 12 bits for a camera of 12 bits, whatever the file's width. What is above is white.
    - Floats within 0 and 1 (a resampling may overshoot): 1 is white. Up to 16: white is where all but a thousandth end. Above: as
      whole numbers.
    - With numbers below 0: from the lowest to the highest, but for a thousandth at each end.

    >>> to_bytes(np.array([[0, 2047, 4095]])).tolist(), to_bytes(np.array([[0, 257 * 200]])).tolist()
    ([[0, 127, 255]], [[0, 200]])
    >>> to_bytes(np.array([[0.0, 0.5, 1.0]])).tolist()
    [[0, 128, 255]]
    """
    whole = np.issubdtype(values.dtype, np.integer)
    if not whole:
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    elif values.min() >= 0 and values.max() < 2**16:
        for step in (257, 256):
            if not (values % step).any():
                return np.asarray(values // step).astype(np.uint8)
    low, high = _range(values, whole)
    scaled = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), ROWS):
        rows = slice(start, start + ROWS)
        scaled[rows] = np.clip(np.round((values[rows].astype(np.float64) - low) * (255 / (high - low))), 0, 255)
    return scaled


def _range(values: NDArray[Any], whole: bool) -> tuple[float, float]:
    """What is black, and what is white."""
    flat = values.reshape(-1)
    flat = flat[:: -(-flat.size // SAMPLE)]
    low, high = (float(x) for x in np.quantile(flat, [1 - TYPICAL, TYPICAL], method="nearest"))
    if not whole and low > -0.5 and high < 1.5:
        return 0.0, 1.0
    if low < 0:
        return low, max(high, low + 1e-30 + abs(low) * 1e-12)
    if whole or high > 16:
        return 0.0, float(2 ** max(8, int(high).bit_length()) - 1)
    return 0.0, high


def _rgb(picture: Picture) -> Picture:
    _limited(picture)
    picture.load()
    turn = TURNS.get(_orientation(picture))
    rgb = _eight_bit_rgb(picture)
    if turn is not None:
        rgb = rgb.transpose(turn)
    rgb.info = {}  # what it says of orientation and transparency is done
    return rgb


def _eight_bit_rgb(picture: Picture) -> Picture:
    """A new picture, as RGB, a big one smaller."""
    hidden = picture.info.get("transparency")
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        values = np.asarray(picture)
        if _is_inverted(picture):
            values = np.iinfo(values.dtype).max - values
        grey = to_bytes(values)
        if isinstance(hidden, int):
            grey = np.where(values == hidden, np.uint8(255), grey)
        return _reduced(Image.fromarray(grey)).convert("RGB")
    transparent = picture.has_transparency_data
    if hidden is None and picture.mode in ("L", "RGB", "CMYK", "RGBA"):
        picture = _reduced(picture)  # before it is copied in another mode
    if not transparent:
        return _reduced(picture.convert("RGB"))
    rgba = _reduced(picture.convert("LA").convert("RGBA") if picture.mode == "La" else picture.convert("RGBA"))
    if rgba.getchannel("A").getextrema() == (255, 255):
        return rgba.convert("RGB")
    white = Image.new("RGBA", rgba.size, "white")
    white.alpha_composite(rgba)
    return white.convert("RGB")


def _is_inverted(picture: Picture) -> bool:
    """Whether 0 is white, which Pillow leaves to its caller in a TIFF of 16 bits (PhotometricInterpretation 0)."""
    tags = getattr(picture, "tag_v2", {})
    return picture.mode.startswith("I;16") and tags.get(TIFF_PHOTOMETRIC) == 0


def _reduced(picture: Picture) -> Picture:
    """A big picture with the mean of so many pixels each way for one, as long as the shorter side allows."""
    factor = min(picture.size) // SHORTER if _is_big(picture) else 1
    return picture.reduce(factor) if factor > 1 else picture


def _orientation(picture: Picture) -> int:
    try:
        found = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged EXIF says nothing; the picture may be whole
        return 1
    return found if isinstance(found, int) else 1


def _is_big(picture: Picture) -> bool:
    return picture.width * picture.height > BIG


def _alone(picture: Picture) -> AbstractContextManager[object]:
    """No other big picture is decoded at the same time."""
    return _one_big if _is_big(picture) else nullcontext()


def _smaller(picture: Picture) -> None:
    """Have a big JPEG decoded at a part of its size."""
    if _is_big(picture):
        picture.draft(None, (SHORTER, SHORTER))  # None: in its own mode


def _limited(picture: Picture) -> None:
    if picture.width * picture.height > MOST:
        raise Image.DecompressionBombError
