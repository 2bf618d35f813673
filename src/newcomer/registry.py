"""Learners and data sources by name, imported on access.

Learners are those of the library, and those of installed packages that register an entry point `newcomer.learners`.

A package with a learner of its own needs no change here; in its pyproject.toml:

    [project.entry-points."newcomer.learners"]
    my-method = "my_package.my_method:MyMethod"

The entry point's name is the learner's `name`. It then works in recipes, on the command line and in `newcomer.load`.
"""

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from newcomer.errors import SettingError, nearest
from newcomer.extras import optional_imports
from newcomer.training.learner import Learner

GROUP = "newcomer.learners"

CLASS_LEARNERS = {
    "sd-lora": "newcomer.classes.methods.sd_lora:SDLoRA",
    "sequential-lora": "newcomer.classes.methods.sequential_lora:SequentialLoRA",
    "frozen": "newcomer.classes.methods.frozen:FrozenBackbone",
    "inf-lora": "newcomer.classes.methods.inf_lora:InfLoRA",
    "ranpac": "newcomer.classes.methods.ranpac:RanPAC",
    "full-fine-tuning": "newcomer.classes.methods.full_fine_tuning:FullFineTuning",
    "l2p": "newcomer.classes.methods.l2p:L2P",
    "dual-prompt": "newcomer.classes.methods.dual_prompt:DualPrompt",
    "coda-prompt": "newcomer.classes.methods.coda_prompt:CODAPrompt",
    "klda": "newcomer.classes.methods.klda:KLDA",
    "slca": "newcomer.classes.methods.slca:SLCA",
    "ease": "newcomer.classes.methods.ease:EASE",
    "cl-lora": "newcomer.classes.methods.cl_lora:CLLoRA",
    "e2-lora": "newcomer.classes.methods.e2_lora:E2LoRA",
}
ITEM_LEARNERS = {
    "emerg": "newcomer.items.methods.emerg:EmerG",
    "id-tuning": "newcomer.items.methods.id_tuning:IdTuning",
    "dropout-net": "newcomer.items.methods.dropout_net:DropoutNet",
    "meta-embedding": "newcomer.items.methods.meta_embedding:MetaEmbedding",
    "mwuf": "newcomer.items.methods.mwuf:MWUF",
    "cvar": "newcomer.items.methods.cvar:CVAR",
    "logistic": "newcomer.items.methods.logistic:Logistic",
}
SHIPPED = CLASS_LEARNERS | ITEM_LEARNERS
CLASS_DATA = {
    "digits": "newcomer.data.datasets.digits:digits",
    "image-folder": "newcomer.data.io.image_folders:image_folder",
    "domain-folder": "newcomer.data.io.domain_folders:domain_folder",
    "cifar100": "newcomer.data.datasets.cifar100:cifar100",
    "imagenet-r": "newcomer.data.datasets.imagenet:imagenet_r",
    "imagenet-a": "newcomer.data.datasets.imagenet:imagenet_a",
    "cub-200": "newcomer.data.datasets.cub200:cub200",
    "domainnet": "newcomer.data.datasets.domainnet:domainnet",
    "text-table": "newcomer.data.io.text_tables:text_table",
    "banking77": "newcomer.data.io.text_tables:banking77",
}
ITEM_DATA = {
    "click-log": "newcomer.data.io.log_reader:click_log",
    "movielens-1m": "newcomer.data.datasets.movielens:movielens_1m",
    "movielens-latest": "newcomer.data.datasets.movielens:movielens_latest",
    "taobao-ads": "newcomer.data.datasets.taobao:taobao_ads",
    "world": "newcomer.data.datasets.simulated_clicks:simulate_click_log",
}


class DataSources(Mapping[str, Callable[..., Any]]):
    """Data sources of one family by name, imported on access."""

    def __init__(self, shipped: Mapping[str, str]) -> None:
        self.shipped = shipped

    def __getitem__(self, name: str) -> Callable[..., Any]:
        source: Callable[..., Any] = import_object(self.shipped[name])
        return source

    def __iter__(self) -> Iterator[str]:
        return iter(self.shipped)

    def __len__(self) -> int:
        return len(self.shipped)


class Learners(Mapping[str, type[Learner[Any, Any]]]):
    """Learners of one family by name, imported on access: those shipped, and plugins that subclass one of them or `base`."""

    def __init__(self, shipped: Mapping[str, str], base: str) -> None:
        self.shipped, self.base = shipped, base

    def __getitem__(self, name: str) -> type[Learner[Any, Any]]:
        if name in self.shipped:
            return find_learner(name)
        if name in plugins() and issubclass(kind := find_learner(name), import_object(self.base)):
            return kind
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        yield from self.shipped
        for name in plugins():
            with suppress(SettingError):  # a broken package is reported when its learner is asked for
                if name in self:
                    yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)


@cache
def plugins() -> dict[str, EntryPoint]:
    """Entry points of other packages' learners by name; the library's own names cannot be replaced."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in SHIPPED}


def find_learner(name: str) -> type[Learner[Any, Any]]:
    """The learner of this name.

    >>> find_learner("frozen").__name__
    'FrozenBackbone'

    Raises SettingError for an unknown name, and for an entry point that is no learner of this name.
    """
    if name in SHIPPED:
        shipped: type[Learner[Any, Any]] = import_object(SHIPPED[name])
        return shipped
    if name not in plugins():
        advice = nearest(name, [*SHIPPED, *plugins()], "install the package that provides it; known:")
        raise SettingError(f"no learner '{name}'; {advice}")
    point = plugins()[name]
    try:
        loaded = point.load()
    except Exception as error:  # whatever another package's import raises
        raise SettingError(
            f"learner '{name}': {point.value} cannot be imported ({error}); repair that package"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Learner) and getattr(loaded, "name", None) == name):
        raise SettingError(
            f"learner '{name}': {point.value} is no Learner with name = '{name}'; correct its entry point"
        )
    return loaded


def import_object(path: str) -> Any:
    """The object at this path, written as in an entry point.

    >>> import_object("newcomer.registry:GROUP")
    'newcomer.learners'
    """
    module, _, attribute = path.partition(":")
    with optional_imports():
        return getattr(import_module(module), attribute)


CLASSES = Learners(CLASS_LEARNERS, "newcomer.classes.learner:ClassLearner")
ITEMS = Learners(ITEM_LEARNERS, "newcomer.items.learner:ItemLearner")
LEARNERS: Mapping[str, type[Learner[Any, Any]]] = ChainMap(CLASSES, ITEMS)  # type: ignore[arg-type]  # never written to
