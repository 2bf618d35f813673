"""Events per second that a service counts: batches of events through `ItemService.warm`, in each database.

    python benchmarks/speed/events.py [--batch 1000] [--items 1000] [--history 50] [--profile]

One process and one core, the default EmerG on simulated clicks, trained briefly. Every item has a history of events before the
clock starts. PostgreSQL and Valkey run on the same machine and write every change to the disk before they confirm it.
"""

import argparse
import cProfile
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import torch
from models import measurement

from measurement import Measurement, emit, one_line
from newcomer.data.schema import Field, Schema
from newcomer.items.methods.emerg import EmerG
from newcomer.items.serving.service import ItemService

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from databases import postgresql_server, valkey_server

COMMAND = "python benchmarks/speed/events.py"
TARGET = 1000.0
FIELDS = [Field(f"item {n}", "item") for n in range(4)] + [Field(f"context {n}", "context") for n in range(3)]
SCHEMA = Schema("item", "user", "click", "time", tuple(FIELDS))


def events(items: int, count: int, draw: np.random.Generator, start: int, old: bool = False) -> pl.DataFrame:
    """So many events of items drawn at random."""
    item, prefix = draw.integers(0, items, count), "old" if old else "new"
    rows: dict[str, object] = {"item": [f"{prefix} {n}" for n in item], "user": draw.integers(0, 5000, count)}
    for field in SCHEMA.fields:
        rows[field.name] = (item * 7 % 11 if field.role == "item" else draw.integers(0, 8, count)).astype(str)
    rows |= {"click": draw.integers(0, 2, count), "time": np.arange(start, start + count)}
    return pl.DataFrame(rows).with_columns(event_id=pl.format("e{}", "time"))


@contextmanager
def databases(folder: Path) -> Iterator[dict[str, str]]:
    """URL of an empty database of each kind."""
    with postgresql_server() as postgresql, valkey_server(appendonly="yes", appendfsync="always") as valkey:
        yield {"SQLite": f"sqlite:///{folder / 'items.db'}", "PostgreSQL": postgresql().url, "Valkey": valkey().url}


def seconds(service: ItemService, batches: list[pl.DataFrame]) -> list[tuple[float, float]]:
    """Seconds of each batch: wall-clock time, and this process's CPU time."""
    found = []
    for batch in batches:
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        assert service.warm(batch).new == len(batch)
        cpu = time.process_time() - cpu_start
        found.append((time.perf_counter() - wall_start, cpu))
    return found


def profiled(service: ItemService, batches: list[pl.DataFrame]) -> list[tuple[float, float]]:
    """`seconds`, with a table of where they went."""
    profile = cProfile.Profile()
    found = profile.runcall(seconds, service, batches)
    pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
    return found


def main(args: argparse.Namespace, folder: Path) -> list[Measurement]:
    draw = np.random.default_rng(0)
    EmerG(SCHEMA, pretrain_epochs=1, meta_epochs=1, device="cpu").learn(events(50, 5000, draw, 0, old=True)).save(
        folder
    )
    history = events(args.items, args.history * args.items, draw, 10**6)
    batches = [events(args.items, args.batch, draw, 10**7 + n * args.batch) for n in range(args.batches)]
    new = pl.concat([history, *batches]).unique("item").select("item", *(f.name for f in FIELDS if f.role == "item"))
    found = []
    with databases(folder) as urls:
        for name, url in urls.items():
            service = ItemService.open(folder, url)
            service.add(new)
            service.warm(history)
            taken = (profiled if args.profile else seconds)(service, batches)
            service.close()
            for clock, of_clock, target in zip(
                ("", ", processor"), zip(*taken, strict=True), (TARGET, None), strict=True
            ):
                rates = [args.batch / one for one in of_clock]
                rate, std = round(statistics.median(rates)), round(statistics.stdev(rates))
                print(f"{name}{clock}: {rate:,} ± {std:,} events/s", flush=True)
                title = f"events counted in {name}, batches of {args.batch}{clock}"
                found.append(measurement(title, rate, COMMAND, target, std, "events/s", "higher"))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--history", type=int, default=50, help="earlier events an item")
    parser.add_argument("--profile", action="store_true")
    torch.set_num_threads(1)
    with one_line(), tempfile.TemporaryDirectory() as name:
        emit(main(parser.parse_args(), Path(name)))
