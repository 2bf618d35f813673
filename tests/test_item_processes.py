"""Several processes train a click model as one does; a killed one loses nothing; what cannot run in several says so."""

import os
import random
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from newcomer.data.io.chunked_log import Chunk, ChunkedLog
from newcomer.data.io.shuffle import ShuffledPasses
from newcomer.data.schema import Field, Schema
from newcomer.items.encoding.encoder import Clicks
from newcomer.items.methods.emerg import EmerG
from newcomer.items.training import pretraining
from newcomer.items.training.training_data import training_data
from newcomer.training.processes import Processes
from shell import Shell
from test_processes import free_port

SCHEMA = Schema("item", "user", "click", "time", (Field("genre", "item"), Field("device", "context")))
SCRIPT = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from newcomer.data.io.chunked_log import Chunk, ChunkedLog
from newcomer.data.io.log_reader import read_log
from newcomer.data.schema import Field, Schema
from newcomer.registry import find_learner
from newcomer.streams.cold_start import OldItems
from newcomer.streams.stage import Stage
from newcomer.training.checkpoint import Checkpoint
from newcomer.items.training import pretraining
kind, log, store, checkpoint, rows, dies_at, large = sys.argv[1:]
pretraining.LARGE_TABLE = int(large)
schema = Schema("item", "user", "click", "time", (Field("genre", "item"), Field("device", "context")))
data = ChunkedLog(log, schema, rows=int(rows)) if int(rows) else read_log(log, schema)
learner = find_learner(kind)(schema, pretrain_epochs=2, batch_size=64, id_dropout=0.3, meta_epochs=1, device="cpu")
kept = Checkpoint(Path(checkpoint), every_seconds=0)
for number, _ in enumerate(learner.fit_stage(Stage("old", OldItems(data), {}), kept)):
    if number == int(dies_at) and os.environ.get("RANK") == "1":
        os._exit(9)
learner.save(store)
kept.remove()
"""
NEVER = 10**9


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """900 events of 30 items, some of genres that some devices like better."""
    draw, path = random.Random(0), tmp_path_factory.mktemp("log") / "log.csv"
    rows = ["item,user,click,time,genre,device"]
    for n in range(900):
        item, device = draw.randrange(30), draw.randrange(3)
        clicked = draw.random() < (0.7 if item % 3 == device else 0.2)
        rows.append(f"i{item},u{draw.randrange(40)},{int(clicked)},{n},g{item % 3},d{device}")
    path.write_text("\n".join(rows) + "\n")
    return path


def train(
    folder: Path, log: Path, name: str, processes: int, rows: int = 0, dies_at: int = NEVER, large: int = NEVER
) -> int:
    """The exit code of the script: several processes are launched, a single one is this one, which has imported torch."""
    (folder / "train.py").write_text(SCRIPT)
    words = [
        *(str(folder / "train.py"), "emerg", str(log), str(folder / name), str(folder / f"{name}-checkpoint")),
        *map(str, (rows, dies_at, large)),
    ]
    if processes == 1:
        with pytest.MonkeyPatch.context() as here:
            here.setattr(sys, "argv", words)
            here.setattr(pretraining, "LARGE_TABLE", large)  # as the script does; and back
            runpy.run_path(words[0])
        return 0
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--master_port", free_port()]
    done = subprocess.run(
        [sys.executable, *launcher, *words], check=False, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return done.returncode


def scores(folder: Path) -> np.ndarray:
    requests = [{"item": f"i{n % 30}", "user": f"u{n % 40}", "device": f"d{n % 3}"} for n in range(120)]
    return EmerG.load(folder).score(pl.DataFrame(requests))


@pytest.mark.parametrize("rows", [0, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.always
def test_two_processes_learn_what_one_does_also_after_a_kill_and_in_other_numbers(
    rows: int, log: Path, tmp_path: Path
) -> None:
    """In memory and chunk by chunk; the checkpoint of two is gone on from by one."""
    assert train(tmp_path, log, "alone", 1, rows) == 0
    assert train(tmp_path, log, "together", 2, rows) == 0
    np.testing.assert_allclose(scores(tmp_path / "together"), scores(tmp_path / "alone"), atol=2e-4)
    assert train(tmp_path, log, "killed", 2, rows, dies_at=20) != 0
    assert not (tmp_path / "killed").exists()
    assert list((tmp_path / "killed-checkpoint").iterdir())
    assert train(tmp_path, log, "killed", 1, rows) == 0
    np.testing.assert_allclose(scores(tmp_path / "killed"), scores(tmp_path / "alone"), atol=2e-4)
    assert not (tmp_path / "killed-checkpoint").exists()


def test_tables_that_are_trained_row_by_row_are_shared_too(log: Path, tmp_path: Path) -> None:
    """And end near those of dense steps."""
    assert [train(tmp_path, log, name, *how) for name, *how in RUNS] == [0, 0, 0]
    np.testing.assert_allclose(scores(tmp_path / "together"), scores(tmp_path / "alone"), atol=2e-4)
    assert not np.array_equal(scores(tmp_path / "alone"), scores(tmp_path / "dense"))
    np.testing.assert_allclose(scores(tmp_path / "alone"), scores(tmp_path / "dense"), atol=0.01)


RUNS: list[tuple[Any, ...]] = [("dense", 1), ("alone", 1, 0, NEVER, 1), ("together", 2, 0, NEVER, 1)]
"""Name, processes, rows of a chunk, step of the kill, rows of a large table."""


def of_rank(index: int, count: int) -> Processes:
    processes = Processes("cpu")
    processes.index, processes.count = index, count
    return processes


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [0, 100, 400])
def test_shares_of_processes_partition_every_batch(count: int, rows: int, log: Path) -> None:
    """Together they are the batches of a single process. Of a log in memory they are equal, and hardly an item is split."""
    data = training_data(
        ChunkedLog(log, SCHEMA, rows=rows) if rows else EmerG(SCHEMA)._to_log(str(log)), of_rank(0, 1).device
    )
    for number in range(data.chunks_per_epoch + 1):
        clicks, order = data.shuffled_chunk(number, 0, "old")
        batches = torch.split(order, 64)
        shares = [data.share(number, 0, "old", of_rank(index, count), 64) for index in range(count)]
        found = [list(share.batches(64)) for share in shares]
        placed = [
            (place, event)
            for share in shares
            for place, event in zip(share.position.tolist(), events(share.clicks, share.rows), strict=True)
        ]
        in_order = [event for _, event in sorted(placed)]
        assert len({place for place, _ in placed}) == len(order)
        assert in_order == events(clicks, order) or (count > 1 and not rows)
        for n, batch in enumerate(batches):
            together = [
                event for share, of in zip(shares, found, strict=True) for event in events(share.clicks, of[n][0])
            ]
            assert sorted(together) == sorted(events(clicks, batch))
            drawn = [draw for of in found for draw in of[n][1].tolist()]
            assert rows or sorted(drawn) == sorted(batch.tolist())
            assert {of[n][2] for of in found} == {len(batch)}
            if not rows:
                sizes = [len(of[n][0]) for of in found]
                assert max(sizes) - min(sizes) <= 1
                items = [set(clicks.item[of[n][0]].tolist()) for of in found]
                assert sum(map(len, items)) <= len(set.union(*items)) + count - 1


def events(clicks: Clicks, rows: torch.Tensor) -> list[Any]:
    """What there is to know of these rows."""
    columns = [clicks.item, clicks.label, *clicks.of_rows]
    return list(zip(*(column[rows].tolist() for column in columns), strict=True))


def test_a_reader_of_chunks_reads_its_own_alone(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ChunkedLog(log, SCHEMA, rows=100)
    passes, read = ShuffledPasses(files, 1, 0, buffer_chunks=4), list[int]()
    table = files.table

    def watched(chunk: Chunk, **form: bool) -> pl.DataFrame:
        read.append(chunk.first)
        return table(chunk, **form)

    monkeypatch.setattr(files, "table", watched)
    shares = [passes.share(0, index, 2)[1] for index in range(2)]
    assert len(read) == len(set(read)) == 4
    assert sorted(np.concatenate(shares).tolist()) == list(range(400))


@pytest.mark.parametrize(
    "words", [["score", "model", "requests.csv"], ["compare", "digits"], ["demo"], ["inspect", "model"]]
)
def test_what_runs_in_one_process_says_so_in_every_one_and_touches_nothing(
    words: list[str], shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in ("0", "1"):
        launched(monkeypatch, rank)
        assert shell.fails(*words) == (
            f"newcomer: `newcomer {words[0]}` runs in one process, and a launcher started 2; start it without the launcher "
            "(run, learn, train run in several)"
        )


def launched(monkeypatch: pytest.MonkeyPatch, rank: str) -> None:
    """The environment of one of two processes."""
    for name, value in {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)


def test_a_rank_left_over_in_the_environment_silences_no_save(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learner was made alone: what the environment says later is of something else."""
    learner = EmerG(SCHEMA, pretrain_epochs=1, meta_epochs=0).learn(str(log))
    launched(monkeypatch, "1")
    learner.save(tmp_path / "store")
    assert (tmp_path / "store" / "manifest.json").exists()
