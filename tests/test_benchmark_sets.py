"""ImageNet-R, ImageNet-A, CUB-200 and DomainNet: all layouts give the same examples, and another split is refused."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from newcomer.data.datasets.cub200 import cub200
from newcomer.data.datasets.domainnet import SIZES, domainnet
from newcomer.data.datasets.imagenet import imagenet_a, imagenet_r
from newcomer.data.datasets.splits import by_name, digest, fixed_split
from newcomer.data.examples import Examples
from newcomer.errors import DataError

Source = Callable[..., tuple[Examples, Examples]]

TRAIN = ["n01/art_0.jpg", "n01/art 2.jpg", "n02/art_0.jpg", "n03/toy_9.jpg"]
TEST = ["n01/art_1.jpg", "n02/sketch_0.jpg", "n03/toy_1.jpg"]
SHA256 = hashlib.sha256(
    b"test/n01/art_1.jpg\ntest/n02/sketch_0.jpg\ntest/n03/toy_1.jpg\n"
    b"train/n01/art 2.jpg\ntrain/n01/art_0.jpg\ntrain/n02/art_0.jpg\ntrain/n03/toy_9.jpg\n"
).hexdigest()


def draw(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), (len(name), sum(name.encode()) % 256, 0)).save(folder / name)


def as_folders(root: Path) -> Path:
    """{train,test}/<class>/*."""
    draw(root / "train", TRAIN)
    draw(root / "test", TEST)
    return root


def as_lists(root: Path, name: str = "imagenet-r") -> Path:
    """The archive as it is unpacked, and lists in YAML that name folders of somebody else's."""
    draw(root, TRAIN + TEST)
    (root / "README.txt").write_text("about")
    for part, names in (("train", TRAIN), ("test", TEST)):
        lines = [f"- data/imagenet-r/{'test' if i else 'train'}/{name}" for i, name in enumerate(reversed(names))]
        (root / f"{name}_{part}.yaml").write_text("\n".join(["data:", *lines, "targets:", *["- 3" for _ in names], ""]))
    return root


def as_text(root: Path, name: str = "imagenet-r") -> Path:
    """Lists in plain text, one with the numbers of classes, for images that lie in other train/ and test/ folders."""
    draw(root / "train", TRAIN[1:] + TEST[1:])
    draw(root / "test", TRAIN[:1] + TEST[:1])
    (root / f"{name}_train.txt").write_text("".join(f"{line} 7\n" for line in TRAIN))
    (root / f"{name}_test.txt").write_text("\n".join(TEST) + "\n\n")
    return root


def as_birds(root: Path) -> Path:
    """The official files of CUB-200-2011."""
    draw(root / "images", TRAIN + TEST)
    names = sorted(TRAIN + TEST, reverse=True)
    numbered = list(enumerate(names, start=1))
    (root / "images.txt").write_text("".join(f"{number} {name}\n" for number, name in numbered))
    (root / "train_test_split.txt").write_text("".join(f"{number} {int(name in TRAIN)}\n" for number, name in numbered))
    return root


def as_domains(root: Path, domains: Sequence[str] = ("clipart", "sketch")) -> Path:
    """DomainNet's folders and lists."""
    for domain in domains:
        draw(root / domain, TRAIN + TEST)
        for part, names in (("train", TRAIN), ("test", TEST)):
            (root / f"{domain}_{part}.txt").write_text("".join(f"{domain}/{name} 3\n" for name in names))
    return root


LAYOUTS: list[tuple[Source, Callable[[Path], Path]]] = [
    (imagenet_r, as_folders),
    (imagenet_r, as_lists),
    (imagenet_r, as_text),
    (imagenet_a, as_folders),
    (imagenet_a, lambda root: as_lists(root, "imagenet-a")),
    (imagenet_a, lambda root: as_text(root, "imagenet-a")),
    (cub200, as_folders),
    (cub200, as_birds),
]


def pixels(examples: Examples) -> list[Any]:
    return [image.getpixel((0, 0)) for image in examples.inputs if isinstance(image, Image.Image)]


@pytest.mark.parametrize(("source", "layout"), LAYOUTS)
def test_every_layout_of_a_split_gives_the_same_examples(
    source: Source, layout: Callable[[Path], Path], tmp_path: Path
) -> None:
    train, test = source(str(layout(tmp_path)), split_sha256=SHA256.upper(), complete=False)
    assert train.labels == ["n01", "n01", "n02", "n03"]
    assert test.labels == ["n01", "n02", "n03"]
    again, _ = imagenet_r(str(as_folders(tmp_path / "again")), complete=False)
    assert pixels(train) == pixels(again)
    assert len(pixels(train)) == 4


def test_the_domains_of_a_class_are_one_class(tmp_path: Path) -> None:
    train, test = domainnet(str(as_domains(tmp_path)), ["sketch", "clipart"], complete=False)
    assert train.labels == ["n01", "n01", "n02", "n03"] * 2
    assert test.labels == ["n01", "n02", "n03"] * 2
    assert len(domainnet(str(tmp_path), ["sketch"], complete=False)[0]) == 4


def test_all_six_domains_are_the_default(tmp_path: Path) -> None:
    train, _ = domainnet(str(as_domains(tmp_path, list(SIZES))), complete=False)
    assert len(train) == 6 * 4


def test_the_digest_is_that_of_the_files_in_order_of_their_bytes() -> None:
    assert digest(TRAIN, TEST) == digest(TRAIN[::-1], TEST[::-1]) == SHA256
    assert digest(TEST, TRAIN) != SHA256


def test_no_file_is_opened_before_it_is_asked_for(tmp_path: Path) -> None:
    (as_folders(tmp_path) / "train" / TRAIN[0]).write_bytes(b"")
    train, _ = imagenet_r(str(tmp_path), complete=False)
    with pytest.raises(DataError, match=r"art_0\.jpg: not a readable image"):
        train.inputs[1]


@pytest.mark.parametrize(
    ("source", "layout", "sizes"),
    [
        (imagenet_r, as_folders, "24000 and 6000"),
        (imagenet_r, as_lists, "24000 and 6000"),
        (imagenet_a, as_folders, "5981 and 1519"),
        (cub200, as_folders, "9430 and 2358"),
        (cub200, as_birds, "5994 and 5794"),
        (domainnet, lambda root: as_domains(root, list(SIZES)), "409832 and 176743"),
        (lambda path: domainnet(path, ["sketch"]), as_domains, "48212 and 20916"),
    ],
)
def test_a_part_does_not_pass_for_the_whole(
    source: Source, layout: Callable[[Path], Path], sizes: str, tmp_path: Path
) -> None:
    message = rf"\d+ training and \d+ test images instead of {sizes}; set data\.complete to false .*https://"
    with pytest.raises(DataError, match=message):
        source(str(layout(tmp_path)))


def test_the_parts_of_each_domain_add_up_to_what_its_page_says() -> None:
    assert [sum(sizes) for sizes in SIZES.values()] == [48_129, 51_605, 72_266, 172_500, 172_947, 69_128]


@pytest.mark.parametrize(("source", "layout"), LAYOUTS)
def test_another_split_does_not_pass_for_the_one_asked_for(
    source: Source, layout: Callable[[Path], Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"the split has SHA-256 {SHA256}, data.split_sha256 asks for abc; .*https://"):
        source(str(layout(tmp_path)), split_sha256="abc", complete=False)


@pytest.mark.parametrize(("source", "layout"), LAYOUTS[1:3] + LAYOUTS[4:6] + LAYOUTS[7:])
def test_what_is_listed_and_missing_is_named(source: Source, layout: Callable[[Path], Path], tmp_path: Path) -> None:
    layout(tmp_path)
    for file in [*tmp_path.rglob("toy_9.jpg"), *tmp_path.rglob("art 2.jpg")]:
        file.unlink()
        file.with_name("unlisted.jpg").touch()
    with pytest.raises(DataError, match=r"'n01/art 2\.jpg' and 1 more of the split's list is missing; .*https://"):
        source(str(tmp_path), complete=False)


def test_a_listed_class_without_a_folder_is_named(tmp_path: Path) -> None:
    for file in (as_lists(tmp_path) / "n02").iterdir():
        file.unlink()
    (tmp_path / "n02").rmdir()
    with pytest.raises(DataError, match=r"no folder 'n02', whose images the split lists; .*https://"):
        imagenet_r(str(tmp_path), complete=False)


def test_a_image_in_both_parts_is_named(tmp_path: Path) -> None:
    draw(as_folders(tmp_path) / "test", TRAIN[:1])
    with pytest.raises(DataError, match=r"'n01/art_0\.jpg' is in both the training and the test set; .*https://"):
        imagenet_r(str(tmp_path), complete=False)
    both = by_name([Path("a/b.jpg")])
    with pytest.raises(DataError, match=r"^here: 'a/b\.jpg' is in"):
        fixed_split(both, both, where=Path("here"), get="", sizes=None, sha256=None)


@pytest.mark.parametrize(("source", "name"), [(imagenet_r, "imagenet-r"), (imagenet_a, "imagenet-a")])
def test_without_a_split_none_is_drawn(source: Source, name: str, tmp_path: Path) -> None:
    draw(tmp_path, TRAIN + TEST)
    with pytest.raises(
        DataError, match=rf"no split, neither train/ and test/ folders nor lists {name}_.*https://.*https://"
    ):
        source(str(tmp_path))
    (tmp_path / f"{name}_test.yaml").write_text("data: [n01/art_1.jpg]")
    with pytest.raises(DataError, match=rf"{name}_train\.yaml: no such file; .*https://"):
        source(str(tmp_path))


@pytest.mark.parametrize(
    "content", [b"", b"- a\n- b\n", b"data: 3\n", b"data:\n- 3\n", b"targets: []\n", b"data: [", b"\xff\xfe"]
)
def test_a_list_that_is_none_is_named(content: bytes, tmp_path: Path) -> None:
    (as_lists(tmp_path) / "imagenet-r_test.yaml").write_bytes(content)
    with pytest.raises(DataError, match=r"imagenet-r_test\.yaml: not a list of images; .*https://") as caught:
        imagenet_r(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_folders_that_are_no_split_name_the_page(tmp_path: Path) -> None:
    draw(tmp_path / "train", TRAIN)
    for source in (imagenet_r, imagenet_a, cub200):
        with pytest.raises(DataError, match=r"test: no such folder; .*https://"):
            source(str(tmp_path))
    (tmp_path / "test" / "n01").mkdir(parents=True)
    with pytest.raises(DataError, match="n01: a class without images"):
        imagenet_r(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("images.txt", None, r"images\.txt: no such file; .*https://"),
        ("train_test_split.txt", None, r"train_test_split\.txt: no such file; .*https://"),
        ("images.txt", b"1\n", r"images\.txt: not lines of a number and a text; .*https://"),
        ("images.txt", b"1 \xff\n", r"images\.txt: not lines of a number and a text"),
        ("train_test_split.txt", b"1 0\n", r"train_test_split\.txt: neither 0 nor 1 for image 2; .*https://"),
        ("train_test_split.txt", b"1 2\n", r"train_test_split\.txt: neither 0 nor 1 for image 1"),
    ],
)
def test_official_files_that_are_damaged_are_named(
    file: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    as_birds(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        cub200(str(tmp_path), complete=False)
    assert "\n" not in str(caught.value)


def test_a_domain_that_is_not_there_is_named(tmp_path: Path) -> None:
    as_domains(tmp_path, ["clipart"])
    with pytest.raises(DataError, match=r"infograph: no such folder; .*https://ai\.bu\.edu/M3SDA/"):
        domainnet(str(tmp_path))
    (tmp_path / "clipart_test.txt").unlink()
    with pytest.raises(DataError, match=r"clipart_test\.txt: no such file; .*https://"):
        domainnet(str(tmp_path), ["clipart"])


@pytest.mark.parametrize(
    ("source", "title", "page"),
    [
        (imagenet_r, "ImageNet-R", "https://github.com/hendrycks/imagenet-r "),
        (imagenet_a, "ImageNet-A", "https://github.com/hendrycks/natural-adv-examples "),
        (cub200, "CUB-200-2011", "https://www.vision.caltech.edu/datasets/cub_200_2011/"),
        (domainnet, "DomainNet", "https://ai.bu.edu/M3SDA/"),
    ],
)
def test_missing_sets_say_where_to_get_them(source: Source, title: str, page: str) -> None:
    with pytest.raises(DataError) as caught:
        source("no-such-folder")
    message = str(caught.value)
    assert message.startswith(f"{title} not found at no-such-folder, ")
    assert page in message
    assert "\n" not in message
