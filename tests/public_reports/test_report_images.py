"""Images as their owner sees them: upright, on white, with all their greys, whoever reads them."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.data.examples import Examples
from newcomer.data.io.image_decoding import ORIENTATION_TRANSPOSES, read_image, to_bytes, to_rgb
from newcomer.data.io.image_folders import ImageFiles

UNDO = {
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}
"""The inverse of a turn; the others are their own."""


def half(top: bool, seed: int) -> Image.Image:
    """Bright above, or at the left, with noise."""
    pixels = np.random.default_rng(seed).integers(0, 60, (32, 32, 3))
    pixels[(slice(16), slice(None)) if top else (slice(None), slice(16))] += 180
    return Image.fromarray(pixels.astype(np.uint8))


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def turned(image: Image.Image, orientation: int, form: str = "png") -> bytes:
    """As a camera writes it: the pixels lie otherwise, and the EXIF says how to turn them."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = ORIENTATION_TRANSPOSES.get(orientation)
    lying = image if turn is None else image.transpose(UNDO.get(turn, turn))
    return saved(lying, form, exif=exif)


def greys(pixels: NDArray[Any], form: str = "png") -> NDArray[np.uint8]:
    """What the reader makes of an image of these numbers."""
    return np.asarray(read_image(saved(Image.fromarray(pixels), form)).convert("L"))


@pytest.fixture
def learner(tiny: Callable[[str], Path]) -> FrozenBackbone:
    """Knows what is bright above from what is bright at the left."""
    images = [half(top, seed) for top in (True, False) for seed in range(10)]
    return FrozenBackbone(str(tiny("vit"))).learn(Examples(images, ["top"] * 10 + ["left"] * 10))


@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_image_is_read_upright_whatever_its_orientation(orientation: int, form: str) -> None:
    """datasets #6252: photographs of phones lie on their side, for the EXIF orientation is not applied."""
    image = half(True, 0).resize((32, 24))
    read = read_image(turned(image, orientation, form))
    assert read.size == (32, 24)
    if form in ("png", "tiff"):
        assert np.array_equal(np.asarray(read), np.asarray(image))
    parts = [np.asarray(one.resize((4, 4), Image.Resampling.BOX)).astype(int) for one in (read, image)]
    assert np.abs(parts[0] - parts[1]).max() < 20


def test_a_phones_image_is_read_alike_from_a_path_its_bytes_and_an_opened_image(
    learner: FrozenBackbone, tmp_path: Path
) -> None:
    """diffusers #3465: what is loaded by one function is upright, by another it is not."""
    path = tmp_path / "phone.png"
    path.write_bytes(turned(half(True, 99), 6))
    wanted = learner.logits([half(True, 99)])
    with Image.open(path) as opened:
        converted = opened.convert("RGB")  # still says that it lies
        for given in (path, str(path), path.read_bytes(), opened, converted, ImageFiles([path])[0]):
            assert torch.equal(learner.logits([given]), wanted)
        assert opened.getexif()[0x0112] == 6  # the caller's own stays as it was
    task = Examples([path, *[half(False, 3)] * 2], ["top", "left", "left"])
    trained = FrozenBackbone(learner.backbone).learn(task)
    apart = FrozenBackbone(learner.backbone).learn(Examples([half(True, 99), *[half(False, 3)] * 2], task.labels))
    assert torch.equal(trained.logits([path]), apart.logits([path]))


def test_orientation_is_applied_once() -> None:
    """An image that was read is read again, as the backbone's own preprocessing does."""
    once = to_rgb(Image.open(io.BytesIO(turned(half(True, 0), 6))))
    assert np.array_equal(np.asarray(to_rgb(once)), np.asarray(half(True, 0)))


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_is_none_turns_nothing(orientation: int) -> None:
    """An image whose EXIF was damaged, or written by a program that knows no better."""
    assert np.array_equal(np.asarray(read_image(turned(half(True, 0), orientation))), np.asarray(half(True, 0)))


def test_a_command_answers_for_a_phones_folder(shell: Any) -> None:
    """datasets #6252, end to end: a folder of upright images is learned, one of a phone is asked about."""
    for name in ("top", "left"):
        (shell.folder / "d" / name).mkdir(parents=True)
        for seed in range(10):
            half(name == "top", seed).save(shell.folder / "d" / name / f"{seed}.png")
    (shell.folder / "phone").mkdir()
    for seed in range(6):
        (shell.folder / "phone" / f"{seed}.jpg").write_bytes(turned(half(True, 50 + seed), 6, "jpeg"))
    assert shell.call("learn", "m", "d", "--backbone", "micro-vit", "--set", "epochs=2")[0] == 0
    code, out, _ = shell.call("predict", "m", "phone", "--json", "--top", "1")
    assert code == 0
    assert out.count('"class": "top"') == 6


def test_sixteen_bits_are_not_all_white() -> None:
    """vision #2218: an image of 16 bits is cut at 255, so that nearly all of it is white."""
    ramp = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    assert np.abs(greys(ramp).astype(int) - ramp // 257).max() <= 1
    assert np.array_equal(greys(ramp, "tiff"), greys(ramp))


def test_a_tiff_whose_zero_is_white_is_inverted() -> None:
    """Scanners write TIFFs whose 0 is white: of 8 bits they are read right, of 16 they were negatives."""
    grey = np.random.default_rng(0).integers(0, 255, (20, 30)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray((255 - grey.astype(np.uint16)) * np.uint16(257)).save(file, "TIFF", tiffinfo={0x0106: 0})
    assert np.array_equal(np.asarray(read_image(file.getvalue()).convert("L")), grey)


@pytest.mark.parametrize("step", [257, 256])
def test_eight_bits_in_sixteen_are_the_bits_that_they_were(step: int) -> None:
    """vision #2218: the same images, saved in 16 bits by another program."""
    pixels = np.random.default_rng(0).integers(0, 90, (20, 30)).astype(np.uint16)
    assert np.array_equal(greys(pixels * np.uint16(step)), pixels)


def test_a_cameras_twelve_bits_use_all_greys() -> None:
    """A microscope writes 12 bits into files of 16: read at full range they are nearly black."""
    pixels = np.random.default_rng(0).integers(300, 4000, (64, 64)).astype(np.uint16)
    read = greys(pixels)
    assert np.abs(read - pixels / 4095 * 255).max() <= 1
    pixels[5, 5] = 65535  # a hot pixel
    assert np.delete(read, 5 * 64 + 5).tolist() == np.delete(greys(pixels), 5 * 64 + 5).tolist()


@pytest.mark.parametrize(
    ("pixels", "wanted"),
    [
        (np.array([[0.0, 0.25, 1.0]] * 4, np.float32), [0, 64, 255]),
        (np.array([[0.0, 128.0, 255.0]] * 4, np.float32), [0, 128, 255]),
        (np.array([[-3.0, 0.0, 3.0]] * 4, np.float32), [0, 128, 255]),
        (np.array([[0.0, 1.0, 2.5]] * 4, np.float32), [0, 102, 255]),
        (np.array([[0, 100_000, 131_071]] * 4, np.int32), [0, 195, 255]),
        (np.array([[0, 100, 255]] * 4, np.int32), [0, 100, 255]),
        (np.array([[0.5, float("nan"), float("inf")]] * 4, np.float32), [128, 0, 0]),
        (np.zeros((4, 3), np.int32), [0, 0, 0]),
        (np.zeros((4, 3), np.float32), [0, 0, 0]),
        (np.full((4, 3), -2.0, np.float32), [0, 0, 0]),
    ],
)
def test_floats_and_thirty_two_bits_are_grey_and_not_white(pixels: NDArray[Any], wanted: list[int]) -> None:
    """vision #2218: modes I and F are cut at 255."""
    assert greys(pixels, "tiff")[0].tolist() == wanted
    assert to_bytes(pixels)[0].tolist() == wanted


def test_a_deep_image_is_read_alike_alone_and_among_others(tmp_path: Path) -> None:
    """A reader that scales by what is brightest in a batch answers otherwise for one image than for many."""
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for n, path in enumerate(paths):
        Image.fromarray(np.full((8, 8), 400 * (n + 1) + n, np.uint16)).save(path)
    among = [np.asarray(image) for image in ImageFiles(paths)]
    assert all(np.array_equal(np.asarray(read_image(path)), one) for path, one in zip(paths, among, strict=True))


def disc(mode: str) -> Image.Image:
    """A black disc on nothing: what lies under the transparency is black, too."""
    alpha = Image.new("L", (16, 16), 0)
    alpha.paste(255, (4, 4, 12, 12))
    image = Image.merge("RGBA", [Image.new("L", (16, 16), 0)] * 3 + [alpha])
    if mode == "P":
        palette = Image.new("P", (16, 16), 1)
        palette.putpalette([0, 0, 0, 0, 0, 0])
        palette.paste(0, (4, 4, 12, 12))
        palette.info["transparency"] = 1
        return palette
    if mode in ("RGB", "L", "I;16"):  # one colour that stands for nothing
        shown = Image.new("L", (16, 16), 7)
        shown.paste(0, (4, 4, 12, 12))
        found = Image.fromarray(np.asarray(shown).astype(np.uint16)) if mode == "I;16" else shown.convert(mode)
        found.info["transparency"] = (7, 7, 7) if mode == "RGB" else 7
        return found
    return image.convert("LA").convert("La") if mode == "La" else image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa", "P", "RGB", "L", "I;16"])
def test_what_is_transparent_is_white(mode: str) -> None:
    """sd-scripts #1269: transparency becomes what lies under it, mostly black."""
    read = np.asarray(to_rgb(disc(mode)))
    assert read.shape == (16, 16, 3)
    assert (read[0, 0] == 255).all()
    assert (read[8, 8] == 0).all()
    if mode in ("RGBA", "LA", "P", "RGB", "L"):
        form = {"transparency": disc(mode).info["transparency"]} if "transparency" in disc(mode).info else {}
        assert np.array_equal(np.asarray(read_image(saved(disc(mode), "png", **form))), read)


def test_half_transparent_is_half_white() -> None:
    """sd-scripts #1269: shadows and soft edges."""
    assert to_rgb(Image.new("RGBA", (2, 2), (0, 0, 0, 128))).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "CMYK", "P", "RGBA", "YCbCr"])
def test_ordinary_images_give_the_bits_that_they_always_gave(mode: str) -> None:
    """What has neither orientation nor transparency nor more than 8 bits: data sets of the field."""
    image = half(True, 0).convert(mode)
    assert np.array_equal(np.asarray(to_rgb(image)), np.asarray(image.convert("RGB")))


def test_an_animation_is_its_first_image() -> None:
    """A folder of stickers, some of them animated."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    read = read_image(saved(frames[0], "gif", save_all=True, append_images=frames[1:]))
    assert read.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["L", "I;16", "RGBA", "CMYK"])
def test_an_uncompressed_tiff_that_lies_on_its_side_is_turned(mode: str, tmp_path: Path) -> None:
    """Read by its path, such a file is mapped into memory with the sides of the turned image: 10 of 10 were garbage."""
    grey = np.zeros((60, 80), np.uint8)
    grey[:20] = 200
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    exif = Image.Exif()
    exif[0x112] = 6
    image.save(tmp_path / "t.tif", exif=exif)
    assert read_image(tmp_path / "t.tif").size == (60, 80)
    assert read_image(tmp_path / "t.tif").tobytes() == read_image((tmp_path / "t.tif").read_bytes()).tobytes()
