"""Old items' events from files equal those in memory, and training on them is as accurate."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from covering import combinations
from newcomer.data.click_log import ClickLog
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.log_reader import log_from_frame
from newcomer.data.schema import Field, Schema
from newcomer.errors import LearnerError
from newcomer.items.encoding.encoder import Clicks
from newcomer.items.methods.emerg import EmerG
from newcomer.items.methods.id_tuning import IdTuning
from newcomer.items.training import training_data as module
from newcomer.items.training.training_data import InFiles, InMemory, TrainingData, training_data
from newcomer.metrics.ranking import auc
from newcomer.shapes import Tensor
from newcomer.streams.cold_start import OldItems
from newcomer.streams.stage import Stage

CPU = torch.device("cpu")
SCHEMA = Schema(
    "film",
    "viewer",
    "liked",
    "seen",
    (
        Field("genre", "item"),
        Field("minutes", "item", "numeric", missing="mark"),
        Field("age", "user"),
        Field("tags", "user", "multi"),
        Field("page", "context", missing="mark"),
        Field("price", "context", "numeric"),
    ),
)


def table(films: int = 10, seed: int = 0, begin: int = 0) -> pl.DataFrame:
    """20 to 65 events of each film, at times of which some are the same; who likes what depends on film and page."""
    chance = np.random.default_rng(seed)
    film = (
        begin
        + np.repeat(np.arange(films), 20 + 5 * np.arange(films))[
            chance.permutation(sum(20 + 5 * n for n in range(films)))
        ]
    )
    viewer, page = chance.integers(0, 25, len(film)), chance.integers(0, 3, len(film))
    return pl.DataFrame(
        {
            "film": [f"film {n:02d}" for n in film],
            "viewer": [f"viewer {n}" for n in viewer],
            "liked": chance.random(len(film)) < np.where((film + page) % 3 == 0, 0.85, 0.15),
            "seen": chance.integers(0, 99, len(film)),
            "genre": [f"genre {n % 3}" for n in film],
            "minutes": [None if n == 2 else 80.0 + n for n in film],
            "age": [f"{n % 4}" for n in viewer],
            "tags": ["a|b" if n % 2 else "" for n in viewer],
            "page": [["home", "list", None][n] for n in page],
            "price": chance.normal(size=len(film)),
        }
    )


@pytest.fixture
def both(tmp_path: Path) -> tuple[TrainingData, TrainingData]:
    return training_data(log_from_frame(table(), SCHEMA), CPU), training_data(in_files(tmp_path, table(), rows=60), CPU)


def in_files(folder: Path, frame: pl.DataFrame, rows: int = 10**6) -> ChunkedLog:
    for number, begin in enumerate(range(0, len(frame), 150)):
        frame[begin : begin + 150].write_parquet(folder / f"{number}.parquet")
    return ChunkedLog(f"{folder}/*.parquet", SCHEMA, rows=rows)


def info(clicks: Clicks) -> list[Any]:
    """Every event as the network sees it, in its order; places that fill up tell nothing."""
    clicks = clicks.by_row()
    columns = [
        [tuple(sorted(n for n in row if n)) for row in column.tolist()] if column.ndim == 2 else column.tolist()
        for column in clicks.of_rows
    ]
    return list(zip(clicks.item.tolist(), clicks.label.tolist(), *columns, strict=True))


def test_a_log_is_in_memory_and_files_are_not(both: tuple[TrainingData, TrainingData]) -> None:
    assert [type(part) for part in both] == [InMemory, InFiles]


def test_items_counts_and_codings_are_the_same_wherever_the_events_lie(both: tuple[TrainingData, TrainingData]) -> None:
    memory, files = both
    assert memory.items.ids == files.items.ids == tuple(f"film {n:02d}" for n in range(10))
    assert memory.counts == files.counts == [20 + 5 * n for n in range(10)]
    assert memory.rows == files.rows == len(table())
    codings = [part.encoder.to_json() for part in both]
    scales = [
        [coding.pop(key) for key in sorted(coding) if isinstance(coding[key], float)]
        for part in codings
        for coding in part
    ]
    assert codings[0] == codings[1]
    ours, theirs = scales[: len(codings[0])], scales[len(codings[0]) :]
    assert any(ours)
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-12)
    for mine, its in zip(memory.encoder.items(memory.items), files.encoder.items(files.items), strict=True):
        torch.testing.assert_close(mine, its, equal_nan=True)


@pytest.mark.parametrize("place", [0, 1])
def test_every_epoch_has_every_event_once_and_in_an_order_of_its_own(
    both: tuple[TrainingData, TrainingData], place: int
) -> None:
    part = both[place]
    epochs = []
    for epoch in range(2):
        numbers = range(epoch * part.chunks_per_epoch, (epoch + 1) * part.chunks_per_epoch)
        epochs.append([event for number in numbers for event in buffer_chunks(part, number)])
    whole = sorted(map(repr, info(both[0].event_histories(0, "old"))))
    assert sorted(map(repr, epochs[0])) == sorted(map(repr, epochs[1])) == whole
    assert epochs[0] != epochs[1]


def buffer_chunks(part: TrainingData, number: int, seed: int = 0) -> list[Any]:
    clicks, order = part.shuffled_chunk(number, seed, "old")
    return info(clicks.by_row(order))


@pytest.mark.parametrize("place", [0, 1])
def test_a_part_follows_from_its_number_and_the_seed(both: tuple[TrainingData, TrainingData], place: int) -> None:
    last = 2 * both[place].chunks_per_epoch - 1
    there = buffer_chunks(both[place], last)
    buffer_chunks(both[place], 0)  # what was asked for before tells nothing
    assert buffer_chunks(both[place], last) == there
    assert buffer_chunks(both[place], last, seed=1) != there


def plainly_latest(log: ClickLog, max_rows: int) -> list[tuple[str, int]]:
    """Film and row of the latest events, one film after the other, as it is written down."""
    found = []
    for item, name in enumerate(log.items.ids):
        rows = [(int(log.time[n]), int(log.row[n])) for n in range(len(log)) if log.item[n] == item]
        found += [(name, row) for _, row in sorted(rows)[-max_rows:]]
    return found


def by_item(parts: list[Clicks]) -> list[Any]:
    return [event for part in parts for event in sorted(info(part), key=lambda event: event[0])]


@pytest.mark.parametrize(("max_rows", "at_once"), combinations([1, 7, 30, 999], [1, 60, 10**6]))
def test_the_latest_events_equal_those_of_a_plain_loop(
    both: tuple[TrainingData, TrainingData], max_rows: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", at_once)
    memory, files = both
    log = log_from_frame(table(), SCHEMA)
    rows = np.array([row for _, row in plainly_latest(log, max_rows)])
    plain = memory.encoder.clicks(log.take(rows), log.item[rows])
    expected = repr(info(plain))
    assert repr(by_item(list(memory.latest_events(max_rows)))) == expected
    found = list(files.latest_events(max_rows))
    assert repr(by_item(found)) == expected
    assert len(found) == -(-10 // max(at_once // max_rows, 1))


def test_histories_go_by_time_and_hold_whole_items_as_memory_allows(
    both: tuple[TrainingData, TrainingData], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, files = both
    assert repr(info(files.event_histories(0, "old"))) == repr(info(memory.event_histories(0, "old")))
    monkeypatch.setattr(module, "MAX_ROWS", 150)
    some = files.event_histories(0, "old")
    counts = torch.bincount(some.item, minlength=10)
    chosen = counts.nonzero()[:, 0]
    assert 1 < len(chosen) < 10
    assert len(some) <= 150
    assert counts[chosen].tolist() == [files.counts[item] for item in chosen]
    assert repr(info(files.event_histories(0, "old"))) == repr(info(some))
    monkeypatch.setattr(module, "MAX_ROWS", 1)
    assert len(set(files.event_histories(0, "old").item.tolist())) == 1  # one there is always


LEARNERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "emerg": (EmerG, {"tower": [8], "layers": 1}),
    "emerg, all weights by episodes": (EmerG, {"tower": [8], "layers": 1, "meta_trains": "all", "meta_lr": 1e-3}),
    "deepfm": (IdTuning, {"hidden": [8], "generate_init": True}),
}
SHORT: dict[str, Any] = {"width": 4, "pretrain_epochs": 8, "pretrain_lr": 2e-2, "batch_size": 32, "meta_epochs": 2}


@pytest.fixture(params=LEARNERS)
def case(request: pytest.FixtureRequest) -> tuple[Any, dict[str, Any]]:
    kind, settings = LEARNERS[request.param]
    return kind, SHORT | {"init_std": 0.1} | settings


def losses(learner: Any, source: ClickLog | ChunkedLog) -> list[float]:
    steps = list(learner.fit_stage(Stage("old", OldItems(source), {})))
    return [step.values["loss"] for step in steps if step.part == "pretrain"]


def bits(learner: Any) -> dict[str, Tensor]:
    return {**learner.network.state_dict(), **learner.state}


IN_PARTS, IN_ONE_MIX = 60, 10**6


@pytest.mark.learning
@pytest.mark.parametrize(("case", "rows"), combinations([*LEARNERS], [IN_PARTS, IN_ONE_MIX]), indirect=["case"])
def test_training_from_files_is_as_accurate_as_from_memory(case: Any, rows: int, tmp_path: Path) -> None:
    kind, settings = case
    log, later = log_from_frame(table(), SCHEMA), log_from_frame(table(seed=1), SCHEMA)
    memory, files = kind(SCHEMA, **settings), kind(SCHEMA, **settings)
    for learner, source in ((memory, log), (files, in_files(tmp_path, table(), rows))):
        seen = losses(learner, source)
        assert np.mean(seen[-10:]) < np.mean(seen[:10]) - 0.05
    assert memory.known == files.known
    assert memory.counts == files.counts
    ours, theirs = (auc(later.label, learner.score(later)) for learner in (memory, files))
    assert min(ours, theirs) > 0.7
    assert theirs == pytest.approx(ours, abs=0.08)


@pytest.mark.parametrize(("case", "rows"), combinations([*LEARNERS], [IN_PARTS, IN_ONE_MIX]), indirect=["case"])
def test_the_same_files_and_seed_give_the_same_bits_and_another_seed_others(
    case: Any, rows: int, tmp_path: Path
) -> None:
    kind, settings = case
    settings = settings | {"pretrain_epochs": 1}
    files = in_files(tmp_path, table(), rows)
    one, again, other = (kind(SCHEMA, **settings, seed=seed).learn(files) for seed in (0, 0, 1))
    assert all(torch.equal(value, bits(again)[key]) for key, value in bits(one).items())
    assert not all(torch.equal(value, bits(other)[key]) for key, value in bits(one).items())


def test_a_learner_trained_from_files_has_the_same_item_phases(case: Any, tmp_path: Path) -> None:
    kind, settings = case
    (tmp_path / "log").mkdir()
    files = in_files(tmp_path / "log", table(), rows=60)
    learner = kind(SCHEMA, **settings | {"pretrain_epochs": 1}).learn(files)
    new = table(films=3, begin=50, seed=2)
    events, query = new[:30], new[30:]
    with pytest.raises(LearnerError, match="is not known; add it first"):
        learner.score(query)
    learner.add(new.unique("film", maintain_order=True))
    cold = learner.score(query)
    learner.warm(events)
    warm = learner.score(query)
    assert np.isfinite(warm).all()
    assert (cold != warm).any()
    learner.save(tmp_path / "store")
    loaded = kind.load(tmp_path / "store")
    assert (loaded.score(query) == warm).all()
    assert (loaded.score(table()) == learner.score(table())).all()
    assert loaded.counts == learner.counts
    again = kind.load(tmp_path / "store", stages=2)
    assert (again.score(query) == cold).all()
    assert (again.warm(events).score(query) == warm).all()
    with pytest.raises(LearnerError, match="has learned its old items"):
        loaded.learn(files)
