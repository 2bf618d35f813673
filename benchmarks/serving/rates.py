"""Events that a service takes in batches of 500 on each database, and how soon a score by another worker knows an event.

    python benchmarks/serving/rates.py [--events 20000] [--delays 100] [--databases SQLite,PostgreSQL,Valkey] [--model FOLDER]

Rates: one worker, two connections; the first tenth of the events is sent twice. Delays: two workers, of which one gets 200 events a
second, and now and then one more; from the moment that it is sent, the other worker is asked for a score until it knows the event.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from database_servers import DATABASES
from endurance import WORLD, Service, add_items, arguments, cpu_seconds, events, result
from latency import REPEATED, Connection

from measurement import Measurement, emit
from newcomer.data.datasets.simulated_clicks import item_id
from newcomer.items.serving.service import ItemService
from newcomer.settings import Json
from newcomer.simulation.visits import Traffic, Visit

COMMAND = "python benchmarks/serving/rates.py"
ITEMS = 2000
BATCH = 500
RATE, PACED = 200, 20
"""Events a second while delays are measured, and how many of them are sent at a time."""


def post(connection: Connection, rows: Sequence[dict[str, Json]]) -> dict[str, int]:
    """The answer about events."""
    found: dict[str, int] = json.loads(connection.post("/events", json.dumps({"events": rows}).encode()))
    return found


def sustained(service: Service, count: int) -> tuple[float, float, int]:
    """Events a second, and per second of the worker's CPU time; how many were acknowledged as new."""
    add_items(Connection(service.port), ITEMS)
    chance = np.random.default_rng(WORLD.seed)
    batches = [events(begin, chance.integers(ITEMS, size=BATCH)) for begin in range(0, count, BATCH)]
    batches += batches[: int(REPEATED * len(batches))]
    local = threading.local()

    def send(rows: Sequence[dict[str, Json]]) -> int:
        if not hasattr(local, "connection"):
            local.connection = Connection(service.port)
        return post(local.connection, rows)["new"]

    begin, cpu = time.perf_counter(), cpu_seconds(service.process.pid)
    with ThreadPoolExecutor(2) as pool:
        new = sum(pool.map(send, batches))
    sent = len(batches) * BATCH
    return sent / (time.perf_counter() - begin), sent / (cpu_seconds(service.process.pid) - cpu), new


def delays(service: Service, count: int) -> list[float]:
    """Seconds from the sending of an event to one worker until a score of the other one has it."""
    add_items(Connection(service.port), ITEMS)
    stopped = threading.Event()

    def load() -> int:
        connection, begin, sent = Connection(service.port), time.perf_counter(), 0
        while not stopped.is_set():
            post(connection, events(10**6 + sent, np.random.default_rng(sent).integers(ITEMS // 2, size=PACED)))
            sent += PACED
            stopped.wait(max(0.0, begin + sent / RATE - time.perf_counter()))
        return round(sent / (time.perf_counter() - begin))

    with ThreadPoolExecutor(1) as pool:
        loaded = pool.submit(load)
        try:
            found = [delay(service, number) for number in range(count)]
        finally:
            stopped.set()
        print(f"{loaded.result()} events a second meanwhile", file=sys.stderr)
    return found


def delay(service: Service, number: int) -> float:
    """Seconds until one worker knows an event that was sent to the other."""
    first, other = service.each_worker(2).values()
    item, visit = ITEMS // 2 + number % (ITEMS // 2), Visit.draw(WORLD, Traffic(candidates=1), number, ITEMS)
    body = json.dumps({**visit.user, "context": visit.context, "candidates": [item_id(item)]}).encode()

    def known() -> int:
        return int(json.loads(other.post("/score", body))["scores"][0]["events"])

    before = known()
    begin = time.perf_counter()
    post(first, events(2 * 10**6 + number, np.array([item])))
    while known() == before:
        time.sleep(0.005)
    return time.perf_counter() - begin


def measurements(store: Path, folder: Path, count: int, times: int, databases: Sequence[str]) -> Iterator[Measurement]:
    for name in databases:
        (folder / name).mkdir()
        with DATABASES[name](folder / name) as database:
            words = [str(store), "--states", database.url, "--folder", str(folder / name / "own")]
            with ItemService.open(store, database.url) as items:
                before = sum(header.events for header in items.headers().values())
                with Service(*words, log=folder / name / "log") as service:
                    rate, of_cpu, new = sustained(service, count)
                gained = sum(header.events for header in items.headers().values()) - before
            yield result(COMMAND, f"events in batches of {BATCH}, {name}", rate, "events/s", 1000.0)
            yield result(COMMAND, f"events in batches of {BATCH}, {name}, per second of CPU time", of_cpu, "events/s")
            yield result(COMMAND, f"events in batches of {BATCH}, {name}, lost", max(new - gained, 0), "events", 0.0)
            yield result(
                COMMAND, f"events in batches of {BATCH}, {name}, counted twice", max(gained - count, 0), "events", 0.0
            )
            with Service(*words, "--workers", "2", log=folder / name / "log") as service:
                seconds = delays(service, times)
            for share, target in ((50, None), (99, 1.0)):
                title = f"an event is in the scores of another worker, {name}, p{share}"
                yield result(COMMAND, title, float(np.percentile(seconds, share)), "s", target)


if __name__ == "__main__":
    with arguments(__doc__, events=20_000, delays=100, databases=",".join(DATABASES)) as (args, folder):
        emit(measurements(args.model, folder, args.events, args.delays, args.databases.split(",")))
