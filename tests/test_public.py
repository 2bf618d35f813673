"""The public interface of the package."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from importlib import metadata, resources

import pytest

import newcomer
from newcomer import registry

MODULES = [module.name for module in pkgutil.walk_packages(newcomer.__path__, "newcomer.")]


LEARNERS = [
    "SDLoRA",
    "SequentialLoRA",
    "FrozenBackbone",
    "InfLoRA",
    "RanPAC",
    "FullFineTuning",
    "L2P",
    "DualPrompt",
    "CODAPrompt",
    "KLDA",
    "SLCA",
    "E2LoRA",
    "EASE",
    "CLLoRA",
    "EmerG",
    "IdTuning",
    "DropoutNet",
    "MetaEmbedding",
    "MWUF",
    "CVAR",
    "Logistic",
]
ERRORS = [
    "NewcomerError",
    "ServiceError",
    "SettingError",
    "RecipeError",
    "DataError",
    "StreamError",
    "LearnerError",
    "StoreError",
    "MissingExtraError",
    "DataWarning",
]
OTHERS = [
    "AsyncClient",
    "ClassIncremental",
    "Client",
    "ColdStart",
    "DomainIncremental",
    "Examples",
    "Field",
    "ItemService",
    "NewcomerClassifier",
    "Schema",
    "load",
]


def test_the_public_names_are_exactly_these() -> None:
    assert sorted(newcomer.__all__) == sorted([*LEARNERS, *ERRORS, *OTHERS]) == sorted(dir(newcomer))
    assert all(inspect.isclass(getattr(newcomer, name)) for name in newcomer.__all__ if name != "load")
    assert {kind.__name__ for kind in registry.CLASSES.values()} | {
        kind.__name__ for kind in registry.ITEMS.values()
    } == set(LEARNERS)
    with pytest.raises(AttributeError, match="module 'newcomer' has no attribute 'SDLora'"):
        newcomer.SDLora  # noqa: B018


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, newcomer; print([m for m in ('torch', 'transformers', 'polars', 'matplotlib') if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    assert module.__doc__.strip()
    public = [
        (key, thing)
        for key, thing in vars(module).items()
        if not key.startswith("_")
        and getattr(thing, "__module__", None) == name
        and (inspect.isclass(thing) or inspect.isfunction(thing))
    ]
    assert [key for key, thing in public if not thing.__doc__ and name != "newcomer.cli"] == []


def test_the_package_carries_what_it_needs() -> None:
    files = resources.files("newcomer")
    assert (files / "py.typed").is_file()
    assert (files / "experiments" / "report" / "page.html.jinja").is_file()
    assert {path.name for path in (files / "experiments" / "recipes").iterdir()} >= {
        "digits.toml",
        "cifar100-vit-tiny.toml",
        "cifar100.toml",
        "imagenet-r.toml",
        "imagenet-a.toml",
        "cub-200.toml",
        "domainnet.toml",
        "domainnet-domains.toml",
        "banking77-minilm.toml",
        "world.toml",
        "ml-1m.toml",
    }
    assert {path.name for path in (files / "data" / "embedded" / "micro-vit").iterdir()} >= {
        "config.json",
        "model.safetensors",
    }
    assert metadata.version("newcomer").count(".") == 2
