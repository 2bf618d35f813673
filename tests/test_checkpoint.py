"""Checkpoints: an interrupted stage resumes to the same bits, and checkpoints of other stages are not used."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from covering import covering
from newcomer.data.click_log import ClickLog
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.log_reader import log_from_rows
from newcomer.data.schema import Field, Schema
from newcomer.errors import StoreError
from newcomer.items.methods.emerg import EmerG
from newcomer.seeds import spawn
from newcomer.streams.cold_start import ColdStart, OldItems, StageData
from newcomer.streams.stage import Stage
from newcomer.training.checkpoint import Checkpoint
from newcomer.training.learner import Step

SCHEMA = Schema("film", "viewer", fields=(Field("genre", "item"), Field("age", "user"), Field("page", "context")))
SHORT: dict[str, Any] = {
    "width": 3,
    "tower": [4],
    "layers": 1,
    "pretrain_epochs": 3,
    "batch_size": 64,
    "meta_epochs": 2,
    "episodes_per_step": 4,
    "support_events": 6,
    "query_events": 6,
}


def films(old: int = 8, new: int = 3, seed: int = 0) -> dict[str, list[Any]]:
    """Rows of old films with 40 events each and of new ones with 20, in an order of time that mixes all."""
    chance = torch.Generator().manual_seed(seed)
    film = torch.arange(old + new).repeat_interleave(torch.tensor([40] * old + [20] * new))
    film = film[torch.randperm(len(film), generator=chance)]
    viewer, page = torch.randint(9, (len(film),), generator=chance), torch.randint(3, (len(film),), generator=chance)
    clicked = torch.rand(len(film), generator=chance) < 0.2 + 0.5 * ((film + viewer) % 2)
    return {
        "film": [f"film {n:02d}" for n in film.tolist()],
        "viewer": [f"viewer {n}" for n in viewer.tolist()],
        "genre": [f"genre {n % 3}" for n in film.tolist()],
        "age": [f"{n % 4}" for n in viewer.tolist()],
        "page": [f"page {n}" for n in page.tolist()],
        "label": clicked.int().tolist(),
        "time": list(range(len(film))),
    }


def log(**changes: Any) -> ClickLog:
    return log_from_rows(SCHEMA, **films(**changes))


def in_memory(folder: Path) -> OldItems:
    return ColdStart(log(), min_old_events=30, phase_events=4).old


def in_files(folder: Path) -> OldItems:
    pl.DataFrame(films(new=0)).write_parquet(folder / "old.parquet")
    return OldItems(ChunkedLog(folder / "old.parquet", SCHEMA, rows=60))


def with_validation(folder: Path) -> OldItems:
    old = ColdStart(log(new=8), preset="honest", min_old_events=15, phase_events=2, validation=0.3).old
    assert old.validation
    return old


TRAINING_DATA: dict[str, Callable[[Path], OldItems]] = {
    "in memory": in_memory,
    "in files": in_files,
    "with validation items": with_validation,
}
CASES = {
    f"{trained_part}, {name}": (
        train,
        {"meta_trains": trained_part} | ({"meta_lr": 1e-3} if trained_part == "all" else {}),
    )
    for trained_part in ("all", "rule")
    for name, train in TRAINING_DATA.items()
}


class Case:
    """A learner's settings and its first stage."""

    def __init__(self, train: OldItems, settings: dict[str, Any]) -> None:
        self.stage: Stage[StageData, ClickLog] = Stage("old", train, {})
        self.settings = SHORT | settings
        self.steps: list[Step] = []
        self.never_stopped = self.goes_on(None)

    def goes_on(self, folder: Path | None) -> EmerG:
        learner = EmerG(SCHEMA, **self.settings)
        self.steps = list(learner.fit_stage(self.stage, Checkpoint(folder, every_seconds=0)))
        return learner

    def killed(self, folder: Path, after: int, every_seconds: float = 0) -> int:
        """How many steps it took of those that it was given."""
        steps = EmerG(SCHEMA, **self.settings).fit_stage(self.stage, Checkpoint(folder, every_seconds))
        taken = 0
        while taken < after and next(steps, None):
            taken += 1
        steps.close()  # type: ignore[attr-defined]
        return taken


@pytest.fixture(
    scope="module",
    params=covering({name: set(zip(("trained", "data"), name.split(", "), strict=True)) for name in CASES}),
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    train, settings = CASES[request.param]
    return Case(train(tmp_path_factory.mktemp("train")), settings)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(in_memory(tmp_path_factory.mktemp("plain")), {})


def bits(learner: EmerG) -> dict[str, Tensor]:
    own = {f"own.{n}": values for n, values in enumerate(learner.item_features)}
    begun = {f"begun.{key}": value for key, value in learner.initial_state.items()}
    return {**learner.network.state_dict(), **learner.state, **own, **begun}


def same(one: EmerG, other: EmerG) -> bool:
    ours, theirs = bits(one), bits(other)
    alike = all(torch.equal(value, theirs[key]) for key, value in ours.items())
    return alike and ours.keys() == theirs.keys() and one.known == other.known and one.counts == other.counts


def numbered(steps: list[Step], part: str) -> list[int]:
    return [step.step for step in steps if step.part == part]


def test_killed_at_any_step_it_has_the_same_bits_in_the_end(case: Case, tmp_path: Path) -> None:
    whole = len(list(EmerG(SCHEMA, **case.settings).fit_stage(case.stage)))
    for after in range(1, whole + 1, max(whole // 4, 1)):
        folder = tmp_path / str(after)
        assert case.killed(folder, after) == after
        assert same(case.goes_on(folder), case.never_stopped)


def test_killed_again_and_again_it_has_the_same_bits_in_the_end(case: Case, tmp_path: Path) -> None:
    kept: list[Any] = []
    for _ in range(4):
        case.killed(tmp_path, 8)
        kept.append({path.name: step_of(path) for path in sorted(tmp_path.glob("*.safetensors"))})
    far = [sum(steps.values()) for steps in kept]
    assert far == sorted(far)
    assert far[-1] > far[0]
    assert same(case.goes_on(tmp_path), case.never_stopped)


def step_of(path: Path) -> int:
    with safe_open(path, "pt") as file:
        return int(json.loads(file.metadata()["kept"])["step"])


def test_a_checkpoint_changes_no_bit_and_no_step(case: Case, tmp_path: Path) -> None:
    assert same(case.goes_on(tmp_path), case.never_stopped)
    with_it = case.steps
    case.goes_on(None)
    assert case.steps == with_it


def test_what_is_done_is_not_done_again(plain: Case, tmp_path: Path) -> None:
    plain.goes_on(tmp_path)
    everything = plain.steps
    plain.goes_on(tmp_path)
    assert {step.part for step in plain.steps} <= {"old items"}  # both parts were at their end
    assert {step.part for step in everything} >= {"pretrain", "meta"}


def test_meta_learning_goes_on_at_the_step_after_the_last_one_kept(plain: Case, tmp_path: Path) -> None:
    pretraining = len(numbered(list(EmerG(SCHEMA, **plain.settings).fit_stage(plain.stage)), "pretrain"))
    plain.killed(tmp_path, pretraining + 3)  # the third step is yielded before it is kept
    plain.goes_on(tmp_path)
    steps = numbered(plain.steps, "meta")
    assert steps == list(range(3, steps[-1] + 1))
    assert not numbered(plain.steps, "pretrain")


def test_pretraining_goes_on_at_the_epoch_after_the_last_whole_one(plain: Case, tmp_path: Path) -> None:
    rows = len(plain.stage.train.log)  # type: ignore[union-attr]
    an_epoch = -(-rows // plain.settings["batch_size"])
    plain.killed(tmp_path, an_epoch + 2)
    plain.goes_on(tmp_path)
    assert numbered(plain.steps, "pretrain")[0] == rows + plain.settings["batch_size"]


def test_it_is_kept_once_in_a_while_and_at_the_end_of_a_part(plain: Case, tmp_path: Path) -> None:
    plain.killed(tmp_path, 4, every_seconds=1e9)
    assert not list(tmp_path.iterdir())
    whole = EmerG(SCHEMA, **plain.settings).fit_stage(plain.stage, Checkpoint(tmp_path, every_seconds=1e9))
    assert list(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["meta.safetensors", "pretrain.safetensors"]


def test_without_a_folder_nothing_is_kept_and_nothing_is_gone_on_from(tmp_path: Path) -> None:
    checkpoint, linear = Checkpoint(every_seconds=0), nn.Linear(2, 1)
    checkpoint.keep("part", 3, {"linear": linear}, now=True)
    assert checkpoint.resume("part", {"linear": linear}) == 0
    checkpoint.remove()
    Checkpoint(tmp_path / "never made").remove()


def test_remove_leaves_nothing(plain: Case, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "checkpoint"
    plain.killed(folder, 12)
    (folder / "meta.safetensors.part").write_bytes(b"cut off while writing")
    Checkpoint(folder).remove()
    assert list((tmp_path / "deep").iterdir()) == []


def one_line(caught: pytest.ExceptionInfo[StoreError]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def no_safetensors(path: Path) -> None:
    path.write_text("not what it was\n" * 99)


def without_a_word(path: Path) -> None:
    save_file(load_file(path), path)


def with_other_words(path: Path) -> None:
    save_file(load_file(path), path, {"kept": "many"})


def without_a_weight(path: Path) -> None:
    change(path, lambda tensors: tensors.pop("network/start"))


def with_a_longer_weight(path: Path) -> None:
    change(path, lambda tensors: tensors.update({"network/start": torch.zeros(99)}))


def change(path: Path, how: Callable[[dict[str, Tensor]], Any]) -> None:
    with safe_open(path, "pt") as file:
        words = file.metadata()
    tensors = load_file(path)
    how(tensors)
    save_file(tensors, path, words)


DAMAGES = [
    cut_in_half,
    emptied,
    no_safetensors,
    without_a_word,
    with_other_words,
    without_a_weight,
    with_a_longer_weight,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_removed_it_is_as_if_never_begun(
    plain: Case, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    plain.killed(tmp_path, 12)
    path = tmp_path / "pretrain.safetensors"
    damage(path)
    with pytest.raises(StoreError, match=r"cannot be gone on from .*; remove it to start again") as caught:
        plain.goes_on(tmp_path)
    assert one_line(caught).startswith(f"{path}: ")
    path.unlink()
    assert same(plain.goes_on(tmp_path), plain.never_stopped)


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"width": 4}, {"meta_epochs": 3}, {"pretrain_lr": 1e-3}, {"prior_std": 0.2}],
    ids=lambda change: str(next(iter(change))),
)
def test_what_was_kept_by_other_settings_is_left_alone(plain: Case, tmp_path: Path, other: dict[str, Any]) -> None:
    plain.killed(tmp_path, 12)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    changed = EmerG(SCHEMA, **plain.settings | other)
    with pytest.raises(StoreError, match="was kept by a run of other settings or data; remove") as caught:
        list(changed.fit_stage(plain.stage, Checkpoint(tmp_path, every_seconds=0)))
    assert f"remove {tmp_path} to start anew" in one_line(caught)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert not changed.known


@pytest.mark.parametrize("other", [{"old": 9}, {"seed": 1}], ids=["more items", "the same items with other counts"])
def test_what_was_kept_of_other_data_is_left_alone(plain: Case, tmp_path: Path, other: dict[str, int]) -> None:
    plain.killed(tmp_path, 12)
    rows = log(new=0, **other)
    train = OldItems(rows.take(np.arange(len(rows) - 1)))  # the counts are others too
    with pytest.raises(StoreError, match="other settings or data") as caught:
        list(EmerG(SCHEMA, **plain.settings).fit_stage(Stage("old", train, {}), Checkpoint(tmp_path, every_seconds=0)))
    assert f"remove {tmp_path} to start anew" in one_line(caught)


def test_a_disk_that_refuses_is_one_line_and_leaves_what_was_kept(
    plain: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain.killed(tmp_path, 12)
    before = (tmp_path / "pretrain.safetensors").read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("newcomer.training.checkpoint.save_file", full)
    with pytest.raises(StoreError, match=r"could not be written .No space left on device.") as caught:
        plain.goes_on(tmp_path)
    assert one_line(caught)
    monkeypatch.undo()
    assert (tmp_path / "pretrain.safetensors").read_bytes() == before
    assert same(plain.goes_on(tmp_path), plain.never_stopped)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_an_optimiser_goes_on_as_if_it_had_never_been_written_down(kind: Any, tmp_path: Path) -> None:
    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        linear = nn.Linear(3, 1)
        nn.init.constant_(linear.weight, 0.5)
        nn.init.constant_(linear.bias, 0.0)
        return linear, kind(linear.parameters(), lr=0.1)

    def steps(linear: nn.Module, optimizer: torch.optim.Optimizer, *numbers: int) -> None:
        for number in numbers:
            optimizer.zero_grad()
            linear(torch.randn(4, 3, generator=spawn(0, number))).square().sum().backward()
            optimizer.step()

    whole, first, second = made(), made(), made()
    steps(*whole, 0, 1, 2, 3)
    steps(*first, 0, 1)
    Checkpoint(tmp_path).keep("part", 2, {"linear": first[0], "optimizer": first[1]}, now=True)
    assert Checkpoint(tmp_path).resume("part", {"linear": second[0], "optimizer": second[1]}) == 2
    steps(*second, 2, 3)
    assert all(torch.equal(a, b) for a, b in zip(whole[0].parameters(), second[0].parameters(), strict=True))
    assert not list(tmp_path.glob("*.part"))
