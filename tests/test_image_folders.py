"""Image folders: every image is read, and what cannot be read is named."""

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from newcomer.data.io.image_folders import ImageFiles, class_folder, image_folder, read_image
from newcomer.errors import DataError

FORMATS = ["png", "jpeg", "gif", "bmp", "webp", "tiff"]


def written(path: Path, colour: int = 0, form: str = "png") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (colour, 10, 20)).save(path, form)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for name, colour in (("wren", 3), ("Amsel", 1), ("2 finch", 2)):
            for number in range(2):
                written(tmp_path / "birds" / split / name / f"{number}.png", 10 * colour + number)
    return tmp_path / "birds"


def test_classes_and_images_come_in_order_of_their_names(root: Path) -> None:
    train, test = image_folder(str(root))
    assert train.labels == test.labels == ["2 finch"] * 2 + ["Amsel"] * 2 + ["wren"] * 2
    reds = [image.getpixel((0, 0)) for image in train.inputs if isinstance(image, Image.Image)]
    assert [colour[0] for colour in reds if isinstance(colour, tuple)] == [20, 21, 10, 11, 30, 31]


def test_files_of_file_managers_are_ignored(root: Path) -> None:
    (root / "train" / ".cache").mkdir()
    (root / "train" / "README.txt").write_text("about")
    for litter in (".DS_Store", "Thumbs.db"):
        (root / "train" / "wren" / litter).write_bytes(b"x")
    assert len(class_folder(root / "train")) == 6


@pytest.mark.parametrize("form", FORMATS)
def test_formats_of_images_are_read_as_rgb(form: str, tmp_path: Path) -> None:
    image = read_image(written(tmp_path / f"a.{form}", 200, form))
    assert (image.mode, image.size) == ("RGB", (6, 5))
    colour = image.getpixel((2, 2))
    assert isinstance(colour, tuple)
    assert abs(colour[0] - 200) < 12


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_modes_of_images_are_read_as_rgb(mode: str, tmp_path: Path) -> None:
    Image.new(mode, (3, 2)).save(tmp_path / "a.tiff")
    assert read_image(tmp_path / "a.tiff").mode == "RGB"


def test_images_are_read_when_they_are_asked_for(root: Path) -> None:
    inputs = class_folder(root / "train").inputs
    assert isinstance(inputs, ImageFiles)
    (root / "train" / "2 finch" / "0.png").unlink()
    assert len(inputs[2:]) == 4
    with pytest.raises(DataError, match=r"0\.png: a damaged image"):
        inputs[0]


@pytest.mark.parametrize("form", FORMATS)
def test_a_image_cut_off_anywhere_is_read_or_named(form: str) -> None:
    buffer = io.BytesIO()
    noise = Image.effect_noise((24, 16), 90).convert("P" if form == "gif" else "RGB")
    noise.save(buffer, form)
    whole = buffer.getvalue()

    @given(st.integers(0, len(whole) - 1))
    @settings(max_examples=60, deadline=None)
    def cut(length: int) -> None:
        try:
            assert read_image(whole[:length], "birds.parquet, row 3").size == (24, 16)
        except DataError as error:
            assert str(error).startswith("birds.parquet, row 3: ")  # noqa: PT017  # either is right
            assert "\n" not in str(error)  # noqa: PT017

    cut()


@pytest.mark.parametrize("form", FORMATS)
def test_a_image_with_changed_bytes_is_read_or_named(form: str) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((24, 16), 90).convert("P" if form == "gif" else "RGB").save(buffer, form)
    whole = buffer.getvalue()

    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=8))
    @settings(max_examples=100, deadline=None)
    def changed(changes: list[tuple[int, int]]) -> None:
        content = bytearray(whole)
        for place, value in changes:
            content[place] = value
        try:
            assert read_image(bytes(content)).mode == "RGB"
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017

    changed()


def test_a_truncated_image_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "wren.jpeg"
    Image.effect_noise((64, 64), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(DataError, match=r"wren\.jpeg: a damaged image .*; remove it or replace it"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_named_before_anything_is_learned(content: bytes, root: Path) -> None:
    (root / "train" / "wren" / "notes.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"notes\.txt: not a readable image; remove it or replace it"):
        image_folder(str(root))


def test_a_folder_in_a_class_is_no_image(root: Path) -> None:
    (root / "train" / "wren" / "young").mkdir()
    with pytest.raises(DataError, match="young: a folder, where images of one class are expected"):
        image_folder(str(root))


def test_a_class_without_images_is_named(root: Path) -> None:
    (root / "train" / "empty").mkdir()
    with pytest.raises(DataError, match="empty: a class without images; add some or remove the folder"):
        image_folder(str(root))


def test_missing_folders_say_how_to_lay_images_out(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"a folder of images not found at nowhere, .*lay the images out as nowhere/train/<class>"
    ):
        image_folder("nowhere")
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"train: holds no class folders; lay the images out"):
        image_folder(str(tmp_path))
    written(tmp_path / "train" / "wren" / "a.png")
    with pytest.raises(DataError, match=r"test: no such folder; lay the images out"):
        image_folder(str(tmp_path))
