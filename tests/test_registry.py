"""Learners of other packages: found through an entry point, by recipes, by the command line and by `newcomer.load`."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import newcomer
from newcomer import registry
from newcomer.data.examples import Examples
from newcomer.errors import RecipeError, SettingError
from newcomer.experiments.recipe import read_recipe
from newcomer.registry import CLASSES, ITEMS, find_learner
from shell import Shell

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


def install(site: Path, code: str, points: str) -> None:
    """A package as pip installs it."""
    (site / "feature_adapter.py").write_text(code)
    info = site / "feature_adapter-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: feature-adapter\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[newcomer.learners]\n{points}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("feature_adapter", None)
    registry.plugins.cache_clear()


@pytest.fixture
def method(site: Path) -> str:
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    install(site, code, "feature-adapter = feature_adapter:FeatureAdapter\nsd-lora = feature_adapter:FeatureAdapter")
    registry.plugins.cache_clear()
    return str(code)


def test_the_documented_method_learns_saves_and_loads(
    method: str, tiny: Callable[[str], Path], tasks: list[Examples], tmp_path: Path
) -> None:
    kind = find_learner("feature-adapter")
    learner = kind(str(tiny("vit")), hidden=8, epochs=1)  # type: ignore[call-arg]
    for task in tasks[:2]:
        learner.learn(task)  # type: ignore[attr-defined]
    learner.save(tmp_path / "store")
    loaded = newcomer.load(tmp_path / "store")
    assert loaded.settings == learner.settings
    assert (loaded.settings["hidden"], loaded.settings["epochs"], loaded.settings["learning_rate"]) == (8, 1, 1e-3)
    assert torch.equal(loaded.logits(tasks[0].inputs), learner.logits(tasks[0].inputs))  # type: ignore[attr-defined]
    body = method[method.index("class ResidualMLP") :]
    assert len([line for line in body.splitlines() if line.strip()]) <= 42


def test_it_works_in_recipes_and_on_the_command_line(method: str, shell: Shell) -> None:
    recipe = read_recipe("digits", ["learner.name=feature-adapter", "learner.hidden=4"])
    assert (recipe.learner["hidden"], recipe.family.name) == (4, "classes")
    assert "feature-adapter" in CLASSES
    assert "feature-adapter" not in ITEMS
    changes = [
        f"--set={word}" for word in ("learner.name=feature-adapter", "stream.train_per_class=2", "learner.epochs=1")
    ]
    assert shell.call("run", "digits", *changes, "--out", "runs")[0] == 0
    assert "feature-adapter" in shell.call("inspect", "runs/feature-adapter/seed-0/store")[1]


def test_a_shipped_name_cannot_be_replaced(method: str) -> None:
    assert find_learner("sd-lora") is newcomer.SDLoRA


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nowhere_at_all", "cannot be imported"),
        ("FeatureAdapter = dict", "is no Learner with name = 'feature-adapter'"),
        ("", "cannot be imported"),
    ],
)
def test_a_broken_package_is_named_when_it_is_asked_for(code: str, message: str, site: Path) -> None:
    install(site, code, "feature-adapter = feature_adapter:FeatureAdapter")
    registry.plugins.cache_clear()
    assert read_recipe("digits").learner["name"] == "sd-lora"
    with pytest.raises(SettingError, match=message):
        find_learner("feature-adapter")
    with pytest.raises(RecipeError, match="feature-adapter"):
        read_recipe("digits", ["learner.name=feature-adapter"])


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(SettingError, match=r"no learner 'sd-lra'; did you mean 'sd-lora'\?"):
        find_learner("sd-lra")


def test_a_users_subclass_keeps_its_own_settings(
    tiny: Callable[[str], Path], tasks: list[Examples], tmp_path: Path
) -> None:
    class Late(newcomer.SDLoRA):
        name = "late-sd-lora"

        def __init__(self, backbone: str, *, first_layer: int = 6, **settings: object) -> None:
            self.first_layer = first_layer
            super().__init__(backbone, **settings)  # type: ignore[arg-type]

    learner = Late(str(tiny("vit")), first_layer=1, epochs=1, rank=2).learn(tasks[0])
    learner.save(tmp_path / "store")
    loaded = Late.load(tmp_path / "store")
    assert (loaded.first_layer, loaded.rank, loaded.settings["epochs"]) == (1, [[1, 2]], 1)
    assert loaded.settings == learner.settings
    assert torch.equal(loaded.logits(tasks[0].inputs), learner.logits(tasks[0].inputs))
    with pytest.raises(SettingError, match="first_layer = 'x' cannot be"):
        Late(str(tiny("vit")), first_layer="x")  # type: ignore[arg-type]
