"""Images that decode, to something else than what they show: deep colour, no finite pixel, channels first, beside their class."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from newcomer.data.examples import Examples
from newcomer.data.inputs import as_inputs
from newcomer.data.io.image_decoding import read_image
from newcomer.data.io.image_folders import class_folder
from newcomer.errors import DataError


def deep_png(pixels: np.ndarray) -> bytes:
    """PNG of 16 bits a channel, RGB or grey with alpha, which Pillow cannot write."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 2: 4}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def red(scale: int) -> np.ndarray:
    return np.broadcast_to(np.array([200, 30, 30]) * scale, (16, 16, 3))


def test_colour_of_16_bits_that_uses_them_is_read() -> None:
    assert read_image(deep_png(red(257))).getpixel((3, 3)) == (200, 30, 30)


@pytest.mark.parametrize("scale", [1, 4, 16])
def test_colour_of_fewer_bits_in_16_is_refused(scale: int) -> None:
    """A camera's 12 bits a channel in a 16-bit PNG were read as nearly black."""
    with pytest.raises(DataError, match=r"^photo: 16 bits a channel, of which the upper ones are empty"):
        read_image(deep_png(red(scale)), "photo")
    with pytest.raises(DataError, match="the upper ones are empty"):
        read_image(deep_png(np.stack([red(scale)[..., 0], np.full((16, 16), 65535)], axis=2)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_without_a_finite_pixel_is_refused(value: float, tmp_path: Path) -> None:
    file = tmp_path / "depth.tif"
    Image.fromarray(np.full((8, 8), value, np.float32)).save(file)
    with pytest.raises(DataError, match=r"depth.tif: an image without a finite pixel"):
        read_image(file)


@pytest.mark.parametrize("channels", [3, 4])
def test_one_array_with_channels_first_is_not_a_stack_of_grey_images(channels: int) -> None:
    with pytest.raises(
        DataError, match=rf"^inputs: an array of shape \({channels}, 8, 9\), one image with its channels"
    ):
        as_inputs(np.zeros((channels, 8, 9), np.uint8))
    assert len(as_inputs(np.zeros((5, 8, 9), np.uint8))) == 5
    assert len(as_inputs(list(np.zeros((channels, 8, 9), np.uint8)))) == channels


def test_images_beside_the_class_folders_are_named(tmp_path: Path) -> None:
    for file in ("red/0.png", "blue/0.png", "1.png"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / file)
    (tmp_path / "README.txt").write_text("photos")
    left_out: list[str] = []
    assert class_folder(tmp_path, left_out).labels == ["blue", "red"]
    assert left_out == [
        f"{tmp_path / '1.png'}: an image beside the class folders; move it into the folder of its class"
    ]
    with pytest.raises(DataError, match="beside the class folders"):
        class_folder(tmp_path)


def test_labels_are_one_class_however_they_are_spelled() -> None:
    """One table had booleans, the next their texts; a web form added a zero-width space."""
    assert Examples(["a", "b", "c"], [True, "True", "true"]).classes == ["true"]
    assert Examples(["a", "b", "c"], ["cat", "cat\u200b", "\ufeffcat"]).classes == ["cat"]
