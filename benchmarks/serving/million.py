"""A million events over 10,000 items, as fast as they go: is memory flat, and is the state that of an offline replay?

    python benchmarks/serving/million.py [--events 1000000] [--items 10000] [--model FOLDER]

One worker on SQLite gets batches of 500 over one connection. Items are drawn with a skew, so that some have hundreds of events, of
which the oldest are in a summary. The replay warms up an `ItemService` by the same events, all of an item in one call. Memory is
that of the worker from the end of the first tenth, when most items have been met.
"""

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
from endurance import (
    PRESENT,
    TOLERANCE,
    WORLD,
    Service,
    add_items,
    arguments,
    compare,
    cpu_seconds,
    events,
    memory,
    result,
)
from latency import Connection

from measurement import Measurement, emit
from newcomer.data.datasets.simulated_clicks import SCHEMA
from newcomer.items.serving.service import ItemService
from newcomer.settings import Json

COMMAND = "python benchmarks/serving/million.py"
BATCH = 500
REPLAYED = 500
"""Items that the replay takes at a time."""
SKEW = 0.8
"""Std of the logarithm of an item's share."""


def batches(count: int, items: int) -> Iterator[list[dict[str, Json]]]:
    """The events, `BATCH` at a time; the same in every call."""
    chance = np.random.default_rng(WORLD.seed)
    share = np.exp(SKEW * chance.standard_normal(items))
    for begin in range(0, count, BATCH):
        yield events(begin, chance.choice(items, min(BATCH, count - begin), p=share / share.sum()))


def send(service: Service, count: int, items: int) -> tuple[float, float, list[float]]:
    """Events per second, and per second of the worker's CPU time; its memory after each hundredth."""
    connection, found, sent = Connection(service.port), list[float](), 0
    add_items(connection)
    source = (json.dumps({"events": batch}).encode() for batch in batches(count, items))
    begin, cpu = time.perf_counter(), cpu_seconds(service.process.pid)
    with ThreadPoolExecutor(1) as pool:  # the next body is written while one is answered
        body = pool.submit(next, source, None)
        while (content := body.result()) is not None:
            body = pool.submit(next, source, None)
            answer = json.loads(connection.post("/events", content))
            sent += answer["new"]
            if answer["refused"] or answer["known"]:
                raise RuntimeError(f"after {sent:,} events: {answer}")
            if sent * 100 // count > len(found):
                found.append(memory(service.process.pid))
                taken = time.perf_counter() - begin
                print(f"{sent:,} events, {sent / taken:,.0f}/s, {found[-1]:.0f} MiB", file=sys.stderr, flush=True)
    return sent / (time.perf_counter() - begin), sent / (cpu_seconds(service.process.pid) - cpu), found


def replay(service: ItemService, count: int, items: int) -> None:
    """The same events by the library, all events of an item in one call."""
    service.add([WORLD.truth.item_row(item) for item in range(PRESENT)])
    table = pl.concat([pl.DataFrame(batch) for batch in batches(count, items)])
    names = table[SCHEMA.item].unique().sort()
    for begin in range(0, len(names), REPLAYED):
        service.warm(table.filter(pl.col(SCHEMA.item).is_in(names[begin : begin + REPLAYED].to_list())))


def measurements(store: Path, folder: Path, count: int, items: int) -> Iterator[Measurement]:
    states = [f"sqlite:///{folder / name}.db" for name in ("served", "replayed")]
    with Service(str(store), "--states", states[0], "--folder", str(folder / "own"), log=folder / "log") as service:
        rate, of_cpu, found = send(service, count, items)
        starts = service.starts
    title = f"{count:,} events over {items:,} items"
    later = found[len(found) // 10 - 1 :]
    yield result(COMMAND, f"{title}, rate", rate, "events/s", 1000.0)
    yield result(COMMAND, f"{title}, rate per second of the worker's CPU time", of_cpu, "events/s")
    yield result(COMMAND, f"{title}, memory at the end / after a tenth", later[-1] / later[0], "ratio", 1.05)
    yield result(COMMAND, f"{title}, largest memory / after a tenth", max(later) / later[0], "ratio", 1.05)
    yield result(COMMAND, f"{title}, memory after a tenth", later[0], "MiB")
    with ItemService.open(store, states[0]) as served, ItemService.open(store, states[1]) as replayed:
        before = replayed.headers()
        replay(replayed, count, items)
        counted = compare(served, replayed, before)
    print(f"{counted}; the service was started {starts} times", file=sys.stderr)
    yield result(COMMAND, f"{title}, lost", counted.lost, "events", 0.0)
    yield result(COMMAND, f"{title}, counted twice", counted.twice, "events", 0.0)
    yield result(COMMAND, f"{title}, state against a replay", counted.difference, "absolute", TOLERANCE)


if __name__ == "__main__":
    with arguments(__doc__, events=1_000_000, items=PRESENT) as (args, folder):
        emit(measurements(args.model, folder, args.events, args.items))
