"""A row that diverged cannot win a search: its try has failed, the comparison goes on and says what was left out."""

import json
from pathlib import Path

import pytest

from newcomer.experiments.comparison import _judged
from newcomer.experiments.recipe import read_recipe
from newcomer.experiments.report.runs import Run
from newcomer.experiments.workers import Ended, Job
from shell import Shell

SEARCH = """
[search]
budget = 3
[search.settings]
learning_rate = [1e30, 1e-3]
[peers.wild.learner]
name = "sd-lora"
rank = 2
epochs = 2
batch_size = 4
[peers.wild.search.settings]
learning_rate = [1e30, 1e31]
"""


def test_a_try_that_diverges_loses_and_a_row_of_such_is_named(shell: Shell) -> None:
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


@pytest.mark.parametrize("mark", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_no_number_is_a_failure(mark: float, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A score of infinity was larger than every other."""
    assert shell.call("run", "birds.toml", "--out", "runs")[0] == 0
    monkeypatch.setattr(Run, "mark", mark)
    job = Job(read_recipe("birds.toml"), Path("runs/sd-lora/seed-0"), "birds")
    score, _, failure = _judged(job, Ended(1.0, None))
    assert (score, failure) == (None, "its score is no number")
