"""CUB-200-2011 (Wah et al. 2011): 11,788 pictures of 200 species of birds."""

from pathlib import Path

from newcomer.data.datasets.splits import Pictures, fixed_split, listed, named, split_folders
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
    """Training and test pictures of birds.

    Two splits are in use, and accuracies on them are not comparable: the official one, of 5,994 and 5,794 pictures, and the one
    that LAMDA-PILOT gives as folders, of 9,430 and 2,358. Classes are called as their folders are, '001.Black_footed_Albatross':
    the number keeps the official order.

    - `path`: the folder of the archive, with images/, images.txt and train_test_split.txt, or a folder with {train,test}/<class>/.
    - `split_sha256`: what `newcomer.data.datasets.splits.digest` must give for the split.
    - `complete`: false to allow for a part of the data set.

    Raises DataError for a picture that is missing or in both parts, and for another split than asked for.
    """
    root = locate(path, "CUB-200-2011", GET)
    if (root / "train").is_dir():
        train, test = split_folders(root, GET)
        sizes = (9_430, 2_358)
    else:
        train, test = _official(root)
        sizes = (5_994, 5_794)
    return fixed_split(train, test, where=root, get=GET, sizes=sizes if complete else None, sha256=split_sha256)


def _official(root: Path) -> tuple[Pictures, Pictures]:
    names, parts = _by_number(root / "images.txt"), _by_number(root / "train_test_split.txt")
    for number in names:
        if parts.get(number) not in ("0", "1"):
            raise DataError(f"{root / 'train_test_split.txt'}: neither 0 nor 1 for picture {number}; {GET}")
    pictures = named(class_files(root / "images", GET))
    train, test = ([names[number] for number in names if parts[number] == part] for part in "10")
    return listed(train, pictures, root / "images", GET), listed(test, pictures, root / "images", GET)


def _by_number(file: Path) -> dict[str, str]:
    """What a file of lines '<number> <text>' says of each number."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
        return {pair[0]: pair[1] for pair in pairs}
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; {GET}") from None
    except (OSError, UnicodeDecodeError, IndexError):
        raise DataError(f"{file}: not lines of a number and a text; {GET}") from None
