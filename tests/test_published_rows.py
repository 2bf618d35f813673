"""The published records were made with the settings of the shipped recipes."""

import json
from pathlib import Path

import pytest

from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.experiments.recipe import read_recipe, shipped
from newcomer.settings import changes, fill

RECORDS = Path(__file__).parents[1] / "benchmarks" / "quality"
COMPARED = [name for name in shipped() if (RECORDS / name / "comparison.json").exists()]


@pytest.mark.parametrize("name", COMPARED)
def test_published_records_have_the_settings_of_their_recipe(name: str) -> None:
    """A report: `newcomer run banking77-minilm` gave other rows than the README."""
    for row in read_recipe(name).rows():
        for record in (RECORDS / name / row.row).glob("seed-*/record.jsonl"):
            with record.open(encoding="utf-8") as lines:
                recorded = json.loads(next(lines))["recipe"]
            resolved = json.loads(json.dumps(row.with_chosen().with_seed(recorded["seed"]).resolved()))
            assert changes(recorded, resolved) == {}, row.row


@pytest.mark.parametrize("name", COMPARED)
def test_published_trials_are_the_first_trials_of_the_recipe(name: str) -> None:
    """The search starts at the defaults of the recipe, not at the chosen settings."""
    rows = json.loads((RECORDS / name / "comparison.json").read_text(encoding="utf-8"))["rows"]
    for row in read_recipe(name).rows():
        if row.row in rows:
            trials = [trial["settings"] for trial in rows[row.row]["trials"] if trial["within_budget"]]
            assert row.search.trials(row.learner, len(trials)) == trials, row.row
            assert row.chosen.get(row.row, {}) == (rows[row.row]["chosen"] or {}), row.row


def test_the_bare_defaults_of_sd_lora_are_a_row_of_its_tables() -> None:
    defaults = fill(SDLoRA, {}, "learner", provided=["backbone"])
    learner = read_recipe("banking77-minilm").with_baseline("sd-lora-defaults").with_chosen().learner
    assert {**defaults, "name": "sd-lora"} == {**learner, "seed": defaults["seed"]}


def test_a_setting_of_the_call_overrides_the_chosen_one() -> None:
    recipe = read_recipe("digits", ["learner.epochs=3"]).with_chosen()
    assert recipe.learner["epochs"] == 3
    assert recipe.learner["learning_rate"] == read_recipe("digits").chosen["sd-lora"]["learning_rate"]
