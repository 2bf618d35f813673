"""Comparison: equal budgets, choice by validation scores alone, exact resumption, paired tests and report."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from newcomer.errors import DataError, LearnerError, NewcomerError, RecipeError, StoreError
from newcomer.experiments import workers
from newcomer.experiments.comparison import JobResult, compare
from newcomer.experiments.recipe import Recipe, read_recipe
from newcomer.experiments.report.comparison import (
    comparison_tables,
    cost_table,
    difference_table,
    metric_table,
    read_comparison,
    search_table,
    write_comparison,
)
from newcomer.experiments.report.runs import RECORD, find_runs
from newcomer.experiments.run import run_recipe
from newcomer.experiments.search import Search, best
from newcomer.experiments.workers import Job, JobEnd, Workers
from newcomer.store.record import read_record
from shell import Shell

RECIPE = """
title = "Digits"
[data]
name = "digits"
[stream]
tasks = 2
classes = 4
train_per_class = 6
eval_per_class = 8
[backbone]
name = "{backbone}"
[learner]
name = "sd-lora"
rank = 2
epochs = 1
batch_size = 6
learning_rate = 1e-2
[search]
budget = 2
floor = ["frozen"]
ceiling = ["joint"]
[search.settings]
learning_rate = [1e-3, 1e-2]
epochs = [1, 2]
[baselines.frozen.learner]
name = "frozen"
[baselines.frozen.search.settings]
shrinkage = [0.1, 0.3, 0.9]
[baselines.prototypes.learner]
name = "frozen"
head = "prototypes"
[baselines.joint.stream]
joint = true
"""
ROWS = ["sd-lora", "frozen", "prototypes", "joint"]


@pytest.fixture
def file(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(RECIPE.format(backbone=tiny("vit")))
    return path


@pytest.fixture
def recipe(file: Path) -> Recipe:
    return read_recipe(str(file))


def compared(recipe: Recipe, out: Path, **settings: Any) -> list[tuple[str, JobResult]]:
    """The results of all jobs, by folder below `out`."""
    events = compare(recipe, out, **{"seeds": (0, 1), **settings})
    return [(str(job.folder.relative_to(out)), event) for job, event in events if isinstance(event, JobResult)]


def found(out: Path) -> dict[str, Any]:
    """The content of comparison.json without its timings."""
    content: dict[str, Any] = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    for row in content["rows"].values():
        for trial in row["trials"]:
            trial.pop("seconds", None)
    return content


def files(out: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not name.endswith(".lock")}


@pytest.fixture(scope="module")
def whole(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted comparison."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "small.toml").write_text(RECIPE.format(backbone=tiny("vit")))
    compared(read_recipe(str(folder / "small.toml")), folder / "out")
    return folder / "out"


GRIDS: list[tuple[dict[str, list[Any]], dict[str, Any]]] = [
    ({"rate": [1, 2, 4], "epochs": [3, 6]}, {"rate": 2, "epochs": 3}),
    ({"rate": [1, 2, 4, 8, 16]}, {"rate": 7}),
    ({"rate": [1, 2, 4], "rank": [[1, 2], [3]], "head": ["a", "b", "c"]}, {"rate": 4, "rank": [3], "head": "z"}),
    ({}, {"rate": 2}),
]


@pytest.mark.parametrize(("values", "own"), GRIDS)
def test_trials_start_at_the_defaults_are_distinct_and_do_not_depend_on_the_budget(
    values: dict[str, list[Any]], own: dict[str, Any]
) -> None:
    search = Search(values, 6, 100, (), ())
    every = search.trials(own, 100)
    assert len(every) == search.combinations == len(list(product(*values.values())))
    assert all(one not in every[:n] for n, one in enumerate(every))
    assert all(trial[key] in values[key] for trial in every for key in values)
    assert all(every[0][key] == own[key] for key in values if own[key] in values[key])
    assert all(search.trials(own, budget) == every[:budget] for budget in range(1, len(every) + 1))


def test_each_trial_is_the_farthest_remaining_point() -> None:
    search = Search({"rate": [1, 2, 4], "epochs": [3, 6, 9]}, 6, 100, (), ())
    every = search.trials({"rate": 1, "epochs": 3}, 9)
    assert every[1] == {"rate": 4, "epochs": 9}

    def gap(one: dict[str, Any], others: Sequence[dict[str, Any]]) -> float:
        position = [
            (search.settings["rate"].index(t["rate"]), search.settings["epochs"].index(t["epochs"])) for t in others
        ]
        mine = (search.settings["rate"].index(one["rate"]), search.settings["epochs"].index(one["epochs"]))
        return min(float(np.hypot(a - mine[0], b - mine[1])) for a, b in position)

    gaps = [gap(every[n], every[:n]) for n in range(1, 9)]
    assert all(one >= other for one, other in pairwise(gaps))
    assert all(gap(every[n], every[:n]) == max(gap(rest, every[:n]) for rest in every[n:]) for n in range(1, 9))


@pytest.mark.always
def test_every_row_has_the_full_budget_or_its_whole_grid(whole: Path) -> None:
    rows = found(whole)["rows"]
    assert {name: (len(row["trials"]), row["combinations"]) for name, row in rows.items()} == {
        "sd-lora": (2, 4),
        "frozen": (2, 3),
        "prototypes": (1, 1),
        "joint": (2, 4),
    }
    assert list(rows) == ROWS
    assert rows["sd-lora"]["trials"][0]["settings"] == {"learning_rate": 0.01, "epochs": 1}


def test_trials_use_validation_data_and_another_seed_and_the_best_settings_are_run(whole: Path) -> None:
    content = found(whole)
    for run in find_runs([whole / "search"]):
        row = content["rows"][run.recipe["row"]]
        assert (run.recipe["seed"], run.recipe["stream"]["eval_split"]) == (100, "validation")
        (trial,) = (t for t in row["trials"] if t["settings"].items() <= run.recipe["learner"].items())
        assert trial["score"] == run.primary_metric
        assert not (run.folder / "store").exists()
    for row in content["rows"].values():
        assert row["score"] == max(trial["score"] for trial in row["trials"])
        assert row["score"] == next(trial["score"] for trial in row["trials"] if trial["settings"] == row["chosen"])
    runs = find_runs([whole])
    assert [(run.recipe["row"], run.recipe["seed"]) for run in runs] == [
        (row, seed) for row in sorted(ROWS) for seed in (0, 1)
    ]
    for run in runs:
        assert run.recipe["stream"]["eval_split"] == "test"
        assert content["rows"][run.recipe["row"]]["chosen"].items() <= run.recipe["learner"].items()
        assert (run.folder / "store").exists()


def test_a_finished_comparison_is_left_as_it_is(recipe: Recipe, whole: Path) -> None:
    before = files(whole)
    assert compared(recipe, whole) == []
    assert files(whole) == before


def test_a_trial_of_several_draws_has_their_mean_and_more_draws_keep_the_others(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for draws, jobs in ((2, 4), (3, 2)):
        recipe = read_recipe(str(file), [f"search.draws={draws}"])
        ended = compared(recipe, out, only=["frozen"], seeds=())
        assert len(ended) == jobs
        for trial in found(out)["rows"]["frozen"]["trials"]:
            of_draws = [trial["draws"][str(draw)]["score"] for draw in range(1, draws + 1)]
            assert trial["score"] == pytest.approx(sum(of_draws) / draws)
            assert len(set(of_draws)) > 1  # other classes
    seeds = [run.recipe["seed"] for run in find_runs([out / "search"])]
    assert sorted(seeds) == [100, 100, 101, 101, 102, 102]
    fewer = read_recipe(str(file), ["search.draws=1"])
    assert len(compared(fewer, out, only=["frozen"], seeds=(), budget=3)) == 1  # the third trial, of one draw
    trials = found(out)["rows"]["frozen"]["trials"]
    assert [trial["score"] for trial in trials[:2]] == [trial["draws"]["1"]["score"] for trial in trials[:2]]


def test_the_earliest_trial_within_one_standard_error_of_the_best_is_chosen() -> None:
    clear, noise = [0.60, 0.61, 0.62], [0.71, 0.69, 0.72]
    top = [0.70, 0.72, 0.71]
    assert best([clear, noise, top]) == 1
    assert best([noise, top, clear]) == 0
    assert best([clear, top, noise]) == 1
    assert best([[0.5, 0.5], [0.6, 0.6]]) == 1  # no spread: the best
    assert best([[0.70], [0.71], [0.71]]) == 1


@pytest.mark.parametrize("events", [pytest.param(4, marks=pytest.mark.slow), 30])
def test_an_interrupted_comparison_resumes_to_the_same_result(
    events: int, recipe: Recipe, whole: Path, tmp_path: Path
) -> None:
    with closing(compare(recipe, tmp_path / "out", (0, 1))) as running:
        for _ in range(events):
            next(running)
    compared(recipe, tmp_path / "out")
    assert found(tmp_path / "out") == found(whole)
    mine, other = (
        [(run.recipe["row"], run.recipe["seed"], run.primary_metric) for run in find_runs([out])]
        for out in (tmp_path / "out", whole)
    )
    assert mine == other


@pytest.mark.slow  # a cluster
@pytest.mark.filterwarnings("ignore")  # of Ray itself
def test_a_ray_cluster_gives_the_same_result_as_one_process(recipe: Recipe, whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    over = compared(recipe, tmp_path / "out", processes="ray")
    assert {name for name, _ in over} == {str(run.parent.relative_to(whole)) for run in whole.rglob(RECORD)}
    assert found(tmp_path / "out") == found(whole)
    assert compared(recipe, tmp_path / "out", processes="ray") == []


@pytest.mark.slow  # a cluster
@pytest.mark.filterwarnings("ignore")
def test_an_error_in_a_ray_task_is_that_of_the_run(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    (tmp_path / "small.toml").write_text(RECIPE.format(backbone=tiny("vit")))
    missing = read_recipe(str(tmp_path / "small.toml"), ["backbone.name=nowhere"])
    with pytest.raises(DataError, match="nowhere"):
        compared(missing, tmp_path / "out", processes="ray")
    assert not ray.is_initialized()


def test_two_processes_give_the_same_result_as_one(recipe: Recipe, whole: Path, tmp_path: Path) -> None:
    over = compared(recipe, tmp_path / "out", processes=2)
    assert len(over) == 7 + 8
    assert found(tmp_path / "out") == found(whole)
    assert multiprocessing.active_children() == []


def test_a_larger_budget_keeps_trials_and_repeats_only_rows_whose_chosen_settings_changed(
    recipe: Recipe, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    rows = ["sd-lora", "frozen", "prototypes"]
    compared(recipe, out, budget=1, only=rows, seeds=(0,))
    first, before = found(out), files(out)
    over = compared(recipe, out, budget=4, only=rows, seeds=(0,))
    second = found(out)
    trials = {name: [t["settings"] for t in row["trials"]] for name, row in second["rows"].items()}
    assert {name: len(found) for name, found in trials.items()} == {
        "sd-lora": 4,
        "frozen": 3,
        "prototypes": 1,
    }
    kept = [name for name in before if name.startswith("search/")]
    assert len(kept) == 3
    assert all(files(out)[name] == before[name] for name in kept)
    changed = {row for row in rows if first["rows"][row]["chosen"] != second["rows"][row]["chosen"]}
    again = {folder.split("/")[0] for folder, _ in over if not folder.startswith("search/")}
    assert again == changed
    for run in find_runs([out]):
        assert second["rows"][run.recipe["row"]]["chosen"].items() <= run.recipe["learner"].items()


def test_trials_beyond_a_smaller_budget_are_kept_but_not_chosen(recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compared(recipe, out, budget=2, only=["frozen"])
    compared(recipe, out, budget=1, only=["frozen"])
    row = found(out)["rows"]["frozen"]
    assert [trial["within_budget"] for trial in row["trials"]] == [True, False]
    assert row["chosen"] == row["trials"][0]["settings"]


def test_rows_compared_one_by_one_give_the_same_file(recipe: Recipe, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for row in reversed(ROWS):
        compared(recipe, out, only=[row])
    assert found(out) == found(whole)


def failing(recipe: Recipe, folder: Path) -> Iterator[Any]:
    """Fails as a learner that diverges at the larger learning rate, joint training at any."""
    if recipe.learner.get("learning_rate") == 1e-2 or recipe.row == "joint":
        raise LearnerError("the loss is not a number; lower learning_rate")
    yield from run_recipe(recipe, folder)


def test_a_diverging_trial_has_no_score(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "run_recipe", failing)
    over = dict(compared(recipe, tmp_path / "out", seeds=(0,)))
    rows = found(tmp_path / "out")["rows"]
    failed = {"score": None, "failure": "the loss is not a number; lower learning_rate"}
    assert {key: rows["sd-lora"]["trials"][0][key] for key in failed} == failed
    assert rows["sd-lora"]["chosen"] == rows["sd-lora"]["trials"][1]["settings"]
    assert rows["joint"]["chosen"] is rows["joint"]["score"] is None
    assert not [folder for folder in over if folder.startswith("joint/")]
    assert compared(recipe, tmp_path / "out", seeds=(0,)) == []  # a failed run is not repeated
    lines = {line[0]: list(line) for line in search_table(read_comparison(tmp_path / "out")).rows}
    assert (lines["sd-lora"][1], lines["joint"][1]) == ("2 of 4 (1 failed)", "2 of 4 (2 failed)")
    assert lines["joint"][3:] == ["–", "–"]
    write_comparison(tmp_path / "out")


def test_rows_without_a_grid_run_with_their_defaults(file: Path, tmp_path: Path) -> None:
    text = re.sub(r"\[(?:baselines\.frozen\.)?search\.settings\]\n(?:\w+ = .*\n)+", "", file.read_text())
    file.write_text(text)
    over = compared(read_recipe(str(file)), tmp_path / "out", only=["frozen", "prototypes"])
    assert [folder for folder, _ in over] == [
        f"{row}/seed-{seed}" for seed in (0, 1) for row in ("frozen", "prototypes")
    ]
    assert found(tmp_path / "out")["rows"]["frozen"]["chosen"] == {}


def test_another_recipe_in_the_same_folder_is_an_error(file: Path, whole: Path) -> None:
    before = files(whole)
    with pytest.raises(
        RecipeError, match=r"holds a comparison of other settings \(sd-lora: learner\.rank = 2 there, 3 here\)"
    ):
        compared(read_recipe(str(file), ["learner.rank=3"]), whole)
    with pytest.raises(RecipeError, match="seed = 100 there, 7 here"):
        compared(read_recipe(str(file), ["search.seed=7"]), whole)
    assert files(whole) == before


def test_runs_of_others_are_never_removed(recipe: Recipe, tmp_path: Path) -> None:
    other = recipe.with_baseline("frozen")
    list(
        run_recipe(replace(other, learner={**other.learner, "shrinkage": 0.2}), tmp_path / "out" / "frozen" / "seed-0")
    )
    before = files(tmp_path / "out" / "frozen" / "seed-0")
    for _ in range(2):
        with pytest.raises(
            RecipeError, match=r"seed-0: holds a run of other settings \(learner\.shrinkage = 0\.2 there"
        ):
            compared(recipe, tmp_path / "out", only=["frozen"], budget=1, seeds=(0,))
    with pytest.raises(RecipeError, match="holds a run of other settings"):
        compared(recipe, tmp_path / "out", only=["frozen"], budget=3, seeds=(0,))
    assert files(tmp_path / "out" / "frozen" / "seed-0") == before


def test_invalid_comparisons_are_one_line_errors(file: Path, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="recipe 'small' has no row 'frozne'; did you mean 'frozen'"):
        compared(recipe, tmp_path / "out", only=["frozne"])
    file.write_text(file.read_text() + '[baselines.search.learner]\nname = "frozen"\n')
    with pytest.raises(RecipeError, match="row 'search' has the name of the trials' folder"):
        compared(read_recipe(str(file)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "comparison.json").write_text("[")
    with pytest.raises(
        StoreError, match=r"comparison\.json: not a valid comparison .*; remove it, or choose another --out"
    ):
        compared(recipe, tmp_path / "out")
    with pytest.raises(StoreError, match="give a folder written by 'newcomer compare'"):
        read_comparison(tmp_path / "nowhere")


def test_one_comparison_at_a_time_in_a_folder(recipe: Recipe, tmp_path: Path) -> None:
    with closing(compare(recipe, tmp_path / "out")) as running:
        next(running)
        with pytest.raises(StoreError, match="another process is comparing here"):
            compared(recipe, tmp_path / "out")


def jobs(recipe: Recipe, folder: Path) -> list[Job]:
    return [Job(recipe.with_baseline("frozen").with_seed(n), folder / str(n), str(n)) for n in range(3)]


def test_a_killed_worker_is_an_error_and_terminates_the_others(recipe: Recipe, tmp_path: Path) -> None:
    with Workers(2) as pool:
        running = pool.run(jobs(recipe, tmp_path))
        next(running)
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)
        with pytest.raises(NewcomerError, match=r"its process ended with code -9; with too little memory give fewer"):
            list(running)
    assert multiprocessing.active_children() == []


def test_an_error_in_a_worker_is_raised_in_the_parent(recipe: Recipe, tmp_path: Path) -> None:
    list(run_recipe(recipe.with_baseline("frozen"), tmp_path / "1"))  # another seed than that of job 1
    with (
        pytest.raises(RecipeError, match=r"holds a run of other settings \(seed = 0 there, 1 here\)"),
        Workers(2) as pool,
    ):
        list(pool.run(jobs(recipe, tmp_path)[1:2]))
    assert multiprocessing.active_children() == []


@pytest.mark.slow  # two more processes
def test_all_jobs_finish_and_their_events_are_in_order(recipe: Recipe, tmp_path: Path) -> None:
    with Workers(2) as pool:
        content = list(pool.run(jobs(recipe, tmp_path)))
        assert len(multiprocessing.active_children()) == 2
        assert list(pool.run([])) == []
        content += list(pool.run([Job(recipe.with_baseline("prototypes"), tmp_path / "more", "more")]))
    assert content[-1][0].title == "more"
    for job in jobs(recipe, tmp_path):
        mine = [event for other, event in content if other.folder == job.folder]
        assert [isinstance(event, JobEnd) for event in mine] == [False] * (len(mine) - 1) + [True]
        assert list(read_record(job.folder / "record.jsonl"))[-1] == {"event": "end"}


def write(folder: Path, marks: dict[str, list[float]], cost: bool = False) -> Path:
    """A comparison by hand: Acc of each row, seed by seed, in %."""
    rows = {}
    for position, (row, accuracy) in enumerate(marks.items()):
        for seed, value in enumerate(accuracy):
            start = {
                "event": "start",
                "position": position,
                "recipe": {
                    "name": "birds",
                    "row": row,
                    "title": "Birds & <b>bees</b>",
                    "seed": seed,
                    "family": "classes",
                },
                "stream": {"tasks": [["a"], ["b"]], "train_examples": 12, "eval_examples": 6},
                "versions": {"newcomer": "0.1.0"},
                "commit": "abc",
                "machine": {"system": "Linux", "processor": "Fast", "threads": 1, "gpu": None},
            }
            info = {"cost": {"passes": 2, "gflops": 0.5, "parameters": 12_345, "stored": 7}} if cost else {}
            lines: list[dict[str, Any]] = [start]
            for stage in range(2):
                for task in range(stage + 1):
                    scores = {"accuracy": value / 100, "examples": 3.0}
                    lines.append(
                        {"event": "score", "stage": f"task {stage}", "eval_set": f"task {task}", "values": scores}
                    )
                times = {"train_seconds": 1.0, "eval_seconds": 0.5}
                lines.append({"event": "stage", "stage": f"task {stage}", **times, "info": info})
            path = folder / row / f"seed-{seed}" / "record.jsonl"
            path.parent.mkdir(parents=True)
            path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"event": "end"}]))
        trial = {"settings": {"rate": 1}, "score": accuracy[0], "seconds": 2.0, "failure": None, "within_budget": True}
        rows[row] = {
            "position": position,
            "combinations": 1,
            "trials": [trial],
            "chosen": {"rate": 1},
            "score": accuracy[0],
        }
        rows[row]["seeds"] = list(range(len(accuracy)))
    head = {"title": "Birds & <b>bees</b>", "family": "classes", "floor": ["low", "lower"], "ceiling": ["high"]}
    (folder / "comparison.json").write_text(json.dumps(head | {"rows": rows}))
    return folder


MARKS = {"mine": [60.0, 70.0, 80.0], "low": [50.0, 50.0, 60.0], "lower": [40.0, 60.0, 40.0], "high": [70.0, 90.0, 80.0]}


def test_differences_are_paired_by_seed_and_the_gap_is_between_the_best_floor_and_ceiling(tmp_path: Path) -> None:
    table = difference_table(read_comparison(write(tmp_path, MARKS)))
    assert list(table.head) == ["", "seeds", "Acc", "− mine", "95 % interval", "p", "p (Holm)", "gap closed"]
    rows = {row[0]: list(row[1:]) for row in table.rows}
    assert rows["mine"] == ["3", "70.0 ± 10.0", "–", "–", "–", "–", "0.67 ± 0.29"]  # 10/20, 20/40, 20/20
    # differences −10, −20, −20: mean −16.67, sd 5.774, t = −5 with 2 degrees of freedom
    assert rows["low"][2:5] == ["-16.7", "-31.0 to -2.3", "0.038"]
    assert rows["low"][5] == "0.113"
    assert rows["low"][6] == "0.00 ± 0.00"
    assert rows["high"][6] == "1.00 ± 0.00"
    assert "0 is low, 1 is high" in table.note


def test_every_metric_has_its_own_paired_interval(tmp_path: Path) -> None:
    """All evaluation sets of a run have the same accuracy here, so Acc and AAA equal it and forgetting is 0."""
    table = metric_table(read_comparison(write(tmp_path, MARKS)))
    assert list(table.head) == ["", "seeds", "Acc", "AAA", "forgetting"]
    # −16.67 ± 4.303 · 5.774 / √3
    assert list(table.rows[0]) == ["mine", "3", "–", "–", "–"]
    assert list(table.rows[1]) == ["low", "3", "-16.7 ± 14.3", "-16.7 ± 14.3", "+0.0 ± 0.0"]
    alone = metric_table(read_comparison(write(tmp_path / "one", {row: marks[:1] for row, marks in MARKS.items()})))
    assert list(alone.rows[1]) == ["low", "1", "–", "–", "–"]


def test_one_seed_has_a_difference_and_no_test(tmp_path: Path) -> None:
    table = difference_table(read_comparison(write(tmp_path, {row: marks[:1] for row, marks in MARKS.items()})))
    assert [list(row[1:]) for row in table.rows][1] == ["1", "50.0", "-10.0", "–", "–", "–", "0.00"]


def test_only_common_seeds_are_compared(tmp_path: Path) -> None:
    table = difference_table(read_comparison(write(tmp_path, MARKS | {"low": [50.0, 50.0]})))
    assert list(table.rows[1])[3] == "-15.0"


def test_costs_are_shown_if_recorded(tmp_path: Path) -> None:
    assert cost_table(read_comparison(write(tmp_path / "a", MARKS))) is None
    table = cost_table(read_comparison(write(tmp_path / "b", MARKS, cost=True)))
    assert table is not None
    assert list(table.head) == ["", "train s", "passes", "GFLOPs", "trained", "stored"]
    assert list(table.rows[0]) == ["mine", "2 ± 0", "2", "0.5", "12,345", "7"]


def test_rows_below_the_budget_are_named(recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compared(recipe, out, only=["prototypes", "frozen"], budget=1, seeds=(0,))
    assert "Not so" not in search_table(read_comparison(out)).note
    compared(recipe, out, only=["sd-lora"], budget=2, seeds=(0,))
    assert "Not so yet: frozen had fewer" in search_table(read_comparison(out)).note


def test_the_page_is_self_contained_and_has_every_table(tmp_path: Path) -> None:
    page = write_comparison(write(tmp_path, MARKS, cost=True)).read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img|iframe|object|embed)\b|@import", page)
    fetched = re.findall(r"(?:src|href)=\"([^\"]*)\"|url\(([^)]*)\)", page)
    assert all((one or other).startswith(("#", "data:")) for one, other in fetched)
    assert page.count("<table") == len(comparison_tables(read_comparison(tmp_path))) == 5
    assert page.count("<svg") == 3
    assert "Birds &amp; &lt;b&gt;bees&lt;/b&gt;" in page
    assert page.count("<table") == page.count("</table>")


def test_the_command_compares_and_reports_and_a_second_call_does_nothing(shell: Shell) -> None:
    grid = '\n[search.settings]\nlearning_rate = [1e-3, 1e-2]\n[baselines.frozen.learner]\nname = "frozen"\n'
    (shell.folder / "birds.toml").write_text((shell.folder / "birds.toml").read_text() + grid)
    words = ["compare", "birds.toml", "--seeds", "2", "--set", "stream.train_per_class=2", "--budget", "2"]
    code, out, err = shell.call(*words)
    assert (code, err) == (0, "")
    assert "1 of 3: birds · sd-lora · learning_rate 0.001: " in out
    assert "4 of 4: birds · frozen · seed 1: " in out
    assert "comparison: runs/compared/birds/comparison.html" in out
    before = shell.files()
    code, out, _ = shell.call(*words)
    assert (code, " of 3: " in out) == (0, False)
    assert shell.files() == before
    _, out, _ = shell.call("report", "runs/compared/birds")
    assert "sd-lora · " not in out  # trials are not rows


def test_usage_errors_are_one_line(shell: Shell) -> None:
    assert "did you mean 'sd-lora'" in shell.fails("compare", "birds.toml", "--rows", "sd-lra")
    assert "no recipe 'digit'" in shell.fails("compare", "birds.toml", "digit")


@pytest.mark.slow  # six processes
def test_ctrl_c_stops_every_process_and_the_same_command_resumes(file: Path, whole: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "newcomer", "compare", str(file), "--seeds", "2", "--processes", "2", "--out", "out"]
    given: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "text": True}
    out = tmp_path / "out" / "small"
    hearing = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background shell may have ignored it
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    with subprocess.Popen(words, preexec_fn=hearing, **pipes, **given) as running:
        while running.poll() is None and not any(out.rglob("record.jsonl")):
            time.sleep(0.02)
        os.killpg(running.pid, signal.SIGINT)
        _, err = running.communicate()
    assert running.returncode == 130, err
    assert err == "newcomer: stopped; the same command goes on after the last complete stage\n"
    done = subprocess.run(words, capture_output=True, check=False, **given)
    assert done.returncode == 0, done.stderr
    assert found(out) == found(whole)
