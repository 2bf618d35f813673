"""CIFAR-100 in both its layouts."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from newcomer.data.datasets.cifar100 import cifar100
from newcomer.errors import DataError

NAMES = ["apple", "bear", "cloud"]


def png(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (colour, 0, 0)).save(buffer, "png")
    return buffer.getvalue()


def parquet(root: Path, images: list[bytes], header: bool = True) -> None:
    """As the hub has it: bytes of images, fine labels by number, their names in the header."""
    (root / "cifar100").mkdir(parents=True, exist_ok=True)
    table = pl.DataFrame(
        {
            "img": [{"bytes": p, "path": None} for p in images],
            "fine_label": [2, 0, 2][: len(images)],
            "coarse_label": [0] * len(images),
        }
    )
    features = {"info": {"features": {"fine_label": {"names": NAMES, "_type": "ClassLabel"}}}}
    for split in ("train", "test"):
        path = root / "cifar100" / f"{split}-00000-of-00001.parquet"
        table.write_parquet(path, metadata={"huggingface": json.dumps(features)} if header else None)


def test_the_hubs_files_give_names_and_images(tmp_path: Path) -> None:
    parquet(tmp_path, [png(10), png(20), png(30)])
    train, test = cifar100(str(tmp_path))
    assert train.labels == test.labels == ["cloud", "apple", "cloud"]
    image = train.inputs[1]
    assert isinstance(image, Image.Image)
    assert image.getpixel((0, 0)) == (20, 0, 0)
    assert len(train.inputs[1:]) == 2


def test_a_damaged_image_in_a_table_is_named_with_its_row(tmp_path: Path) -> None:
    parquet(tmp_path, [png(10), b"junk", png(30)[:40]])
    train, _ = cifar100(str(tmp_path))
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet, row 2: not a readable image"):
        train.inputs[1]
    with pytest.raises(DataError, match="row 3: "):
        train.inputs[2]


def test_a_table_without_names_is_refused(tmp_path: Path) -> None:
    parquet(tmp_path, [png(10)], header=False)
    with pytest.raises(DataError, match="no class names in its metadata"):
        cifar100(str(tmp_path))


def test_an_empty_folder_says_what_to_get(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither train/<class>/ folders nor train-\*\.parquet files; .*https://"):
        cifar100(str(tmp_path))


def test_missing_it_says_what_to_download_from_where_and_where_to_put_it() -> None:
    with pytest.raises(DataError) as caught:
        cifar100("no-such-cifar")
    message = str(caught.value)
    assert all(
        part in message
        for part in ("CIFAR-100 not found", "https://", "uoft-cs/cifar100", "data/cifar100/{train,test}")
    )
    assert "\n" not in message


def test_without_a_network_the_hub_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="could not be downloaded from the hub") as caught:
        cifar100("hub")
    assert "\n" not in str(caught.value)


def test_the_packed_folder_is_complete(real_data: Callable[[str], Path]) -> None:
    train, test = cifar100(str(real_data("cifar100")))
    assert (len(train), len(test)) == (20_000, 10_000)
    assert len(train.classes) == 100
    assert train.classes == test.classes
