"""Tables whose rows are spread over processes: the same model, of which each holds a share; stores and checkpoints do not know."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from newcomer.data.schema import Field, Schema
from newcomer.errors import SettingError
from newcomer.items.learner import ItemLearner
from newcomer.items.methods.emerg import EmerG
from newcomer.registry import find_learner
from test_processes import free_port

SCHEMA = Schema(
    "item", "user", "click", "time", (Field("tags", "item", "multi"), Field("device", "context"), Field("year", "item"))
)
ITEMS, USERS, NEVER = 30, 41, 10**9
TRAIN = """
import json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.log_reader import read_log
from newcomer.data.schema import Schema
from newcomer.items.training import pretraining
from newcomer.nn.ctr import field_embeddings, row_shards
from newcomer.registry import find_learner
from newcomer.streams.cold_start import ColdStart, OldItems
from newcomer.streams.stage import Stage
from newcomer.training.checkpoint import Checkpoint
folder, name, kind, shard, rows, dies_at, settings, schema = sys.argv[1:]
pretraining.LARGE_TABLE, row_shards.BLOCK, field_embeddings.BLOCK = 1, 7, 16
folder, schema, settings = Path(folder), Schema.from_json(json.loads(schema)), json.loads(settings)
validates = settings.pop("validates", False)
log = str(folder / "log.csv")
if validates:
    old = ColdStart(read_log(log, schema), preset="honest", min_old_events=15, phase_events=2, validation=0.3).old
else:
    old = OldItems(ChunkedLog(log, schema, rows=int(rows)) if int(rows) else read_log(log, schema))
learner = find_learner(kind)(schema, **settings, shard_tables=shard == "true", device="cpu")
kept = Checkpoint(folder / f"{name}-checkpoint", every_seconds=0)
for number, _ in enumerate(learner.fit_stage(Stage("old", old, {}), kept)):
    if number == int(dies_at) and os.environ.get("RANK") == "1":
        os._exit(9)
tables = {key: list(value.shape) for key, value in learner.network.named_parameters() if ".tables." in key}
(folder / f"{name}-{os.environ.get('RANK', 0)}.json").write_text(json.dumps(tables))
learner.save(folder / name)
learner.save(folder / f"{name}-again")
kept.remove()
"""
SHORT: dict[str, Any] = {"pretrain_epochs": 2, "batch_size": 64, "meta_epochs": 1, "width": 5}
TOWER: dict[str, Any] = {"pretrain_epochs": 2, "batch_size": 64, "hidden": [6], "width": 5}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 901 events of 30 items, some of whose tags some devices like better."""
    draw, folder = random.Random(0), tmp_path_factory.mktemp("log")
    rows = ["item,user,click,time,tags,device,year"]
    for n in range(901):
        item, device = draw.randrange(ITEMS), draw.randrange(3)
        clicked = draw.random() < (0.7 if item % 3 == device else 0.2)
        tags = f"t{item % 3}|t{3 + item % 5}" if item % 7 else f"t{item % 3}"
        rows.append(f"i{item},u{draw.randrange(USERS)},{int(clicked)},{n},{tags},d{device},{1990 + item % 4}")
    (folder / "log.csv").write_text("\n".join(rows) + "\n")
    return folder


def train(
    log: Path,
    name: str,
    processes: int,
    shard: bool,
    kind: str = "emerg",
    rows: int = 0,
    dies_at: int = NEVER,
    settings: Any = SHORT,
) -> "subprocess.CompletedProcess[str]":
    (log / "train.py").write_text(TRAIN)
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--master_port", free_port()]
    words = [
        name,
        kind,
        str(shard).lower(),
        str(rows),
        str(dies_at),
        json.dumps(settings),
        json.dumps(SCHEMA.to_json()),
    ]
    return subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), str(log / "train.py"), str(log), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def trained(log: Path, name: str, *how: Any, **more: Any) -> str:
    done = train(log, name, *how, **more)
    assert done.returncode == 0, done.stderr
    return name


def scores(folder: Path) -> np.ndarray:
    """Of every item that was learned, by four users."""
    learner = find_learner(manifest(folder)["learner"]).load(folder)
    assert isinstance(learner, ItemLearner)
    pairs = [(item, n, user) for n, item in enumerate(learner.known) for user in range(4)]
    return learner.score(
        pl.DataFrame([{"item": i, "user": f"u{(4 * n + u) % USERS}", "device": f"d{(n + u) % 3}"} for i, n, u in pairs])
    )


def rows_of(log: Path, name: str, processes: int) -> dict[str, list[int]]:
    """Of each table the numbers of rows that the processes hold."""
    shapes = [json.loads((log / f"{name}-{rank}.json").read_text()) for rank in range(processes)]
    return {key: [shape[key][0] for shape in shapes] for key in shapes[0]}


@pytest.mark.parametrize(
    ("rows", "others"),
    [
        pytest.param(0, [3], marks=pytest.mark.slow),
        pytest.param(0, [1, 2], marks=pytest.mark.slow),
        pytest.param(150, [1, 3], marks=pytest.mark.slow),
    ],
)
def test_two_processes_with_half_of_the_rows_each_learn_what_one_does_with_all(
    rows: int, others: Sequence[int], log: Path
) -> None:
    """Also after a kill, and when others go on, one of them with all rows; the store is the same, and so is a second one."""
    alone, halves = (trained(log, f"{n} of {others} {rows}", n, n > 1, rows=rows) for n in (1, 2))
    every, shared = rows_of(log, alone, 1), rows_of(log, halves, 2)
    assert every["row_fields.tables.0"] == [USERS + 2]
    assert shared["row_fields.tables.0"] == [22, 21]
    assert {key: [sum(parts)] for key, parts in shared.items()} == every
    assert all(max(parts) - min(parts) <= 1 for parts in shared.values())
    assert_same_store(log / halves, log / alone)
    files = [log / name / "stage-000.safetensors" for name in (halves, f"{halves}-again")]
    assert files[0].read_bytes() == files[1].read_bytes()

    for count in others:
        name = f"killed {rows} {count}"
        assert train(log, name, 2, True, rows=rows, dies_at=20).returncode != 0
        assert not (log / name).exists()
        assert list((log / f"{name}-checkpoint").iterdir())
        trained(log, name, count, count > 1, rows=rows)
        assert_same_store(log / name, log / alone)


@pytest.mark.slow
def test_two_that_hold_all_rows_learn_the_same(log: Path) -> None:
    whole, halves = (trained(log, f"shared {shard}", 2, shard) for shard in (False, True))
    assert rows_of(log, whole, 2)["row_fields.tables.0"] == [USERS + 2, USERS + 2]
    assert_same_store(log / whole, log / halves)


def assert_same_store(found: Path, wanted: Path) -> None:
    """The same but for rounding: tensors, manifest, answers."""
    one, other = (load_file(folder / "stage-000.safetensors") for folder in (found, wanted))
    assert one.keys() == other.keys()
    for key, value in other.items():
        torch.testing.assert_close(one[key], value, atol=1e-3, rtol=1e-3)
    assert manifest(found) == manifest(wanted)
    np.testing.assert_allclose(scores(found), scores(wanted), atol=2e-4)


def manifest(folder: Path) -> Any:
    """What a store's manifest says, without the digests of rounded numbers."""
    content = json.loads((folder / "manifest.json").read_text())
    return {key: value for key, value in content.items() if key not in ("sha256", "stages")}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("emerg", SHORT | {"validates": True, "meta_trains": "all", "meta_lr": 1e-3, "episodes_per_step": 3}),
        pytest.param("mwuf", TOWER, marks=pytest.mark.slow),
        pytest.param(
            "emerg", SHORT | {"user_history": True, "smoothing_bandwidth": {"year": 1.0}}, marks=pytest.mark.slow
        ),
        pytest.param("cvar", TOWER, marks=pytest.mark.slow),
        pytest.param("meta-embedding", TOWER | {"meta_epochs": 1}, marks=pytest.mark.slow),
        pytest.param("dropout-net", TOWER | {"batch_size": 1, "pretrain_epochs": 1}, marks=pytest.mark.slow),
    ],
)
def test_every_part_of_training_looks_rows_up_where_they_are(kind: str, settings: Any, log: Path) -> None:
    """Validation, old items that are adapted, second stages; computed tables stay whole; a batch may have no row for a process."""
    name = f"{kind} {len(settings)}"
    alone, halves = (trained(log, f"{name} {n}", n, n > 1, kind, settings=settings) for n in (1, 2))
    np.testing.assert_allclose(scores(log / halves), scores(log / alone), atol=1e-3)
    shared = rows_of(log, halves, 2)
    first, second = shared["row_fields.tables.0"]
    assert first - second in (0, 1)
    if "user_history" in settings:
        assert shared["row_fields.tables.2"] == [USERS + 2] * 2
        assert shared["item_fields.tables.1"] == [6, 6]


def test_averaged_tables_cannot_be_sharded() -> None:
    with pytest.raises(SettingError, match="shard_tables = true needs weight_averaging = 0"):
        EmerG(SCHEMA, shard_tables=True, weight_averaging=0.5)
    assert EmerG(SCHEMA, weight_averaging=0.5).settings["shard_tables"] == "auto"
