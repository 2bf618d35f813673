"""`train` trains the learner of the schema file with the changes of the command line, and says which."""

from pathlib import Path

import polars as pl
import pytest

from films import QUICK, SCHEMA, log
from newcomer.data.io.log_reader import log_from_frame
from newcomer.data.schema import Schema
from newcomer.errors import DataError
from newcomer.items.methods.emerg import EmerG
from newcomer.items.methods.id_tuning import IdTuning
from newcomer.store.folder import Store
from shell import Shell

RECIPE = """
seed = 7
[data]
name = "click-log"
path = "old.csv"
[data.schema]
item = "film"
user = "viewer"
label = "liked"
time = "seen"
[[data.schema.fields]]
name = "genre"
role = "item"
[stream]
min_old_events = 3
[learner]
{learner}
"""
EMERG = 'name = "emerg"\nwidth = 5\ntower = [8]\npretrain_epochs = 1\nmeta_epochs = 0\nprior_std = 0.7'


@pytest.fixture
def here(shell: Shell) -> Shell:
    log().write_csv(shell.folder / "old.csv")
    (shell.folder / "x.toml").write_text(RECIPE.format(learner=EMERG))
    return shell


def test_the_learner_of_the_file_is_the_one_that_is_trained(here: Shell) -> None:
    """A model was measured with a recipe's [learner], and `train --schema` of the same file trained another, without a word."""
    code, out, err = here.call("train", "shop", "old.csv", "--schema", "x.toml")
    assert (code, err) == (0, "")
    assert (
        "learner: emerg of x.toml, width = 5, tower = [8], pretrain_epochs = 1, meta_epochs = 0, prior_std = 0.7, seed = 7"
        in out
    )
    settings = Store(here.folder / "shop").manifest().settings
    assert (settings["width"], settings["prior_std"], settings["seed"]) == (5, 0.7, 7)


def test_the_command_line_counts_before_the_file(here: Shell) -> None:
    """The same with --set and --learner on top."""
    assert here.call("train", "a", "old.csv", "--schema", "x.toml", "--set", "width=3", "--set", "seed=1")[0] == 0
    settings = Store(here.folder / "a").manifest().settings
    assert (settings["width"], settings["prior_std"], settings["seed"]) == (3, 0.7, 1)
    quick = ["--set", "pretrain_epochs=1", "--set", "hidden=[8]"]
    code, out, _ = here.call("train", "b", "old.csv", "--schema", "x.toml", "--learner", "id-tuning", *quick)
    assert code == 0
    assert "learner: id-tuning of x.toml, hidden = [8], pretrain_epochs = 1, seed = 7" in out
    assert Store(here.folder / "b").manifest().learner == "id-tuning"


def test_another_method_in_the_file_is_the_one_that_is_trained(here: Shell) -> None:
    """The same where the file names another method than the default."""
    (here.folder / "y.toml").write_text(RECIPE.format(learner='name = "id-tuning"\nhidden = [8]\npretrain_epochs = 1'))
    assert here.call("train", "shop", "old.csv", "--schema", "y.toml")[0] == 0
    assert Store(here.folder / "shop").manifest().learner == "id-tuning"
    assert isinstance(IdTuning.load(here.folder / "shop"), IdTuning)


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        ('name = "emrg"', "x.toml: learner.name = emrg: no such method for items; did you mean 'emerg'?"),
        ('name = "sd-lora"', "learner.name = sd-lora: no such method for items"),
        ("widt = 3", "learner.widt is not a setting of emerg; did you mean 'width'?"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(learner: str, message: str, here: Shell) -> None:
    """The same file with a slip."""
    (here.folder / "x.toml").write_text(RECIPE.format(learner=learner))
    assert message in here.fails("train", "shop", "old.csv", "--schema", "x.toml")


@pytest.mark.parametrize("liked", [0, 1])
def test_a_log_with_one_label_alone_is_refused(liked: int, here: Shell) -> None:
    """A log of clicks alone, or of none: it trained without a word."""
    one = log().with_columns(liked=pl.lit(liked))
    one.write_csv(here.folder / "one.csv")
    assert "label 'liked'" in here.fails("train", "shop", "one.csv", "--schema", "x.toml")
    for source in (one, log_from_frame(one, SCHEMA)):
        with pytest.raises(DataError, match=r"label 'liked': .* of 400 events"):
            EmerG(SCHEMA, **QUICK).learn(source)


@pytest.mark.parametrize("label", [True, 1])
def test_events_with_labels_of_another_kind_are_refused_in_python_too(label: object, tmp_path: Path) -> None:
    """A model that was trained on stars and warmed up with true or 1: twenty clicks counted as twenty non-clicks."""
    from films import events
    from newcomer.items.serving.service import ItemService

    schema = Schema("film", "viewer", "liked", "seen", SCHEMA.fields, clicked_from=4.0)
    stars = log().with_columns(liked=pl.when(pl.col("liked") == 1).then(5).otherwise(2))
    EmerG(schema, **QUICK).learn(stars).save(tmp_path / "store")
    live = ItemService.open(tmp_path / "store")
    before = live.states.get(live.model, ["film 1"])
    with pytest.raises(DataError, match="liked"):
        live.warm(events("film 1", 20).with_columns(liked=pl.lit(label)))
    with pytest.raises(DataError, match="liked"):
        EmerG.load(tmp_path / "store").warm(events("film 1", 20).with_columns(liked=pl.lit(label)))
    assert live.states.get(live.model, ["film 1"]) == before or not before
    live.close()
