"""`newcomer evaluate`: accuracy of a classifier, and scores of a click model beside those of a constant."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from films import QUICK, SCHEMA, log, trained
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.data.io.example_sources import training_examples
from newcomer.items.methods.emerg import EmerG
from newcomer.metrics.calibration import logloss
from shell import Shell


@pytest.fixture
def birds(shell: Shell, tiny: Callable[[str], Path]) -> Shell:
    """A folder with a classifier `m` of three of the four classes."""
    shutil.copytree(shell.folder / "birds" / "train", shell.folder / "three")
    shutil.rmtree(shell.folder / "three" / "wren")
    assert shell.call("learn", "m", "three", "--backbone", str(tiny("vit")), "--learner", "frozen")[0] == 0
    return shell


def test_the_accuracy_of_a_classifier_overall_and_by_class(birds: Shell) -> None:
    shutil.copytree(birds.folder / "birds" / "test", birds.folder / "test")
    shutil.rmtree(birds.folder / "test" / "wren")
    (birds.folder / "test" / "finch" / "2.png").unlink()
    code, out, err = birds.call("evaluate", "m", "test", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    right = FrozenBackbone.load(birds.folder / "m").evaluate(training_examples(birds.folder / "test"))
    assert found["accuracy"] == pytest.approx(right["accuracy"])
    assert found["examples"] == right["examples"] == 8
    assert {name: of["examples"] for name, of in found["classes"].items()} == {"finch": 2, "robin": 3, "tit": 3}
    code, out, _ = birds.call("evaluate", "m", "test")
    assert f"m: accuracy {100 * right['accuracy']:.1f} % of 8 examples" in out
    assert "finch" in out


def test_unknown_classes_and_damaged_images_are_named(birds: Shell) -> None:
    shutil.copytree(birds.folder / "birds" / "test", birds.folder / "test")
    (birds.folder / "test" / "tit" / "0.png").write_bytes(b"no image")
    code, out, err = birds.call("evaluate", "m", "test", "--json")
    assert (code, json.loads(out)["examples"]) == (3, 8)
    damaged, unknown = err.splitlines()
    assert "tit/0.png" in damaged
    assert unknown == "newcomer: left out: class 'wren', 3 examples: the model does not know it"
    assert "tit/0.png" in birds.fails("evaluate", "m", "test", "--strict")
    (birds.folder / "test" / "tit" / "0.png").unlink()
    assert "class 'wren', 3 examples" in birds.fails("evaluate", "m", "test", "--strict")
    assert "give the folder of the test images" in birds.fails("evaluate", "m", "birds")
    assert "--states says nothing of m" in birds.fails("evaluate", "m", "test", "--states", "sqlite:///x.db")


def test_a_click_model_beside_the_click_rate(shell: Shell) -> None:
    trained(shell.folder / "shop")
    later = log(200, seed=1)
    later.write_csv(shell.folder / "later.csv")
    code, out, err = shell.call("evaluate", "shop", "later.csv", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    right = EmerG.load(shell.folder / "shop")
    for name, value in right.evaluate(right._to_log(later, items=False)).items():
        assert found["model"][name] == pytest.approx(value)
    rate = float(np.mean(later["liked"].to_numpy()))
    assert (found["events"], found["items"], found["click_rate"]) == (200, 8, pytest.approx(rate))
    assert found["constant"]["logloss"] == pytest.approx(logloss(later["liked"], np.full(200, rate)))
    assert found["constant"]["auc"] == 0.5
    code, out, _ = shell.call("evaluate", "shop", "later.csv")
    assert "200 events of 8 items" in out
    assert "click rate as a constant" in " ".join(out.split())


def test_labels_of_another_kind_are_refused(shell: Shell) -> None:
    """Stars measured as 0 and 1 would all be no clicks."""
    stars = log().with_columns(liked=pl.int_range(pl.len()) % 5 + 1)
    EmerG(replace(SCHEMA, clicked_from=4), **QUICK).learn(stars).save(shell.folder / "shop")
    log(200, seed=1).write_csv(shell.folder / "later.csv")
    assert "clicks are labels from 4 on" in shell.fails("evaluate", "shop", "later.csv")


def test_unknown_items_are_named_and_states_in_service_count(shell: Shell) -> None:
    trained(shell.folder / "shop")
    later = log(200, seed=1)
    later.with_columns(film=later["film"].replace("film 3", "new")).write_csv(shell.folder / "later.csv")
    code, out, err = shell.call("evaluate", "shop", "later.csv", "--json")
    unknown = int((later["film"] == "film 3").sum())
    assert (code, json.loads(out)["events"]) == (3, 200 - unknown)
    assert (
        err
        == f"newcomer: left out: later.csv: item 'new', {unknown} events: the model does not know it; add it first\n"
    )
    assert "item 'new'" in shell.fails("evaluate", "shop", "later.csv", "--strict")
    before = json.loads(out)["model"]["logloss"]
    assert shell.call("warm", "shop", "later.csv")[0] == 3  # the unknown film again
    assert json.loads(shell.call("evaluate", "shop", "later.csv", "--json")[1])["model"]["logloss"] != before
    assert "--backbone says nothing of shop" in shell.fails("evaluate", "shop", "later.csv", "--backbone", "x")
