"""ImageNet-R (Hendrycks et al. 2021, renditions) and ImageNet-A (Hendrycks et al. 2021, natural adversarial examples).

Both are test sets without an official split; the field shares fixed splits, and none is drawn here. Classes are named by WordNet
ids, like their folders.
"""

from pathlib import Path

from newcomer.data.datasets.splits import by_name, fixed_split, read_list, select_listed, split_folders
from newcomer.data.examples import Examples
from newcomer.data.io.image_folders import class_files
from newcomer.data.paths import locate
from newcomer.errors import DataError

GET_R = (
    "download https://github.com/hendrycks/imagenet-r and put beside its class folders imagenet-r_train.yaml and "
    "imagenet-r_test.yaml from dataloaders/splits of https://github.com/GT-RIPL/CODA-Prompt, or get it as train/ and test/ "
    "folders from https://github.com/sun-hailong/LAMDA-PILOT"
)
GET_A = (
    "get it as train/ and test/ folders from https://github.com/sun-hailong/LAMDA-PILOT, or download "
    "https://github.com/hendrycks/natural-adv-examples and put imagenet-a_train.txt and imagenet-a_test.txt, lists of "
    "<class>/<file>, beside its class folders"
)


def imagenet_r(
    path: str = "imagenet-r", split_sha256: str | None = None, complete: bool = True
) -> tuple[Examples, Examples]:
    """The 24,000 training and 6,000 test images of ImageNet-R, 200 classes.

    - `path`: a folder with the lists imagenet-r_train and imagenet-r_test (.yaml or .txt) and images in <class>/ or in
      {train,test}/<class>/; the lists define the split. Without lists, train/<class>/ and test/<class>/ are the split.
    - `split_sha256`: expected `newcomer.data.datasets.splits.digest` of the split.
    - `complete`: false accepts a part of the data set.

    Raises DataError without a split, for an image that is missing or in both parts, and for another split than expected.
    """
    return _read(path, "imagenet-r", "ImageNet-R", GET_R, (24_000, 6_000) if complete else None, split_sha256)


def imagenet_a(
    path: str = "imagenet-a", split_sha256: str | None = None, complete: bool = True
) -> tuple[Examples, Examples]:
    """The 5,981 training and 1,519 test images of ImageNet-A, 200 classes.

    Settings, layouts and errors as in `imagenet_r`, with lists named imagenet-a_train and imagenet-a_test.
    """
    return _read(path, "imagenet-a", "ImageNet-A", GET_A, (5_981, 1_519) if complete else None, split_sha256)


def _read(
    path: str, name: str, title: str, get: str, sizes: tuple[int, int] | None, sha256: str | None
) -> tuple[Examples, Examples]:
    root = locate(path, title, get)
    lists = _lists(root, name)
    has_folders = (root / "train").is_dir()
    if lists is not None:
        folders = [root / "train", root / "test"] if has_folders else [root]
        images = by_name(file for folder in folders for file in class_files(folder, get))
        train, test = (select_listed(read_list(file, get), images, root, get) for file in lists)
    elif has_folders:
        train, test = split_folders(root, get)
    else:
        raise DataError(
            f"{root}: no split, neither train/ and test/ folders nor lists {name}_{{train,test}}.yaml; {get}"
        )
    return fixed_split(train, test, where=root, get=get, sizes=sizes, sha256=sha256)


def _lists(root: Path, name: str) -> tuple[Path, Path] | None:
    for suffix in (".yaml", ".txt"):
        train, test = root / f"{name}_train{suffix}", root / f"{name}_test{suffix}"
        if train.exists() or test.exists():
            return train, test
    return None
