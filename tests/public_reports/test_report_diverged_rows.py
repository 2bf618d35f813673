"""A diverged trial is not chosen: it has failed, and the comparison continues and names what was left out."""

import json
from pathlib import Path

import pytest

from newcomer.experiments.comparison import _score
from newcomer.experiments.recipe import read_recipe
from newcomer.experiments.report.runs import Run
from newcomer.experiments.workers import Job, JobEnd
from shell import Shell

SEARCH = """
[search]
budget = 3
[search.settings]
learning_rate = [1e30, 1e-3]
[baselines.wild.learner]
name = "sd-lora"
rank = 2
epochs = 2
batch_size = 4
[baselines.wild.search.settings]
learning_rate = [1e30, 1e31]
"""


def test_a_diverging_trial_is_not_chosen_and_a_row_of_such_trials_is_named(shell: Shell) -> None:
    """A search tried a rate that was far too high: its score of NaN could be the best. The others are compared all the same."""
    recipe = shell.folder / "birds.toml"
    recipe.write_text(recipe.read_text().replace("epochs = 1", "epochs = 2") + SEARCH)
    code, out, err = shell.call("compare", "birds.toml", "--seeds", "1", "--out", "compared")
    assert code == 3, err
    assert "newcomer: left out: birds · wild: no try has a score" in err
    assert "the loss became nan" in out
    found = json.loads((shell.folder / "compared" / "birds" / "comparison.json").read_text(encoding="utf-8"))["rows"]
    assert found["sd-lora"]["chosen"] == {"learning_rate": 1e-3}
    assert found["wild"]["chosen"] is None
    assert (shell.folder / "compared" / "birds" / "sd-lora" / "seed-0" / "record.jsonl").exists()


def test_a_non_finite_score_is_a_failure(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A score of infinity was larger than every other."""
    assert shell.call("run", "birds.toml", "--out", "runs")[0] == 0
    job = Job(read_recipe("birds.toml"), Path("runs/sd-lora/seed-0"), "birds")
    for value in (float("nan"), float("inf"), float("-inf")):
        monkeypatch.setattr(Run, "primary_metric", value)
        score, _, failure = _score(job, JobEnd(1.0, None))
        assert (score, failure) == (None, "its score is not finite")


BASELINE = """
[baselines.wild.learner]
name = "sd-lora"
rank = 2
epochs = 2
batch_size = 4
learning_rate = 1e30
"""


def test_a_run_that_diverges_does_not_end_the_others(shell: Shell) -> None:
    """`run --baselines` stopped at the first row that diverged, and reported on none."""
    recipe = shell.folder / "birds.toml"
    recipe.write_text(BASELINE + recipe.read_text())
    code, _, err = shell.call("run", "birds.toml", "--baselines", "--seeds", "2", "--out", "runs")
    assert code == 3, err
    assert err.count("newcomer: left out: birds · wild · seed ") == err.count("the loss became nan") == 2
    assert (shell.folder / "runs" / "report.html").exists()
    assert (shell.folder / "runs" / "sd-lora" / "seed-1" / "record.jsonl").exists()
    code, _, err = shell.call("run", "birds.toml", "--baseline", "wild", "--out", "wild")
    assert (code, err.count("\n")) == (2, 1)
    assert "the loss became nan" in err
