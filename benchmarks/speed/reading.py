"""Peak memory and seconds of reading a large click log: one pass for its statistics, one in shuffled, encoded chunks.

    python benchmarks/speed/reading.py --megabytes 5000

The log has a million users and a hundred thousand items; it is written to a temporary folder and deleted at the end. The peak is
that of the whole process, libraries included.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch

from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.log_statistics import LogStatistics
from newcomer.data.io.shuffle import ShuffledPasses
from newcomer.data.schema import Field, Schema
from newcomer.items.encoding.encoder import Encoder

if TYPE_CHECKING:
    from measurement import Measurement

COMMAND = "python benchmarks/speed/reading.py --megabytes {}"
ITEMS, USERS, BLOCK = 100_000, 1_000_000, 500_000
SCHEMA = Schema(
    "item",
    "user",
    "click",
    "time",
    (
        Field("brand", "item"),
        Field("tags", "item", "multi"),
        Field("price", "item", "numeric"),
        Field("city", "user"),
        Field("age", "user"),
        Field("page", "context"),
        Field("cost", "context", "numeric"),
    ),
)


def events(number: int) -> pl.DataFrame:
    """One block of the log, with skewed popularity of items and users."""
    chance = np.random.default_rng(number)
    columns = {
        "item": (ITEMS * chance.random(BLOCK) ** 3).astype(np.int64),
        "user": (USERS * chance.random(BLOCK) ** 2).astype(np.int64),
        "click": chance.integers(0, 2, BLOCK),
        "time": number * BLOCK + np.arange(BLOCK),
        "page": chance.integers(0, 200, BLOCK),
        "cost": chance.normal(size=BLOCK).round(4),
    }
    item, user = pl.col("item"), pl.col("user")
    return pl.DataFrame(columns).with_columns(
        pl.format("brand {}", item % 5000).alias("brand"),
        pl.format("tag {}|tag {}", item % 7, 7 + item % 11).alias("tags"),
        (item % 997 / 10).alias("price"),
        pl.format("city {}", user % 3000).alias("city"),
        pl.format("age {}", user % 9).alias("age"),
        pl.format("page {}", pl.col("page")).alias("page"),
        pl.format("i{}", item).alias("item"),
        pl.format("u{}", user).alias("user"),
    )


def write_csv(folder: Path, size: int) -> None:
    """One file of this many bytes."""
    with (folder / "log.csv").open("wb") as file:
        number = 0
        while file.tell() < size:
            events(number).write_csv(file, include_header=number == 0)
            number += 1


def write_parquet(folder: Path, size: int) -> None:
    """Files of a million rows each, of this many bytes in total."""
    number = 0
    while sum(file.stat().st_size for file in folder.iterdir()) < size:
        pl.concat([events(number), events(number + 1)]).write_parquet(folder / f"log-{number // 2:05}.parquet")
        number += 2


WRITERS: dict[str, Callable[[Path, int], None]] = {"csv": write_csv, "parquet": write_parquet}


def read(pattern: str) -> dict[str, float]:
    """Seconds of both passes, peak memory of this process in MiB, and the number of rows."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    files = ChunkedLog(pattern, SCHEMA)
    survey = LogStatistics.of(files)
    encoder, known = Encoder.fit(survey), {name: number for number, name in enumerate(survey.items.ids)}
    rows = survey.rows
    del survey  # training does not need it
    surveyed, seen = time.perf_counter(), 0
    for mix in ShuffledPasses(files, epochs=1, seed=0).iterate():
        clicks = encoder.clicks(mix, np.array([known[name] for name in mix.items.ids])[mix.item])
        seen += len(clicks)
    assert seen == rows
    return {"survey": surveyed - start, "mixes": time.perf_counter() - surveyed, "peak": _peak(), "rows": seen}


def _peak() -> float:
    """Peak resident memory of this process in MiB; unlike ru_maxrss it is not inherited from the parent process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def measurements(kind: str, megabytes: int) -> "list[Measurement]":
    from models import measurement  # not at the top: the measured process does not need it

    with tempfile.TemporaryDirectory() as name:
        WRITERS[kind](Path(name), megabytes * 1_000_000)
        done = subprocess.run(
            [sys.executable, __file__, "--read", f"{name}/log*.{kind}"], capture_output=True, text=True, check=True
        )
    result = json.loads(done.stdout)
    print(
        f"{kind}, {megabytes} MB, {result['linear_head'] / 1e6:.1f} million rows: survey {result['survey']:.1f} s, "
        f"one pass of mixes {result['mixes']:.1f} s, peak {result['peak']:.0f} MiB"
    )
    label, command = f"reading {megabytes} MB of {kind}", COMMAND.format(megabytes)
    return [
        measurement(f"{label}: survey", round(result["survey"], 2), command, unit="s"),
        measurement(f"{label}: pass of mixes", round(result["mixes"], 2), command, unit="s"),
        measurement(f"{label}: peak memory", round(result["peak"], 1), command, 1024, unit="MiB"),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=5000)
    parser.add_argument("--kinds", nargs="+", choices=list(WRITERS), default=list(WRITERS))
    parser.add_argument("--read", metavar="PATTERN", help="read these files in this process and print the measurements")
    args = parser.parse_args()
    if args.read:
        print(json.dumps(read(args.read)))
    else:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from measurement import emit

        emit(f for kind in args.kinds for f in measurements(kind, args.megabytes))
