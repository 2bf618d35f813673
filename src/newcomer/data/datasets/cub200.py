"""CUB-200-2011 (Wah et al. 2011): 11,788 images of 200 species of birds."""

from pathlib import Path

from newcomer.data.datasets.splits import ImagesByName, by_name, fixed_split, select_listed, split_folders
from newcomer.data.examples import Examples
from newcomer.data.io.image_folders import class_files
from newcomer.data.paths import locate
from newcomer.errors import DataError

GET = (
    "download https://www.vision.caltech.edu/datasets/cub_200_2011/ and give its folder CUB_200_2011, or get it as train/ and "
    "test/ folders from https://github.com/sun-hailong/LAMDA-PILOT"
)


def cub200(
    path: str = "CUB_200_2011", split_sha256: str | None = None, complete: bool = True
) -> tuple[Examples, Examples]:
    """Training and test images of CUB-200-2011.

    Two splits are in use, whose accuracies are not comparable: the official one of 5,994 and 5,794 images, and LAMDA-PILOT's
    folders of 9,430 and 2,358. Classes are named like their folders, '001.Black_footed_Albatross': the number keeps the official
    order.

    - `path`: the folder of the archive, with images/, images.txt and train_test_split.txt, or a folder with {train,test}/<class>/.
    - `split_sha256`: expected `newcomer.data.datasets.splits.digest` of the split.
    - `complete`: false accepts a part of the data set.

    Raises DataError for an image that is missing or in both parts, and for another split than expected.
    """
    root = locate(path, "CUB-200-2011", GET)
    if (root / "train").is_dir():
        train, test = split_folders(root, GET)
        sizes = (9_430, 2_358)
    else:
        train, test = _official(root)
        sizes = (5_994, 5_794)
    return fixed_split(train, test, where=root, get=GET, sizes=sizes if complete else None, sha256=split_sha256)


def _official(root: Path) -> tuple[ImagesByName, ImagesByName]:
    names, parts = _by_number(root / "images.txt"), _by_number(root / "train_test_split.txt")
    for number in names:
        if parts.get(number) not in ("0", "1"):
            raise DataError(f"{root / 'train_test_split.txt'}: neither 0 nor 1 for image {number}; {GET}")
    images = by_name(class_files(root / "images", GET))
    train, test = ([names[number] for number in names if parts[number] == part] for part in "10")
    return select_listed(train, images, root / "images", GET), select_listed(test, images, root / "images", GET)


def _by_number(file: Path) -> dict[str, str]:
    """Parse lines '<number> <text>' to a mapping."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
        return {pair[0]: pair[1] for pair in pairs}
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; {GET}") from None
    except (OSError, UnicodeDecodeError, IndexError):
        raise DataError(f"{file}: not lines of a number and a text; {GET}") from None
