"""Items in PostgreSQL that actors of Ray Data warm up and score, as in `docs/ray.md`: are all events counted once, and how fast?

    python benchmarks/scale/ray_items.py [--items 1000000] [--model FOLDER]

Registered by this process; then one event an item, sorted by item, by two actors; then a score an item. The server and Ray are on
this machine, and both actors, the server and Ray's own processes share its cores.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import ray

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))
from database_servers import PostgreSQL
from endurance import WORLD, arguments, events, result

from measurement import Measurement, emit
from newcomer.items.serving.service import ItemService

COMMAND = "python benchmarks/scale/ray_items.py"
AT_ONCE = 10_000
"""Items registered, or written to a file, at a time."""
BATCH = 4096


class Items:
    """The click model in an actor."""

    def __init__(self, store: str, states: str) -> None:
        self.items = ItemService.open(store, states)


class Warm(Items):
    """Counts events."""

    def __call__(self, table: Any) -> dict[str, list[int]]:
        done = self.items.warm(pl.DataFrame(pl.from_arrow(table)))
        return {"new": [done.new], "known": [done.known]}


class Score(Items):
    """Scores requests."""

    def __call__(self, table: Any) -> Any:
        return self.items.score(pl.DataFrame(pl.from_arrow(table))).to_arrow()


def through(operation: type[Items], table: Path, store: Path, states: str) -> ray.data.Dataset:
    """A table through two actors."""
    return ray.data.read_parquet(str(table)).map_batches(
        operation,
        fn_constructor_args=(str(store), states),
        batch_format="pyarrow",
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=0.5,
    )


def measurements(count: int, store: Path, folder: Path) -> Iterator[Measurement]:
    world, log = replace(WORLD, new_items=count - WORLD.old_items), folder / "events"
    log.mkdir()
    with PostgreSQL(folder) as database:
        begin = time.perf_counter()
        with ItemService.open(store, database.url) as items:
            for first in range(0, count, AT_ONCE):
                rows = range(first, min(first + AT_ONCE, count))
                items.add(pl.DataFrame([world.truth.item_row(item) for item in rows]))
                print(f"{rows.stop:,} items, {rows.stop / (time.perf_counter() - begin):,.0f}/s", file=sys.stderr)
                table = pl.DataFrame(events(first, np.array(rows), world))
                table.write_parquet(log / f"{first:09}.parquet")
        title = f"{count:,} items in PostgreSQL"
        yield result(COMMAND, f"{title}, registered", count / (time.perf_counter() - begin), "items/s")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=str(folder / "ray"))
        begin = time.perf_counter()
        counted: Any = through(Warm, log, store, database.url).sum("new")
        yield result(COMMAND, f"{title}, warmed up by Ray Data", count / (time.perf_counter() - begin), "items/s")
        yield result(COMMAND, f"{title}, events lost or counted twice", abs(count - counted), "events", 0.0)
        begin = time.perf_counter()
        through(Score, log, store, database.url).write_parquet(str(folder / "scores"))
        yield result(COMMAND, f"{title}, scored by Ray Data", count / (time.perf_counter() - begin), "items/s")
        ray.shutdown()
        scored = pl.scan_parquet(folder / "scores").select(pl.len(), pl.col("events").min().alias("least")).collect()
        yield result(COMMAND, f"{title}, without a score of one event", abs(count - scored["len"][0]), "items", 0.0)
        if scored["least"][0] != 1:
            raise RuntimeError(f"an item was scored with {scored['least'][0]} events")


if __name__ == "__main__":
    with arguments(__doc__, items=1_000_000) as (args, folder):
        emit(measurements(args.items, args.model, folder))
