"""What is chosen on held-out old items: passes of pre-training, and the learner; and plain rows, which need no choice."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
import torch

from newcomer.cli.training import held_out_lines
from newcomer.data.schema import Field, Schema
from newcomer.errors import LearnerError
from newcomer.experiments.report.table import Table, _with_stars
from newcomer.items import learner
from newcomer.items.calibration import Calibration
from newcomer.items.learner import ItemLearner
from newcomer.items.learner_selection import best_row, hold_out
from newcomer.items.methods.dropout_net import DropoutNet
from newcomer.items.methods.logistic import Logistic
from newcomer.items.training.held_out import HeldOut
from newcomer.store.folder import Store
from newcomer.streams.cold_start import OldItems
from newcomer.streams.stage import Stage
from newcomer.training.checkpoint import Checkpoint
from newcomer.training.learner import Step
from shell import Shell
from test_processes import together

SCHEMA = Schema("item", "user", "clicked", "time", (Field("kind", "item"),))
SMALL: dict[str, Any] = {"width": 4, "hidden": [8], "adaptation": "map", "warmup_events": "all", "meta_epochs": 0}
SMALL |= {"pretrain_lr": 1e-2, "device": "cpu"}


def log(items: int = 240, events: int = 15, seed: int = 0) -> pl.DataFrame:
    """Clicks of users with different rates on items of different quality, which depends on their kind in part."""
    chance = np.random.default_rng(seed)
    item = np.repeat(np.arange(items), events)
    user = chance.integers(0, 60, len(item))
    taste, quality = np.random.default_rng(1).normal(0, 1, 60), np.random.default_rng(2).normal(0, 0.5, items)
    logit = taste[user] + quality[item] + item % 3 - 1.5
    clicked = chance.random(len(item)) < 1 / (1 + np.exp(-logit))
    columns = {"item": item, "user": user, "clicked": clicked.astype(int), "time": chance.permutation(len(item))}
    return pl.DataFrame(columns).with_columns(kind=pl.col("item") % 3)


@pytest.fixture(scope="module")
def chosen() -> DropoutNet:
    return DropoutNet(SCHEMA, **SMALL).learn(log())


def weights(learner: ItemLearner) -> list[torch.Tensor]:
    return [*learner.network.state_dict().values(), *learner.state.values()]


def test_passes_are_those_with_the_least_loss_and_the_next_doublings_are_worse(chosen: DropoutNet) -> None:
    found = chosen.held_out
    assert found is not None
    assert min(found.tried, key=lambda epochs: found.tried[epochs]) == found.epochs
    passes = list(found.tried)
    assert all(b == 2 * a for a, b in pairwise(passes))
    assert passes[-1] in (found.epochs, 2 * found.epochs, 4 * found.epochs)
    assert found.item_losses.sum() == pytest.approx(found.loss, abs=1e-9)
    assert found.scores[0].auc > 0.55
    assert found.scores[0].logloss < found.scores[0].constant
    assert chosen.info() == {"held_out": found.to_json()}


def test_a_difference_is_clear_from_one_standard_error_on(chosen: DropoutNet) -> None:
    """Whatever the items are alike in does not count: it is in both losses."""
    assert chosen.held_out is not None
    losses, chance = chosen.held_out.item_losses, np.random.default_rng(0).normal(0, 1e-4, 60)
    chance -= chance.mean()
    error = chance.std(ddof=1) / math.sqrt(60)  # of the mean difference
    for shift, clear in ((-2, False), (0, False), (0.95, False), (1.05, True)):
        other = replace(chosen.held_out, item_losses=losses + chance + shift * error)
        assert other.is_clearly_worse_than(chosen.held_out) == clear


@pytest.mark.parametrize(
    ("losses", "clear", "wanted"),
    [
        ([0.6, 0.5, 0.7], [2], [1, 2, 4]),  # clearly worse: the end
        ([0.6, 0.5, 0.51, 0.52], [], [1, 2, 4, 8]),  # twice in a row
        ([0.6, 0.61, 0.5, 0.51, 0.6], [4], [1, 2, 4, 8, 16]),  # chance at first
    ],
)
def test_a_number_of_passes_that_may_be_worse_by_chance_is_not_the_end(
    losses: list[float], clear: list[int], wanted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = iter(range(len(losses)))

    def of(observed: object, calibrate: bool, epochs: int) -> HeldOut:
        at = next(numbers)
        return HeldOut(60, [], Calibration(), epochs, {epochs: losses[at]}, np.array([float(at in clear)]))

    def is_clear(one: HeldOut, other: HeldOut) -> bool:
        return bool(one.item_losses[0])

    monkeypatch.setattr(HeldOut, "of", of)
    monkeypatch.setattr(HeldOut, "is_clearly_worse_than", is_clear)
    monkeypatch.setattr(learner, "epochs_to_try", lambda rows, size: iter([1, 2, 4, 8, 16, 32]))
    found = DropoutNet(SCHEMA, **SMALL).learn(log(events=8)).held_out
    assert found is not None
    assert list(found.tried) == wanted
    assert found.tried[found.epochs] == min(losses)


def test_the_model_is_that_of_the_chosen_passes_to_the_bit(chosen: DropoutNet) -> None:
    assert chosen.held_out is not None
    given = DropoutNet(SCHEMA, **SMALL, pretrain_epochs=chosen.held_out.epochs).learn(log())
    assert all(torch.equal(one, other) for one, other in zip(weights(chosen), weights(given), strict=True))
    assert given.held_out is not None
    assert given.held_out.scores == chosen.held_out.scores
    assert given.fitted_calibration == chosen.fitted_calibration


def test_a_small_log_gets_ten_passes_and_is_not_learned_by_heart() -> None:
    steps, small = list[Step](), log(items=20)
    learner = DropoutNet(SCHEMA, **SMALL).learn(small, progress=steps.append)
    pretraining = [step for step in steps if step.part == "pretrain"]
    assert len(pretraining) == 10 * math.ceil(len(small) / learner.pretraining.batch_size)
    assert pretraining[-1].values["loss"] > 0.3


def test_after_an_interruption_nothing_is_trained_twice(tmp_path: Path, chosen: DropoutNet) -> None:
    learner, data = DropoutNet(SCHEMA, **SMALL), chosen._to_log(log())

    def fit(learner: DropoutNet) -> Any:
        return learner.fit_stage(Stage("old", OldItems(data), {}), Checkpoint(tmp_path / "checkpoint"))

    for step in fit(learner):
        if step.part == "pretrain":
            break
    again = DropoutNet(SCHEMA, **SMALL)
    assert not [step for step in fit(again) if "held-out items: pretrain" in step.part]
    assert all(torch.equal(one, other) for one, other in zip(weights(chosen), weights(again), strict=True))


def test_without_fields_and_bias_every_score_is_the_click_rate() -> None:
    table = log(items=60)
    scores = Logistic(SCHEMA, fields="none", item_bias=False, calibrate=False, device="cpu").learn(table).score(table)
    assert scores == pytest.approx(np.full(len(table), table["clicked"].mean()), abs=1e-4)


def test_a_users_score_is_the_users_click_rate_drawn_to_that_of_all() -> None:
    table = log(items=60)
    learner = Logistic(SCHEMA, fields="user", item_bias=False, calibrate=False, device="cpu").learn(table)
    shown = table.with_columns(score=learner.score(table)).group_by("user").agg(pl.col("clicked", "score").mean())
    rate, score, overall = shown["clicked"].to_numpy(), shown["score"].to_numpy(), table["clicked"].mean()
    assert (np.abs(score - overall) <= np.abs(rate - overall) + 0.02).all()
    assert np.corrcoef(rate, score)[0, 1] > 0.99
    assert 0 < np.std(score) < np.std(rate)


def test_weights_are_where_the_posterior_has_no_slope() -> None:
    """Σ (y − p) = w / σ² for the bias of every item: the optimum, by formula."""
    table = log(items=60)
    learner = Logistic(SCHEMA, fields="user", calibrate=False, device="cpu").learn(table)
    score = learner.score(table)
    residual = table.with_columns(left=table["clicked"] - score).group_by("item").agg(pl.col("left").sum()).sort("item")
    bias = np.array([float(learner.state["bias"][learner.known[str(item)], 0]) for item in residual["item"]])
    slope, offset = np.polyfit(bias, residual["left"].to_numpy(), 1)
    assert np.abs(residual["left"].to_numpy() - (slope * bias + offset)).max() < 0.05
    assert slope**-0.5 == pytest.approx(float(learner.network.positive_scales()["bias"]), rel=0.1)


def test_a_log_in_chunks_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from newcomer.data.io.chunked_log import ChunkedLog

    log(items=20).write_csv(tmp_path / "log.csv")
    with pytest.raises(LearnerError, match="logistic needs a log in memory"):
        Logistic(SCHEMA, device="cpu").learn(ChunkedLog(tmp_path / "log.csv", SCHEMA))


def test_the_learner_that_predicts_held_out_items_best_is_chosen() -> None:
    rows: dict[str, Literal["none", "all", "user"]] = {"rate": "none", "all": "all", "user": "user"}
    learners = {
        row: Logistic(SCHEMA, fields=fields, item_bias=fields != "none", device="cpu") for row, fields in rows.items()
    }
    data = learners["rate"]._to_log(log())
    assert best_row(learners) is None
    for _ in hold_out(learners, "old", data, Checkpoint()):
        pass
    assert best_row(learners) == "all"


@pytest.mark.slow
def test_train_auto_says_what_it_tried_and_took(shell: Shell) -> None:
    log().write_csv(shell.folder / "clicks.csv")
    code, out, err = shell.call("train", "shop", "clicks.csv", "--learner", "auto")
    assert code == 0, err
    for row in ("emerg", "emerg-history", "deepfm-bayes", "logistic", "user-item-rate"):
        assert f"tried {row}: mean log loss" in out
    assert "which has the least log loss of held-out items" in out
    assert Store(shell.folder / "shop").exists()


QUICK = ("--set", "width=4", "--set", "tower=[8]", "--set", "meta_epochs=0", "--set", "pretrain_epochs=2")


def test_train_takes_histories_and_a_rate_where_they_predict_held_out_items_better(shell: Shell) -> None:
    """In as many passes as the model without them; what is stated is not tried."""
    log(items=200, events=8).write_csv(shell.folder / "clicks.csv")
    code, out, err = shell.call("train", "shop", "clicks.csv", *QUICK)
    assert code == 0, err
    tried = {line.split()[1]: float(line.split()[5]) for line in out.splitlines() if line.startswith("tried ")}
    *plain, faster = tried
    assert plain == ["emerg:", "emerg-history:"]
    assert faster == f"{min(plain, key=lambda name: tried[name]).rstrip(':')}-faster:"
    best = min(tried, key=lambda name: tried[name])
    assert f"learner: {best.rstrip(':')}, which has the least log loss of held-out items" in out
    settings = Store(shell.folder / "shop").manifest().settings
    assert settings["user_history"] == ("history" in best)
    assert settings["pretrain_lr"] == (0.01 if "faster" in best else 0.005)
    assert settings["pretrain_epochs"] == 2
    for stated, tried_yet in (
        ("user_history=false", "faster"),
        ("weight_averaging=0.5", "faster"),
        ("pretrain_lr=1e-3", "history"),
    ):
        code, out, err = shell.call("train", stated[:4], "clicks.csv", *QUICK, "--set", stated)
        assert code == 0, err
        assert [line.split()[1] for line in out.splitlines() if line.startswith("tried ")] == [
            "emerg:",
            f"emerg-{tried_yet}:",
        ]
    code, out, err = shell.call(
        "train", "plain", "clicks.csv", *QUICK[:-1], "pretrain_epochs=auto", "--set", "calibrate=false"
    )
    assert code == 0, err
    assert len([line for line in out.splitlines() if line.startswith("tried ")]) == 3
    both = ("--set", "user_history=false", "--set", "pretrain_lr=1e-3")
    code, out, err = shell.call("train", "both", "clicks.csv", *QUICK, *both)
    assert (code, "tried " in out) == (0, False), err
    code, out, _ = shell.call("train", "named", "clicks.csv", "--learner", "emerg", *QUICK)
    assert (code, "tried " in out) == (0, False)


def test_train_auto_takes_logistic_regression_where_nothing_can_be_held_out_and_says_why(shell: Shell) -> None:
    log(items=20).write_csv(shell.folder / "few.csv")
    code, out, err = shell.call("train", "few", "few.csv", "--learner", "auto")
    assert code == 0, err
    said = [line for line in out.splitlines() if line.startswith("learner: ")]
    assert said == [
        "learner: logistic, without a trial: few.csv has too few items or events to hold some out, and logistic regression is not "
        "surer than so few tell"
    ]
    assert Store(shell.folder / "few").manifest().learner == "logistic"
    assert Logistic.load(shell.folder / "few").held_out is None


@pytest.mark.slow  # two more processes
def test_two_processes_choose_the_learner_that_one_chooses(shell: Shell) -> None:
    log(items=200, events=8).write_csv(shell.folder / "clicks.csv")
    words = ("train", "shop", "clicks.csv", "--learner", "auto")
    code, out, err = shell.call(*words)
    assert code == 0, err
    both = together(shell, *(word.replace("shop", "both") for word in words))
    tried = [[line for line in text.splitlines() if line.startswith(("tried ", "learner: "))] for text in (out, both)]
    assert [line.partition(":")[0] for line in tried[0]] == [line.partition(":")[0] for line in tried[1]]
    assert len(tried[0]) == 6
    assert tried[0][-1] == tried[1][-1]
    losses = [[float(line.split()[5]) for line in lines[:-1]] for lines in tried]
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)
    assert Store(shell.folder / "both").manifest().learner == Store(shell.folder / "shop").manifest().learner


def test_a_log_loss_worse_than_a_constants_has_a_star() -> None:
    class Run:
        finished = True

        def metrics(self) -> dict[str, float]:
            return {"cold normalised_entropy": 1.1, "warm-a normalised_entropy": 0.9}

    table = Table("t", ["", "seeds", "cold", "warm-a", "seconds"], [["row", "1", "0.6", "0.7", "3"]], "note")
    found = _with_stars(table, {"row": [Run()]}, ["cold", "warm-a"])  # type: ignore[list-item]
    assert list(found.rows[0]) == ["row", "1", "0.6 *", "0.7", "3"]
    assert "worse than" in found.note


def test_a_log_loss_above_a_constants_is_said_of_the_numbers_of_events_that_have_it() -> None:
    def said(*losses: tuple[int, float]) -> list[str]:
        scores = [{"events": count, "auc": 0.6, "logloss": loss, "constant": 0.69} for count, loss in losses]
        return list(held_out_lines({"items": 50, "scores": scores, "tried": {"2": 0.6}, "pretrain_epochs": 2}))

    assert said((0, 0.7), (3, 0.691), (8, 0.6))[1].startswith(
        "log loss after 0, 3 events: worse than that of a constant;"
    )
    assert len(said((0, 0.6), (8, 0.5))) == 1
