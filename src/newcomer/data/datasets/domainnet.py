"""DomainNet (Peng et al. 2019), the cleaned version: 345 classes in six domains, from photographs to sketches."""

from collections.abc import Sequence
from itertools import chain
from typing import Literal

from newcomer.data.datasets.splits import by_name, fixed_split, read_list, select_listed
from newcomer.data.examples import Examples
from newcomer.data.io.image_folders import class_files
from newcomer.data.paths import locate

Domain = Literal["clipart", "infograph", "painting", "quickdraw", "real", "sketch"]

SIZES: dict[Domain, tuple[int, int]] = {
    "clipart": (33_525, 14_604),
    "infograph": (36_023, 15_582),
    "painting": (50_416, 21_850),
    "quickdraw": (120_750, 51_750),
    "real": (120_906, 52_041),
    "sketch": (48_212, 20_916),
}
"""Training and test images of each domain."""

GET = (
    "download the cleaned version from https://ai.bu.edu/M3SDA/, unpack each domain and put its lists beside it: "
    "<domain>/, <domain>_train.txt and <domain>_test.txt"
)


def domainnet(
    path: str = "domainnet",
    domains: Sequence[Domain] | None = None,
    split_sha256: str | None = None,
    complete: bool = True,
) -> tuple[Examples, Examples]:
    """Training and test images of all domains, with classes shared across domains; 409,832 and 176,743 in total.

    Each example has its domain, for `DomainIncremental`; `ClassIncremental` mixes them.

    - `path`: the folder of the domains' folders and lists.
    - `domains`: all six by default. Painting alone has no 't-shirt' in training and no 'syringe' in testing.
    - `split_sha256`: expected `newcomer.data.datasets.splits.digest` of names '<domain>/<class>/<file>'.
    - `complete`: false accepts a part of each domain.

    Raises DataError for a missing image or list, an image in both parts, and another split than expected.
    """
    root = locate(path, "DomainNet", GET)
    domains = list(SIZES) if domains is None else domains
    images = by_name(chain.from_iterable(class_files(root / domain, GET) for domain in domains), parts=3)
    names = (
        [name for domain in domains for name in read_list(root / f"{domain}_{part}.txt", GET, parts=3)]
        for part in ("train", "test")
    )
    train, test = (select_listed(part, images, root, GET) for part in names)
    sizes = sum(SIZES[domain][0] for domain in domains), sum(SIZES[domain][1] for domain in domains)
    return fixed_split(train, test, where=root, get=GET, sizes=sizes if complete else None, sha256=split_sha256)
