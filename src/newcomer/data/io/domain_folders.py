"""Folders of images by domain: `root/<domain>/<class>/<any name>`."""

from pathlib import Path

from newcomer.data.examples import Examples
from newcomer.data.io.image_folders import ImageFiles, class_files, filter_readable, has_image_suffix, list_visible
from newcomer.data.io.train_test_split import Part, require_no_share, stratified
from newcomer.data.paths import locate
from newcomer.errors import DataError

LAYOUT = "lay the images out as {path}/<domain>/<class>/*, or as {path}/train/<domain>/<class>/* and test/ likewise"


def domain_folder(path: str, *, test_share: Part | None = None, seed: int = 0) -> tuple[Examples, Examples]:
    """Training and test examples, with their domains, of `path/train/<domain>/<class>/*` and `path/test/<domain>/<class>/*`.

    Of a folder without these two, `path/<domain>/<class>/*`, `test_share` of each class in each domain (a fifth by default), drawn
    from the seed, is for testing. Raises DataError for a missing folder, an image beside the folders of domains or classes, a class
    without images, a file that is not an image, and where nothing can be tested on.
    """
    get = LAYOUT.format(path=path)
    root = locate(path, "a folder of images by domain", get)
    if not (root / "train").exists() and not (root / "test").exists():
        return stratified(_examples(root, get), test_share, seed, str(root))
    require_no_share(test_share, str(root))
    return _examples(root / "train", get), _examples(root / "test", get)


def training_domains(path: Path) -> Examples | None:
    """Training examples with their domains, if this is a folder of domains: its folders hold folders, and no image."""
    root = path / "train" if (path / "train").is_dir() else path
    inside = [file for folder in list_visible(root) if folder.is_dir() for file in list_visible(folder)]
    is_of_domains = any(file.is_dir() for file in inside) and not any(map(has_image_suffix, inside))
    return _examples(root, LAYOUT.format(path=path)) if is_of_domains else None


def _examples(root: Path, get: str) -> Examples:
    """Examples of a folder of domains; domains, classes and files sorted by name."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; {get}")
    beside = [file for file in list_visible(root) if file.is_file() and has_image_suffix(file)]
    if beside:
        raise DataError(
            f"{beside[0]}: an image beside the folders of domains; move it into that of its domain and class"
        )
    domains = [folder for folder in list_visible(root) if folder.is_dir()]
    if not domains:
        raise DataError(f"{root}: holds no folders of domains; {get}")
    files = filter_readable([file for domain in domains for file in class_files(domain, get)], None)
    return Examples(
        ImageFiles(files), [file.parent.name for file in files], domains=[file.parent.parent.name for file in files]
    )
