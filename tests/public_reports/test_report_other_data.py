"""Runs and comparisons say when the files that they were made of have changed."""

import shutil

import pytest
from PIL import Image

from newcomer.data.fingerprint import fingerprint, have_changed
from shell import Shell

COMPARED = '[search]\nbudget = 2\n[search.settings]\nrank = [1, 2]\n[baselines.plain.learner]\nname = "frozen"\n'


def corrected(shell: Shell) -> None:
    picture = shell.folder / "birds" / "train" / "wren" / "0.png"
    Image.new("L", (8, 8), 255).save(picture)


def test_a_finished_run_of_corrected_data_is_not_done(shell: Shell) -> None:
    """Somebody ran a recipe, corrected the data and ran it again: 'done', with the old numbers."""
    assert shell.call("run", "birds.toml", "--out", "runs")[0] == 0
    assert shell.call("run", "birds.toml", "--out", "runs")[0] == 0
    corrected(shell)
    assert "the files of data 'image-folder' have changed" in shell.fails("run", "birds.toml", "--out", "runs")
    assert shell.call("run", "birds.toml", "--out", "again")[0] == 0


def test_a_comparison_of_corrected_data_is_not_gone_on_with(shell: Shell) -> None:
    """As above, with a search whose tries had judged the old data."""
    recipe = shell.folder / "birds.toml"
    recipe.write_text(recipe.read_text() + COMPARED)
    assert shell.call("compare", "birds.toml", "--seeds", "1", "--out", "runs")[0] == 0
    corrected(shell)
    message = shell.fails("compare", "birds.toml", "--seeds", "1", "--out", "runs")
    assert "the files of data 'image-folder' have changed" in message


def test_files_elsewhere_or_touched_are_the_same_data(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    then = fingerprint({"path": "birds", "seed": 3})
    assert then is not None
    assert then["files"] == 24
    shutil.copytree(shell.folder / "birds", shell.folder / "data" / "copied", copy_function=shutil.copyfile)
    shutil.rmtree(shell.folder / "birds")
    now = fingerprint({"path": "copied"}, then)
    assert now is not None
    assert now["stamp"] != then["stamp"]
    assert not have_changed(then, now)
    assert fingerprint({"path": "nowhere"}) is None
    (shell.folder / "data" / "copied" / "train" / "wren" / "0.png").rename(
        shell.folder / "data" / "copied" / "train" / "tit" / "9.png"
    )
    assert have_changed(then, fingerprint({"path": "copied"}, then))
    monkeypatch.chdir(shell.folder / "data")
    assert fingerprint({"path": "cop*"}) == fingerprint({"path": "copied"})


def test_files_that_keep_their_stamp_are_not_read_again(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    then = fingerprint({"path": "birds"})
    monkeypatch.setattr("newcomer.data.fingerprint._blocks", lambda _: pytest.fail("read"))
    assert fingerprint({"path": "birds"}, then) == then
