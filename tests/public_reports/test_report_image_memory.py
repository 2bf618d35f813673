"""Memory of big images: decoded to the size that is needed, one at a time, up to a stated number of pixels."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from newcomer.data.io.image_decoding import MAX_PIXELS, check_image, read_image
from newcomer.errors import DataError

MEASURED = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from newcomer.data.io.image_decoding import read_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ThreadPoolExecutor(8) as pool:
    kept = list(pool.map(read_image, [Path(sys.argv[1])] * 8))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def megabytes(file: Path) -> float:
    """What eight threads need that read this image at once, and keep what they have read."""
    done = subprocess.run([sys.executable, "-c", MEASURED, str(file)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def photograph(width: int, height: int) -> Image.Image:
    small = np.random.default_rng(0).integers(0, 255, (height // 40, width // 40, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)


def test_photographs_of_twelve_megapixels_take_little_memory(tmp_path: Path) -> None:
    """A user asked about 32 photographs of a phone at once: they took 4.5 GB."""
    photograph(4000, 3000).save(tmp_path / "a.jpg", quality=80)
    assert read_image(tmp_path / "a.jpg").size == (2000, 1500)
    assert megabytes(tmp_path / "a.jpg") < 8 * 12 + 80


def test_small_files_of_many_pixels_take_little_memory(tmp_path: Path) -> None:
    """A user asked about eight PNGs of 8 kB: they took 6.2 GB."""
    Image.new("L", (8000, 7000), 200).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert (read.mode, min(read.size) >= 1024, read.getpixel((5, 5))) == ("RGB", True, (200, 200, 200))
    assert megabytes(tmp_path / "a.png") < 250


def test_more_pixels_than_the_limit_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    """A decompression bomb: a file of a few bytes that would fill the memory."""
    for side in (9000, 14000, 30000):
        assert side * side > MAX_PIXELS
        Image.new("1", (side, side)).save(tmp_path / "a.png")
        for read in (read_image, check_image):
            with pytest.raises(DataError, match=r"a\.png: too many pixels; make it smaller, 64 megapixels at most"):
                read(tmp_path / "a.png")


def test_a_big_image_looks_like_a_small_one(tmp_path: Path) -> None:
    """Whatever its format, with a turn and with transparency."""
    image = photograph(2600, 2100)
    wanted = np.asarray(image.resize((52, 42), Image.Resampling.BOX)).astype(int)
    exif = Image.Exif()
    exif[0x0112] = 3
    image.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "a.jpg", exif=exif, quality=95)
    image.save(tmp_path / "b.png", compress_level=0)
    clear = image.convert("RGBA")
    clear.putalpha(Image.new("L", image.size, 255))
    clear.save(tmp_path / "c.png", compress_level=0)
    for name in ("a.jpg", "b.png", "c.png"):
        read = read_image(tmp_path / name)
        assert read.size[0] == 1300
        found = np.asarray(read.resize((52, 42), Image.Resampling.BOX)).astype(int)
        assert np.abs(found - wanted).mean() < 2
    grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "png", compress_level=0)
    found = np.asarray(read_image(buffer.getvalue()).convert("L").resize((52, 42), Image.Resampling.BOX)).astype(int)
    assert np.abs(found - np.asarray(image.convert("L").resize((52, 42), Image.Resampling.BOX))).mean() < 2


def test_a_long_thin_image_stays_as_it_is(tmp_path: Path) -> None:
    """A panorama or a scanned receipt has many pixels, but none to spare on its shorter side."""
    Image.new("RGB", (12000, 500)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").size == (12000, 500)
