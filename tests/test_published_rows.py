"""What a shipped recipe runs is what its published rows ran with, and the bare defaults are such a row."""

import inspect
import json
from pathlib import Path

import pytest

from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.experiments.recipe import read_recipe, shipped
from newcomer.settings import changes

KEPT = Path(__file__).parents[1] / "benchmarks" / "quality"
COMPARED = [name for name in shipped() if (KEPT / name / "comparison.json").exists()]


@pytest.mark.parametrize("name", COMPARED)
def test_a_recipe_runs_its_published_rows(name: str) -> None:
    """Somebody ran `newcomer run banking77-minilm` and got other rows than the README has."""
    for row in read_recipe(name).rows():
        for record in (KEPT / name / row.row).glob("seed-*/record.jsonl"):
            with record.open(encoding="utf-8") as lines:
                ran = json.loads(next(lines))["recipe"]
            mine = json.loads(json.dumps(row.with_chosen().with_seed(ran["seed"]).filled()))
            assert changes(ran, mine) == {}, row.row


@pytest.mark.parametrize("name", COMPARED)
def test_a_comparison_begins_where_it_began(name: str) -> None:
    """The settings that were chosen are not those from which the search begins: its tries stay what they were."""
    kept = json.loads((KEPT / name / "comparison.json").read_text(encoding="utf-8"))["rows"]
    for row in read_recipe(name).rows():
        if row.row in kept:
            begun = [tried["settings"] for tried in kept[row.row]["tries"] if tried["counts"]]
            assert row.search.tries(row.learner, len(begun)) == begun, row.row
            assert row.chosen.get(row.row, {}) == (kept[row.row]["chosen"] or {}), row.row


def test_the_bare_defaults_of_sd_lora_are_a_row_of_its_tables() -> None:
    defaults = {p.name: p.default for p in inspect.signature(SDLoRA).parameters.values() if p.name != "backbone"}
    learner = read_recipe("banking77-minilm").with_peer("sd-lora-defaults").with_chosen().learner
    assert {**defaults, "name": "sd-lora"} == {**learner, "seed": defaults["seed"]}


def test_what_is_set_by_hand_comes_before_what_was_chosen() -> None:
    recipe = read_recipe("digits", ["learner.epochs=3"]).with_chosen()
    assert recipe.learner["epochs"] == 3
    assert recipe.learner["learning_rate"] == read_recipe("digits").chosen["sd-lora"]["learning_rate"]
