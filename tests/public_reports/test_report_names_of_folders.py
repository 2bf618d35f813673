"""A name in a file never becomes a path: of a peer, of a row, of a seed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from newcomer.comparison import compare
from newcomer.errors import RecipeError, StoreError
from newcomer.recipe import read_recipe
from newcomer.report.comparison import read_comparison
from newcomer.report.runs import find_runs
from shell import Shell

OUTSIDE = [
    "../outside",
    "..",
    ".",
    "",
    "a/b",
    "/tmp/x",
    "a\\\\b",
    "C:x",
    ".lock",
    " x",
    "a\\u0000b",
    "a\\nb",
    "x" * 300,
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_peer_is_not_a_path(name: str, shell: Shell) -> None:
    """CWE-22: a recipe from a forum whose peer was called `../../.ssh`: its runs were written there."""
    recipe = shell.folder / "birds.toml"
    recipe.write_text(recipe.read_text() + f'[peers."{name}".learner]\nname = "frozen"\n')
    for words in (["run", "birds.toml", "--peers"], ["compare", "birds.toml"], ["run", "birds.toml"]):
        assert "cannot be called so" in shell.fails(*words, "--out", "runs")
    assert not (shell.folder / "runs").exists()


@pytest.mark.parametrize("name", ["sd-lora", "SD-LoRA"])
def test_two_rows_do_not_share_a_folder(name: str, shell: Shell) -> None:
    """A peer that was called as the recipe's own row: the second found the folder of the first, 'of other settings'."""
    recipe = shell.folder / "birds.toml"
    recipe.write_text(recipe.read_text() + f'[peers.{name}.learner]\nname = "frozen"\n')
    assert "would share a folder" in shell.fails("run", "birds.toml", "--peers", "--out", "runs")


@pytest.mark.parametrize("name", ["..toml", "...toml"])
def test_a_recipe_without_a_name_is_refused(name: str, shell: Shell) -> None:
    """Its runs would lie in `runs/..`."""
    (shell.folder / name).write_text((shell.folder / "birds.toml").read_text())
    assert "has no name" in shell.fails("run", name)


def row(**changes: Any) -> dict[str, Any]:
    tried = {"settings": {}, "counts": True, "score": 50.0, "seconds": 1.0, "failure": None}
    whole = {"place": 0, "base": {}, "combinations": 1, "tries": [tried], "chosen": {}, "score": 50.0, "ran": {}}
    return {**whole, "seeds": [0], "failures": {}, **changes}


def comparison(**changes: Any) -> dict[str, Any]:
    whole = {
        "name": "birds",
        "title": "Birds",
        "family": "classes",
        "floor": [],
        "ceiling": [],
        "rows": {"sd-lora": row()},
    }
    return {**whole, **changes}


WRONG = [
    comparison(rows={"../outside": row()}),
    comparison(rows={"..": row()}),
    comparison(rows={"sd-lora": row(seeds=["../../outside"])}),
    comparison(rows={"sd-lora": row(seeds=["0/../../victim"])}),
    comparison(rows={"sd-lora": row(seeds=0)}),
    comparison(rows={"sd-lora": row(tries=[3])}),
    comparison(rows={"sd-lora": row(tries=[{"settings": [], "counts": True}])}),
    comparison(rows={"sd-lora": row(score="much")}),
    comparison(rows={"sd-lora": row(score=float("nan"))}),
    comparison(rows=[row()]),
    comparison(rows={"sd-lora": None}),
    comparison(family="birds"),
    [],
    3,
    None,
    "text",
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_a_comparison_of_another_maker_removes_and_reads_nothing_outside(number: int, shell: Shell) -> None:
    """A folder that was sent: its comparison.json named a seed `0/../../victim`, whose folder `compare` removed."""
    victim = shell.folder / "victim"
    victim.mkdir()
    (victim / "record.jsonl").write_text("precious")
    out = shell.folder / "compared" / "birds"
    out.mkdir(parents=True)
    (out / "comparison.json").write_text(json.dumps(WRONG[number]))
    with pytest.raises(StoreError, match="cannot be read as a comparison"):
        read_comparison(out)
    assert "cannot be read as a comparison" in shell.fails("compare", "birds.toml", "--out", "compared")
    assert (victim / "record.jsonl").read_text() == "precious"


def start() -> dict[str, Any]:
    recipe = {"name": "b", "row": "sd-lora", "title": "B", "seed": 0, "family": "classes"}
    return {
        "event": "start",
        "place": 0,
        "recipe": recipe,
        "stream": {"tasks": [["a"]], "taught": 1, "asked": 1},
        "versions": {},
        "commit": None,
        "machine": {"system": "", "processor": "", "threads": 1, "gpu": None},
    }


STAGE = {"event": "stage", "stage": "task 0", "study_seconds": 1.0, "exam_seconds": 1.0, "facts": {}}
SCORE = {"event": "score", "stage": "task 0", "exam": "task 0", "values": {"accuracy": 1.0, "examples": 1.0}}
END = {"event": "end"}
CHANGES: list[Callable[[list[dict[str, Any]]], object]] = [
    lambda r: r.pop(0),
    lambda r: r[0].pop("recipe"),
    lambda r: r[0].update(recipe=["b"]),
    lambda r: r[0]["recipe"].update(seed="0/../.."),
    lambda r: r[0].update(machine=None),
    lambda r: r[0].update(place="first"),
    lambda r: r[0].update(stream={"tasks": 3}),
    lambda r: r[0].update(versions=[]),
    lambda r: r[1].update(values=[1]),
    lambda r: r[1].update(values={"accuracy": "all"}),
    lambda r: r[1].update(values={}),
    lambda r: r[1].update(exam=["task 0"]),
    lambda r: r[2].pop("facts"),
    lambda r: r[2].update(study_seconds="long"),
    lambda r: r[2].update(facts={"magnitudes": "large"}),
    lambda r: r[2].update(facts={"cost": 3}),
]


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_no_record_ends_in_a_trace(number: int, shell: Shell) -> None:
    """A record of other types than ours: KeyError, TypeError."""
    record = [start(), dict(SCORE), dict(STAGE), END]
    CHANGES[number](record)
    (shell.folder / "runs").mkdir()
    (shell.folder / "runs" / "record.jsonl").write_text("".join(json.dumps(event) + "\n" for event in record))
    code, _, err = shell.call("report", "runs")
    assert (code, err.count("\n")) in ((0, 0), (2, 1)), err


def test_such_a_record_as_it_should_be_is_told(shell: Shell) -> None:
    (shell.folder / "runs").mkdir()
    (shell.folder / "runs" / "record.jsonl").write_text(
        "".join(json.dumps(event) + "\n" for event in (start(), SCORE, STAGE, END))
    )
    assert shell.call("report", "runs")[0] == 0
    assert find_runs([shell.folder / "runs"])[0].mark == 100.0


def test_rows_of_a_good_comparison_are_read(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text(json.dumps(comparison()))
    assert list(read_comparison(tmp_path).found) == ["sd-lora"]


def test_a_recipe_in_python_is_held_to_the_same(shell: Shell) -> None:
    text = (shell.folder / "birds.toml").read_text() + '[peers."../x".learner]\nname = "frozen"\n'
    (shell.folder / "birds.toml").write_text(text)
    with pytest.raises(RecipeError, match="cannot be called so"):
        list(compare(read_recipe("birds.toml"), shell.folder / "out"))
