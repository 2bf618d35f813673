"""CIFAR-100 (Krizhevsky 2009), from image folders or the Hub's parquet files."""

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from newcomer.data.examples import Examples, PILImage
from newcomer.data.io.image_folders import class_folder, read_image
from newcomer.data.io.tables import read_table, require_columns
from newcomer.data.paths import locate
from newcomer.errors import DataError

HUB = "uoft-cs/cifar100"
GET = (
    f"set data.path to 'hub' to download it ({HUB}, about 140 MB), or download https://www.cs.toronto.edu/~kriz/cifar.html "
    "and lay it out as data/cifar100/{train,test}/<class>/*.png"
)


def cifar100(path: str = "cifar100") -> tuple[Examples, Examples]:
    """Training and test images labelled with the names of the 100 fine classes.

    `path`: a folder with train/ and test/ class folders or with the Hub's parquet files, or 'hub' to download. Raises DataError
    if nothing is found, or the files are not CIFAR-100's.
    """
    root = _download() if path == "hub" else locate(path, "CIFAR-100", GET)
    if (root / "train").is_dir():
        return class_folder(root / "train"), class_folder(root / "test")
    return _parquet(root, "train"), _parquet(root, "test")


class ImageBytes(Sequence[PILImage]):
    """Lazy sequence of images stored as encoded bytes."""

    def __init__(self, contents: Sequence[bytes], name: str) -> None:
        self.contents, self.name = contents, name

    def __len__(self) -> int:
        return len(self.contents)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # one rule for an index and a slice
        if isinstance(index, slice):
            return ImageBytes(self.contents[index], self.name)
        return read_image(self.contents[index], f"{self.name}, row {index + 1}")


def _parquet(root: Path, split: str) -> Examples:
    files = sorted(root.rglob(f"{split}-*.parquet"))
    if not files:
        raise DataError(f"{root}: neither {split}/<class>/ folders nor {split}-*.parquet files; {GET}")
    names = _class_names(files[0])
    tables = [read_table(file) for file in files]
    for file, table in zip(files, tables, strict=True):
        require_columns(table.columns, ["img", "fine_label"], str(file))
    table = pl.concat(tables)
    contents = table["img"].struct.field("bytes").to_list()
    return Examples(ImageBytes(contents, files[0].name), [names[i] for i in table["fine_label"].to_list()])


def _class_names(file: Path) -> list[str]:
    """Class names from the metadata of a parquet file."""
    try:
        features = json.loads(pl.read_parquet_metadata(file)["huggingface"])["info"]["features"]
        names: list[str] = features["fine_label"]["names"]
    except (KeyError, ValueError):
        raise DataError(f"{file}: no class names in its metadata; download the file again from {HUB}") from None
    return names


def _download() -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(HUB, repo_type="dataset", allow_patterns="cifar100/*.parquet"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"CIFAR-100 could not be downloaded from the hub ({reason}); {GET}") from None
