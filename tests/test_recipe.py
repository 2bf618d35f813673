"""Recipes: defaults are filled in, unknown settings are errors, and every shipped recipe takes two steps."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from newcomer.errors import RecipeError
from newcomer.experiments.recipe import FAMILIES, Recipe, read_recipe, shipped
from newcomer.experiments.run import run
from newcomer.registry import LEARNERS
from newcomer.settings import fill
from newcomer.training.learner import Step

ROWS = [
    pytest.param(name, position, id=f"{name}-{position}")
    for name in shipped()
    for position in range(len(read_recipe(name).rows()))
]
DIGITS = """
title = "Digits"
[data]
name = "digits"
[stream]
tasks = 2
[backbone]
name = "micro-vit"
[learner]
name = "sd-lora"
rank = 3
[baselines.joint.stream]
joint = true
[baselines.frozen.learner]
name = "frozen"
"""


def written(folder: Path, text: str = DIGITS) -> str:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("name", "position"), ROWS)
def test_every_row_of_every_shipped_recipe_is_filled(name: str, position: int) -> None:
    recipe = read_recipe(name).rows()[position]
    filled = recipe.resolved()
    assert recipe.position == position
    assert recipe.title != name
    assert json.loads(json.dumps(filled)) == filled  # else a run could not be resumed
    kind = LEARNERS[recipe.learner["name"]]
    settings = {key: value for key, value in recipe.learner.items() if key != "name"}
    assert fill(kind, settings, "learner", provided=[recipe.family.depends_on, "seed"]) == settings


def two_steps(recipe: Recipe) -> None:
    stream = recipe.build_stream()
    learner = recipe.build_learner(stream)
    events = run(learner, stream)
    steps = [event for event in islice(events, 2) if isinstance(event, Step)]
    events.close()  # type: ignore[attr-defined]
    assert steps
    assert learner.entries == []


EMBEDDED = [row for name in shipped() for row in read_recipe(name).rows() if "path" not in row.data]


@pytest.mark.parametrize("recipe", EMBEDDED, ids=lambda row: f"{row.name}-{row.row}")
@pytest.mark.always
def test_every_row_on_embedded_data_takes_two_steps(recipe: Recipe) -> None:
    two_steps(recipe)


@pytest.mark.parametrize("name", ["cifar100-vit-tiny", "banking77-minilm"])
def test_recipes_on_real_data_take_two_steps(
    name: str, real_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe(name)
    monkeypatch.setenv("NEWCOMER_DATA", str(real_data(recipe.data["path"]).parent))
    if name.endswith("vit-tiny"):
        recipe = replace(
            recipe, backbone={**recipe.backbone, "name": str(real_data("vit-tiny-patch16-224")), "size": 32}
        )
    two_steps(recipe)


@pytest.mark.parametrize("name", ["cifar100", "imagenet-r", "imagenet-a", "cub-200", "domainnet"])
def test_recipes_on_the_papers_data_take_two_steps_on_twenty_classes_of_it(
    name: str, tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe(name)
    monkeypatch.setenv("NEWCOMER_DATA", str(tmp_path))
    root = tmp_path / recipe.data["path"]
    for position in range(120):
        part = "train" if position % 3 else "test"
        file = Path(f"class {position // 6}", f"{position}.png")
        path = root / ("real" if name == "domainnet" else part) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), (position, 0, 0)).save(path)
        with (root / f"real_{part}.txt").open("a") as listed:
            listed.write(f"real/{file} {position // 6}\n")
    data = dict(recipe.data) | ({} if name == "cifar100" else {"complete": False})
    data |= {"domains": ["real"]} if name == "domainnet" else {}
    two_steps(replace(recipe, data=data, backbone={**recipe.backbone, "name": str(tiny("vit"))}))


def test_row_names_are_unique_and_learners_have_their_registered_names() -> None:
    for family in FAMILIES:
        assert all(kind.name == name for name, kind in family.learners.items())
    rows = [row.row for row in read_recipe("digits").rows()]
    assert len(set(rows)) == len(rows)


def test_a_users_file_is_filled_with_defaults(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path))
    assert (recipe.name, recipe.row, recipe.title, recipe.seed) == ("mine", "sd-lora", "Digits", 0)
    assert recipe.learner["rank"] == 3
    assert recipe.learner["learning_rate"] == 0.002
    assert recipe.stream["eval_split"] == "test"
    assert recipe.backbone["size"] is None
    joint, frozen = recipe.rows()[1:]
    assert joint.stream["joint"]
    assert joint.learner == recipe.learner
    assert (frozen.row, frozen.learner["head"], frozen.stream) == ("frozen", "lda", recipe.stream)
    assert [row.with_seed(4).resolved()["seed"] for row in (joint, frozen)] == [4, 4]


@pytest.mark.parametrize(
    ("change", "path", "value"),
    [
        ("learner.rank=4", ("learner", "rank"), 4),
        ("learner.learning_rate = 1e-2", ("learner", "learning_rate"), 0.01),
        ("learner.schedule=cosine", ("learner", "schedule"), "cosine"),
        ('learner.schedule="cosine"', ("learner", "schedule"), "cosine"),
        ('stream.tasks=[["0","1"],["2"]]', ("stream", "tasks"), [["0", "1"], ["2"]]),
        ("stream.joint=true", ("stream", "joint"), True),
        ("title=a = b", ("title",), "a = b"),
        ("seed=7", ("seed",), 7),
        ("learner.name=frozen", ("learner", "head"), "lda"),
        ("backbone.name=/a/b", ("backbone", "name"), "/a/b"),
    ],
)
def test_changes_are_applied_to_their_setting(change: str, path: tuple[str, ...], value: Any, tmp_path: Path) -> None:
    found: Any = read_recipe(written(tmp_path), [change]).resolved()
    for key in path:
        found = found[key]
    assert found == value


def test_the_seed_argument_overrides_changes(tmp_path: Path) -> None:
    assert read_recipe(written(tmp_path), ["seed=7"], seed=9).seed == 9


def test_seeds_default_to_one(tmp_path: Path) -> None:
    assert read_recipe(written(tmp_path)).seeds == 1
    assert read_recipe(written(tmp_path), ["seeds=2"]).seeds == 2
    thrice = read_recipe(written(tmp_path, "seeds = 3\n" + DIGITS))
    assert [row.seeds for row in thrice.rows()] == [3, 3, 3]  # baselines have as many seeds
    assert (
        thrice.resolved() == read_recipe(written(tmp_path)).resolved()
    )  # a run does not depend on the number of seeds


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "[1,2]"])
def test_invalid_numbers_of_seeds_are_errors(value: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.seeds = .* cannot be") as caught:
        read_recipe(written(tmp_path), [f"seeds={value}"])
    assert "\n" not in str(caught.value)


BASELINES = """
[baselines.higher.learner]
rank = 5
[baselines.named.learner]
name = "sd-lora"
epochs = 2
[baselines.other.learner]
name = "sequential-lora"
[baselines.both]
stream = { tasks = 3 }
learner = { epochs = 4 }
"""


def test_a_baseline_without_a_learner_name_changes_the_recipes_learner(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, DIGITS + BASELINES))
    assert recipe.with_baseline("higher").learner == {**recipe.learner, "rank": 5}
    both = recipe.with_baseline("both")
    assert both.learner == {**recipe.learner, "epochs": 4}
    assert both.stream == {**recipe.stream, "tasks": 3}


def test_a_baseline_with_a_learner_name_inherits_no_settings(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, DIGITS + BASELINES))
    fresh = read_recipe(written(tmp_path, DIGITS.replace("rank = 3", "epochs = 2"))).learner
    named = recipe.with_baseline("named").learner
    assert named == fresh
    assert named["rank"] != recipe.learner["rank"] == 3
    other = recipe.with_baseline("other").learner
    assert (other["name"], other["rank"]) == ("sequential-lora", named["rank"])


def test_changes_of_the_learner_apply_to_baselines_without_a_learner_name(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, DIGITS + BASELINES), ["learner.batch_size=7", "learner.rank=9"])
    assert (recipe.with_baseline("higher").learner["batch_size"], recipe.with_baseline("higher").learner["rank"]) == (
        7,
        5,
    )
    assert recipe.with_baseline("named").learner["batch_size"] != 7


def test_an_invalid_setting_of_a_baseline_is_named_with_the_baseline(tmp_path: Path) -> None:
    text = DIGITS + "[baselines.higher.learner]\nrnak = 5\n"
    with pytest.raises(RecipeError, match=r"in \[baselines\.higher\]: learner\.rnak is not a setting of sd-lora"):
        read_recipe(written(tmp_path, text)).rows()


@pytest.mark.parametrize(
    "change",
    [
        "learner",
        "learner.rank",
        "=3",
        "learner=3",
        "rank=3",
        "baselines.frozen.learner.name=x",
        "learner.=3",
        "seed.x=3",
    ],
)
def test_a_malformed_change_is_an_error(change: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"write it as part\.setting=value, e\.g\. learner\.rank=4"):
        read_recipe(written(tmp_path), [change])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["learner.rnak=4"], r"learner\.rnak is not a setting of sd-lora; did you mean 'rank'\?"),
        (["learner.rank=0"], r"learner\.rank = 0 cannot be"),
        (["learner.rank=many"], r"learner\.rank = 'many' cannot be"),
        (["learner.name=sd-lorra"], r"learner\.name = 'sd-lorra' is not a learner; did you mean 'sd-lora'\?"),
        (["learner.name=frozen", "learner.rank=4"], r"learner\.rank is not a setting of frozen"),
        (["learner.seed=4"], r"learner\.seed is not a setting of sd-lora"),
        (["learner.backbone=x"], r"learner\.backbone is not a setting of sd-lora"),
        (["stream.task=4"], r"stream\.task is not a setting of ClassIncremental; did you mean 'tasks'\?"),
        (["stream.train=x"], r"stream\.train is not a setting"),
        (["data.name=digit"], r"data\.name = 'digit' is not a data source for classes; did you mean 'digits'\?"),
        (["data.name=cifar100", "data.pth=x"], r"data\.pth is not a setting of cifar100; did you mean 'path'\?"),
        (["data.name=image-folder"], r"data\.path is missing; image_folder needs it"),
        (["backbone.pool=cls"], r"backbone\.pool is not a setting of Backbone; did you mean 'pooling'\?"),
        (["backbone.size=-1"], r"backbone\.size = -1 cannot be"),
        (["seed=x"], r"recipe\.seed = 'x' cannot be"),
    ],
)
def test_unknown_and_invalid_settings_are_named(changes: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe(written(tmp_path), changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[stream]", "[straem]", r"straem is not part of a recipe; did you mean 'stream'\?"),
        ('title = "Digits"', 'titel = "Digits"', r"titel is not part of a recipe; did you mean 'title'\?"),
        ('[learner]\nname = "sd-lora"', "[learner]", r"learner\.name is missing"),
        ('[data]\nname = "digits"', "data = 3", r"data = 3 is not a table; write \[data\]"),
        ('[backbone]\nname = "micro-vit"', "", r"backbone\.name is missing; Backbone needs it"),
        ("tasks = 2", "tasks = ", r"mine\.toml: cannot be read as a recipe"),
        (
            "[baselines.joint.stream]",
            "[baselines.joint.straem]",
            r"in \[baselines\.joint\]: straem is not part of a recipe; did you mean 'stream'",
        ),
        (
            "joint = true",
            "joimt = true",
            r"in \[baselines\.joint\]: stream\.joimt is not a setting .* did you mean 'joint'",
        ),
        (
            'name = "frozen"',
            'name = "frozne"',
            r"in \[baselines\.frozen\]: learner\.name = 'frozne' is not a learner; did you mean 'frozen'",
        ),
        (
            "[baselines.joint.stream]\njoint = true",
            "[baselines]\njoint = 3",
            r"in \[baselines\.joint\]: joint = 3 is not a table",
        ),
        (
            "[baselines.joint.stream]\njoint = true",
            "[baselines.joint]\nstream = 3",
            r"in \[baselines\.joint\]: stream = 3 is not a table",
        ),
    ],
)
def test_invalid_files_are_errors_at_every_level(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in DIGITS
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe(written(tmp_path, DIGITS.replace(old, new))).rows()
    assert "\n" not in str(caught.value)


def test_a_change_of_a_part_that_is_not_a_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="data = 3 is not a table"):
        read_recipe(written(tmp_path, DIGITS.replace('[data]\nname = "digits"', "data = 3")), ["data.seed=3"])


def test_unknown_recipes_and_baselines_suggest_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'digit'; did you mean 'digits'\? or give a \.toml file"):
        read_recipe("digit")
    with pytest.raises(RecipeError, match=r"nowhere\.toml: cannot be read as a recipe"):
        read_recipe("nowhere.toml")
    (tmp_path / "latin.toml").write_bytes('title = "größer"'.encode("latin-1"))
    with pytest.raises(RecipeError, match=r"latin\.toml: cannot be read as a recipe"):
        read_recipe(str(tmp_path / "latin.toml"))
    with pytest.raises(RecipeError, match=r"recipe 'mine' has no baseline 'frozne'; did you mean 'frozen'"):
        read_recipe(written(tmp_path)).with_baseline("frozne")


def test_a_learner_is_built_from_its_recipe(tmp_path: Path) -> None:
    recipe: Recipe = read_recipe(written(tmp_path), ["stream.classes=4"], seed=3)
    stream = recipe.build_stream()
    learner = recipe.build_learner(stream)
    assert len(stream) == 2
    assert learner.settings == {key: value for key, value in recipe.learner.items() if key != "name"} | {"seed": 3}


SEARCH = """
[search]
budget = 3
floor = ["frozen"]
ceiling = ["joint"]
[search.settings]
learning_rate = [1e-3, 2e-3]
rank = [3, "6"]
[baselines.frozen.search.settings]
shrinkage = [0.1, 0.3]
[baselines.prototypes.learner]
name = "frozen"
head = "prototypes"
"""


def test_a_row_has_its_own_grid_or_the_settings_that_its_learner_has(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, DIGITS + SEARCH))
    found = {row.row: row.search for row in recipe.rows()}
    rates = {"learning_rate": [0.001, 0.002], "rank": [3, 6]}
    assert {row: search.settings for row, search in found.items()} == {
        "sd-lora": rates,
        "joint": rates,
        "frozen": {"shrinkage": [0.1, 0.3]},
        "prototypes": {},
    }
    assert {(search.budget, search.seed) for search in found.values()} == {(3, 100)}
    assert (recipe.search.floor, recipe.search.ceiling) == (["frozen"], ["joint"])


def test_a_run_does_not_depend_on_the_search(tmp_path: Path) -> None:
    plain, searched = (read_recipe(written(tmp_path, text)) for text in (DIGITS, DIGITS + SEARCH))
    for row in ("joint", "frozen"):
        assert plain.with_baseline(row).resolved() == searched.with_baseline(row).resolved()
    assert not plain.search.settings


def test_a_call_can_change_a_search_and_another_learner_has_none_of_the_file(tmp_path: Path) -> None:
    changed = read_recipe(written(tmp_path, DIGITS + SEARCH), ["search.budget=9", "search.settings={rank=[1,2]}"])
    assert changed.search.budget == changed.with_baseline("joint").search.budget == 9
    assert changed.search.settings == {"rank": [1, 2]}
    inner = read_recipe(written(tmp_path, DIGITS + SEARCH), ["search.settings.rank=[1,3]"]).search.settings
    assert inner["rank"] == [1, 3]
    assert inner.keys() > {"rank"}
    with pytest.raises(RecipeError, match="rank = 5 is not a table"):
        read_recipe(written(tmp_path, DIGITS + SEARCH), ["learner.rank=5", "learner.rank.x=1"])
    assert not read_recipe(written(tmp_path, DIGITS + SEARCH), ["learner.name=frozen"]).search.settings


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("budget = 3", "budget = 0", r"search\.budget = 0 cannot be"),
        ("budget = 3", "budgte = 3", r"search\.budgte is not part of a search; did you mean 'budget'"),
        ('floor = ["frozen"]', 'floor = ["frozne"]', r"search\.floor: there is no row 'frozne'; did you mean 'frozen'"),
        ("rank = [3", "rnak = [3", r"search\.settings\.rnak is not a setting of sd-lora; did you mean 'rank'"),
        ('"6"]', "0]", r"search\.settings\.rank = 0 cannot be"),
        ('[3, "6"]', "3", r"search\.settings\.rank = 3 is not a list of values; write \[one, another\]"),
        ('[3, "6"]', "[]", r"search\.settings\.rank = \[\] is not a list of values"),
        ('[3, "6"]', '[3, "3"]', r"search\.settings\.rank has 3 twice; remove one"),
        ("shrinkage = [", "rank = [", r"in \[baselines\.frozen\]: search\.settings\.rank is not a setting of frozen"),
        (
            "frozen.search.settings",
            "frozen.search",
            r"in \[baselines\.frozen\]: search\.shrinkage is not part of a recipe",
        ),
    ],
)
def test_a_search_with_a_mistake_is_one_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in SEARCH
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe(written(tmp_path, DIGITS + SEARCH.replace(old, new))).rows()
    assert "\n" not in str(caught.value)
