"""Image decoding: any file format to 8-bit RGB, the same for all callers.

- *Orientation*: the EXIF orientation is applied.
- *Transparency* is composited on white.
- *More than 8 bits* (16- or 32-bit grey, floats): see `to_bytes`. The scale depends on this image alone, so decoding does not
  depend on the batch. Colour of 16 bits a channel is decoded to its upper 8; one that leaves these nearly empty, such as 12-bit
  values in a 16-bit file, is rejected.
- *Animations*: the first frame. Colour profiles are not applied.
- *Size*: an image of more than `LARGE_PIXELS` pixels is reduced, its shorter side to at least `MIN_SHORTER_SIDE`: a JPEG during
  decoding, others by box averaging. More than `MAX_PIXELS` pixels are rejected. Large images are decoded one at a time.

Ordinary images (8-bit grey or RGB, without orientation or transparency) are decoded to exactly Pillow's bits.
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

PILImage = Image.Image

LARGE_PIXELS = 4_000_000
"""Larger images are reduced, and decoded one at a time."""
MIN_SHORTER_SIDE = 1024
"""Minimum length in pixels of the shorter side of a reduced image: twice the input size of common backbones."""
MAX_PIXELS = 64_000_000
"""Maximum number of pixels that are decoded; 256 MB."""

TIFF_PHOTOMETRIC = 0x0106
ORIENTATION = 0x0112
ORIENTATION_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Operation that undoes each value of the EXIF orientation; 1 is upright."""

SCALE_QUANTILE = 0.999
"""Share of pixels within the intensity scale of a deep image: a few hot pixels do not darken the rest."""

HEIC = {".heic", ".heif"}
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
"""Brands after 'ftyp' in bytes 8 to 12 of a HEIC file, whatever its name."""

SAMPLE = 2**20
"""Number of evenly spaced pixels from which the scale of a deep image is estimated."""

DARKEST_DEEP = 64
"""A colour image of 16 bits a channel whose upper 8 bits stay below this holds at most 14 bits."""

ROWS = 256
"""Rows of a deep image that are converted at once."""

_large_image_lock = Lock()


class _UnsuitableError(Exception):
    """A valid image whose pixels cannot be shown in 8 bits."""


def read_image(source: Path | bytes, name: str | None = None) -> PILImage:
    """Decode an image as RGB from a file or from encoded bytes; `name` stands in error messages for bytes.

    Raises DataError, with the file, for one that is truncated, too large or not an image.
    """
    where = name or (str(source) if isinstance(source, Path) else "image")
    with decoding_errors(where, source), _stream(source) as stream, Image.open(stream) as image:
        _draft_if_large(image)
        with _exclusive(image):
            return _decode_rgb(image)


def _stream(source: Path | bytes) -> BinaryIO:
    """Pillow memory-maps some formats when opened by path, and then transposes rotated ones wrongly."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def to_rgb(image: PILImage, where: str = "image") -> PILImage:
    """Convert a caller's image to RGB, upright and without transparency; the original is not changed.

    Raises DataError if it cannot be decoded or was closed.
    """
    with decoding_errors(where):
        return _decode_rgb(image)


def from_array(pixels: NDArray[Any], where: str = "image") -> PILImage:
    """Image of an array: height × width, or height × width × 1, 3 (RGB) or 4 (RGBA), in uint8; or 16-bit grey.

    >>> from_array(np.zeros((5, 6, 3), np.uint8)).size
    (6, 5)

    Raises DataError for another shape or dtype.
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
    """Raises DataError for a file without an image header, and for a folder."""
    if file.is_dir():
        raise DataError(f"{file}: a folder, where images of one class are expected; move its images up, or remove it")
    with decoding_errors(str(file), file), _stream(file) as stream, Image.open(stream):
        pass


def check_image(file: Path) -> None:
    """Raises DataError for a file that cannot be decoded completely or is too large; decodes at the smallest size the format
    allows."""
    with decoding_errors(str(file), file), _stream(file) as stream, Image.open(stream) as image:
        if not _is_large(image):
            image.draft(None, (1, 1))  # decode a JPEG at 1/8 of its size, to its end
        _draft_if_large(image)
        _require_max_pixels(image)
        with _exclusive(image):
            _load(image)


@contextmanager
def decoding_errors(where: str, source: Path | bytes = b"") -> Iterator[None]:
    """Convert any decoding error to a one-line DataError with the file, and its format if the header of `source` tells."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # odd metadata is irrelevant
            yield
    except DataError:
        raise
    except _UnsuitableError as error:
        raise DataError(f"{where}: {error}") from None
    except (UnidentifiedImageError, IsADirectoryError):
        if Path(where).suffix.lower() in HEIC or _is_heic(source):
            raise DataError(f"{where}: HEIC images are not supported; convert it to JPEG") from None
        raise DataError(f"{where}: not a readable image; remove it or replace it") from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{where}: too many pixels; make it smaller, {MAX_PIXELS // 1_000_000} megapixels at most"
        ) from None
    except Exception as error:  # decoders raise arbitrary exceptions
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{where}: a damaged image ({reason}); remove it or replace it") from None


def _is_heic(source: Path | bytes) -> bool:
    if isinstance(source, bytes):
        return source[4:8] == b"ftyp" and source[8:12] in HEIC_BRANDS
    try:
        with source.open("rb") as stream:
            return _is_heic(stream.read(12))
    except OSError:
        return False


def to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert grey images of more than 8 bits, or floats, to uint8.

    - Integers that are 8-bit values times 257 or 256 are restored.
    - Other non-negative integers: black is 0, white the maximum of the smallest bit depth (at least 8) that holds all but a
      thousandth of the pixels: 12 bits for a 12-bit camera, whatever the width of the file. Brighter pixels are white.
    - Pixels that are NaN or infinite are black.
    - Floats in [0, 1] (resampling may overshoot): 1 is white. Up to 16: white is the 0.999 quantile. Above: like integers.
    - With negative numbers: from the 0.001 quantile to the 0.999 quantile.

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
    low, high = _black_and_white(values, whole)
    scaled = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), ROWS):
        rows = slice(start, start + ROWS)
        scaled[rows] = np.clip(np.round((values[rows].astype(np.float64) - low) * (255 / (high - low))), 0, 255)
    return scaled


def _black_and_white(values: NDArray[Any], whole: bool) -> tuple[float, float]:
    """Intensities of black and white."""
    flat = values.reshape(-1)
    flat = flat[:: -(-flat.size // SAMPLE)]
    low, high = (float(x) for x in np.quantile(flat, [1 - SCALE_QUANTILE, SCALE_QUANTILE], method="nearest"))
    if not whole and low > -0.5 and high < 1.5:
        return 0.0, 1.0
    if low < 0:
        return low, max(high, low + 1e-30 + abs(low) * 1e-12)
    if whole or high > 16:
        return 0.0, float(2 ** max(8, int(high).bit_length()) - 1)
    return 0.0, high


def _decode_rgb(image: PILImage) -> PILImage:
    _require_max_pixels(image)
    _load(image)
    turn = ORIENTATION_TRANSPOSES.get(_orientation(image))
    rgb = _to_rgb8(image)
    if turn is not None:
        rgb = rgb.transpose(turn)
    rgb.info = {}  # orientation and transparency have been applied
    return rgb


def _load(image: PILImage) -> None:
    """Decode completely. Raises _UnsuitableError for 16-bit colour whose upper 8 bits are nearly empty, and for no finite pixel."""
    deep = image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    image.load()
    if deep and max(high for _, high in _colours(image).getextrema()) < DARKEST_DEEP:
        raise _UnsuitableError("16 bits a channel, of which the upper ones are empty; convert it to 8 bits a channel")
    if image.mode == "F" and not np.isfinite(np.asarray(image)).any():
        raise _UnsuitableError("an image without a finite pixel; remove it or replace it")


def _colours(image: PILImage) -> Any:
    return image.convert("RGB") if image.mode != "RGB" else image


def _to_rgb8(image: PILImage) -> PILImage:
    """Convert to RGB of 8 bits, reduced if large."""
    transparent_value = image.info.get("transparency")
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        values = np.asarray(image)
        if _is_inverted(image):
            values = np.iinfo(values.dtype).max - values
        grey = to_bytes(values)
        if isinstance(transparent_value, int):
            grey = np.where(values == transparent_value, np.uint8(255), grey)
        return _reduce(Image.fromarray(grey)).convert("RGB")
    transparent = image.has_transparency_data
    if transparent_value is None and image.mode in ("L", "RGB", "CMYK", "RGBA"):
        image = _reduce(image)  # before the conversion copies it
    if not transparent:
        return _reduce(image.convert("RGB"))
    rgba = _reduce(image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA"))
    if rgba.getchannel("A").getextrema() == (255, 255):
        return rgba.convert("RGB")
    white = Image.new("RGBA", rgba.size, "white")
    white.alpha_composite(rgba)
    return white.convert("RGB")


def _is_inverted(image: PILImage) -> bool:
    """Whether 0 is white (TIFF PhotometricInterpretation 0), which Pillow ignores for 16 bits."""
    tags = getattr(image, "tag_v2", {})
    return image.mode.startswith("I;16") and tags.get(TIFF_PHOTOMETRIC) == 0


def _reduce(image: PILImage) -> PILImage:
    """Reduce a large image by box averaging with an integer factor, as far as the shorter side allows."""
    factor = min(image.size) // MIN_SHORTER_SIDE if _is_large(image) else 1
    return image.reduce(factor) if factor > 1 else image


def _orientation(image: PILImage) -> int:
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # the EXIF is damaged, the pixels may not be
        return 1
    return found if isinstance(found, int) else 1


def _is_large(image: PILImage) -> bool:
    return image.width * image.height > LARGE_PIXELS


def _exclusive(image: PILImage) -> AbstractContextManager[object]:
    """Context in which no other large image is decoded."""
    return _large_image_lock if _is_large(image) else nullcontext()


def _draft_if_large(image: PILImage) -> None:
    """Decode a large JPEG at reduced size."""
    if _is_large(image):
        image.draft(None, (MIN_SHORTER_SIDE, MIN_SHORTER_SIDE))  # None: keep the mode


def _require_max_pixels(image: PILImage) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
