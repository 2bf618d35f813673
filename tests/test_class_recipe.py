"""A recipe written for one's own pictures or texts, and data of one part that is split into two."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from newcomer.data.examples import Examples
from newcomer.data.inference.class_recipe import propose_classes
from newcomer.data.io.image_folders import image_folder
from newcomer.data.io.text_tables import text_table
from newcomer.data.io.train_test_split import stratified
from newcomer.errors import DataError
from newcomer.experiments.recipe import read_recipe
from newcomer.store.folder import Store
from shell import Shell


def table(file: Path, counts: dict[str, int], columns: tuple[str, str] = ("text", "label")) -> Path:
    rows = [f"{name} number {i},{name}" for name, count in counts.items() for i in range(count)]
    file.write_text("\n".join([",".join(columns), *rows]) + "\n")
    return file


def proposed(counts: dict[str, int], *, reads_images: bool = True) -> tuple[int, int, str]:
    labels = [name for name, count in counts.items() for _ in range(count)]
    examples = Examples(["x"] * len(labels), labels)
    found = propose_classes(Path("p"), examples, reads_images=reads_images, columns=("text", "label"), has_test=False)
    return found.tasks, found.epochs, found.head


def test_a_split_takes_its_share_of_every_class_and_is_the_same_every_time() -> None:
    counts = {"a": 50, "b": 10, "c": 3, "d": 2, "e": 1}
    examples = Examples(
        [f"{n} {i}" for n in counts for i in range(counts[n])], [n for n in counts for _ in range(counts[n])]
    )
    train, test = stratified(examples, 0.3, 7, "x")
    assert Counter(test.labels) == {"a": 15, "b": 3, "c": 1, "d": 1}
    assert len(train) + len(test) == len(examples)
    assert {*train.inputs, *test.inputs} == {*examples.inputs}
    again, other = stratified(examples, 0.3, 7, "x")[1], stratified(examples, 0.3, 8, "x")[1]
    assert list(again.inputs) == list(test.inputs) != list(other.inputs)
    assert Counter(stratified(examples, 0.99, 7, "x")[0].labels)["d"] == 1  # something is always left to train on


def test_a_split_of_what_cannot_be_split_is_refused(tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(
        DataError, match=r"one.csv: no class has two examples, so none can be tested on; add some, or give a test"
    ):
        text_table(str(table(tmp_path / "one.csv", {"a": 1, "b": 1})))
    whole = str(table(tmp_path / "t.csv", {"a": 9, "b": 9}))
    with pytest.raises(
        DataError, match=r"t.csv: has a test part of its own, but test_share = 0.5; leave one of them out"
    ):
        text_table(whole, whole, test_share=0.5)
    with pytest.raises(DataError, match=r"has a test part of its own, but test_share = 0.5"):
        image_folder(str(pictures), test_share=0.5)


@pytest.fixture
def pictures(shell: Shell) -> Path:
    return shell.folder / "birds"


def test_a_folder_without_parts_is_split(pictures: Path) -> None:
    whole = image_folder(str(pictures))[0]
    train, test = image_folder(str(pictures / "train"), test_share=0.5, seed=1)
    assert train.classes == test.classes == whole.classes
    assert len(train) + len(test) == len(whole)
    assert not set(map(str, train.inputs)) & {""}


@pytest.mark.parametrize(
    ("counts", "images", "wanted"),
    [
        ({"a": 2, "b": 90}, True, (1, 20, "prototypes")),
        ({"a": 3, "b": 3, "c": 3}, True, (1, 20, "auto")),
        ({str(n): 400 for n in range(11)}, True, (5, 4, "auto")),
        ({str(n): 9000 for n in range(10)}, True, (5, 2, "auto")),
        ({str(n): 30 for n in range(77)}, False, (5, 8, "auto")),
    ],
)
def test_tasks_epochs_and_head_follow_the_numbers(counts: dict[str, int], images: bool, wanted: object) -> None:
    assert proposed(counts, reads_images=images) == wanted


def test_inspect_writes_a_recipe_of_a_folder_that_runs(shell: Shell, tiny: Callable[[str], Path]) -> None:
    """With parts, and of a folder without any, whose examples the recipe splits."""
    for folder in ("birds", "birds/train"):
        (shell.folder / "own.toml").unlink(missing_ok=True)
        code, out, err = shell.call("inspect", folder, "--write", "own.toml")
        assert (code, err) == (0, "")
        assert "4 classes: 2 tasks, 20 epochs, head 'auto'." in out
        assert "own.toml: written" in out
        recipe = read_recipe(str(shell.folder / "own.toml"))
        assert recipe.data["path"] == folder
        assert ("test_share = 0.2" in (shell.folder / "own.toml").read_text()) == (folder != "birds")
        assert [row.row for row in recipe.rows()] == ["sd-lora", "frozen", "simple-cil"]
    edited = (shell.folder / "own.toml").read_text()
    assert "--write own.toml: is there already, perhaps edited" in shell.fails(
        "inspect", "birds", "--write", "own.toml"
    )
    assert (shell.folder / "own.toml").read_text() == edited
    words = ("run", "own.toml", "--baseline", "frozen", "--seeds", "1", "--set", f"backbone.name={tiny('vit')}")
    code, _, err = shell.call(*words)
    assert code == 0, err


def test_inspect_writes_a_recipe_of_domains_that_runs(shell: Shell, tiny: Callable[[str], Path]) -> None:
    """Those with the most classes come first; a folder whose parts have domains is one, too."""
    for domain, classes in {"drawn": ["finch", "robin"], "photo": ["finch", "robin", "wren"]}.items():
        for name in classes:
            shutil.copytree(shell.folder / "birds" / "train" / name, shell.folder / "of" / domain / name)
            for part in ("train", "test"):
                copied = shell.folder / "parts" / part / domain / name
                shutil.copytree(shell.folder / "birds" / part / name, copied)
    for folder in ("of", "parts"):
        (shell.folder / "own.toml").unlink(missing_ok=True)
        code, out, err = shell.call("inspect", folder, "--write", "own.toml")
        assert (code, err) == (0, "")
        assert "15 examples of 3 classes in the domains photo, drawn: 2 tasks, 20 epochs, head 'auto'." in out
        recipe = read_recipe(str(shell.folder / "own.toml"))
        wanted = {"name": "domain-incremental", "domains": ["photo", "drawn"], "complete": False}
        assert {key: recipe.stream[key] for key in wanted} == wanted
        assert recipe.data.get("test_share") == (0.2 if folder == "of" else None)
        words = ("run", "own.toml", "--baseline", "frozen", "--seeds", "1", "--set", f"backbone.name={tiny('vit')}")
        code, _, err = shell.call(*words, "--out", folder + "-runs")
        assert code == 0, err
    assert json.loads(shell.call("inspect", "of", "--json")[1])["domains"] == ["photo", "drawn"]
    shutil.rmtree(shell.folder / "of" / "photo")
    assert "has one domain, 'drawn'; give its folder, of/drawn" in shell.fails("inspect", "of")


def test_inspect_knows_a_table_of_texts(shell: Shell) -> None:
    table(shell.folder / "tickets.csv", {"lost": 6, "rate": 6})
    table(shell.folder / "named.csv", {"lost": 6, "rate": 6}, ("question", "intent"))
    found = json.loads(shell.call("inspect", "tickets.csv", "--json")[1])
    assert found == {"classes": {"lost": 6, "rate": 6}, "tasks": 1, "epochs": 20, "head": "auto"}
    code, out, _ = shell.call("inspect", "named.csv", "--text", "question", "--label", "intent", "--write", "n.toml")
    assert code == 0, out
    recipe = read_recipe(str(shell.folder / "n.toml"))
    assert (recipe.data["train"], recipe.data["text"], recipe.data["label"]) == ("named.csv", "question", "intent")
    train, test = recipe.build_stream()._train.examples, recipe.build_stream()._eval.examples
    assert (len(train), len(test)) == (10, 2)


def test_what_inspect_cannot_use_is_one_line(shell: Shell) -> None:
    table(shell.folder / "one.csv", {"lost": 6})
    assert "has one class, 'lost'; a stream needs two or more" in shell.fails("inspect", "one.csv")
    assert "--column says nothing of birds, which is a folder of pictures" in shell.fails(
        "inspect", "birds", "--column", "item=a"
    )
    assert "no column" in shell.fails("inspect", "one.csv", "--text", "body")
    assert "birds: a folder, and --text and --label are for a table" in shell.fails(
        "inspect", "birds", "--text", "body"
    )


def test_classes_are_learned_by_pattern(shell: Shell, tiny: Callable[[str], Path]) -> None:
    words = ("learn", "m", "birds/train", "--backbone", str(tiny("vit")), "--learner", "frozen")
    message = shell.fails(*words, "--class", "wrn")
    assert "birds/train: no class is or matches --class wrn; did you mean 'wren'?" in message
    code, out, err = shell.call(*words, "--class", "*in*", "--class", "tit")
    assert (code, err) == (0, "")
    assert "new classes: finch, robin, tit" in out
    classes = Store(shell.folder / "m").entries()[-1].info["new classes"]
    assert classes == ["finch", "robin", "tit"]
    shutil.rmtree(shell.folder / "m")
