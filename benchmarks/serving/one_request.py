"""CPU time of one request in process, and of one event as more and more items are known.

    python benchmarks/serving/one_request.py [--items 1000 10000 100000 1000000]

The click model of the simulated world on one core. Tables are given as their users have them: a frame, or rows. CPU time, because
it says the same on a busy machine. An event is one of a new item; at each number of items the process has read all of them before.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from threading import Thread
from typing import Any

import polars as pl
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from measurement import Better, Measurement, emit
from newcomer.experiments.run import commit, machine
from newcomer.items.serving.candidates import score_candidates
from newcomer.items.serving.service import ItemService
from newcomer.server.app import create_app
from newcomer.server.configuration import ServeConfig
from newcomer.settings import Json
from newcomer.simulation.visits import Traffic, Visit
from newcomer.simulation.world import World
from newcomer.store.states import Change

COMMAND = "python benchmarks/serving/one_request.py"
WORLD = World()
PRESENT = WORLD.old_items + WORLD.new_items
CANDIDATES = 500
VISITS = 32
PART = 5000
"""Items that are written and read at a time."""


def milliseconds(action: Callable[[int], object], calls: int) -> float:
    """Median CPU time of a call, in milliseconds; the first calls are not counted."""
    taken = []
    for number in range(calls + 10):
        begin = time.process_time()
        action(number)
        taken.append(1e3 * (time.process_time() - begin))
    return statistics.median(taken[10:])


def result(name: str, value: float, unit: str, target: float | None = None) -> Measurement:
    better: Better = "higher" if unit.endswith("/s") else "lower"
    return Measurement(name, round(value, 3), unit, COMMAND, [0], machine(), commit(), target, better=better)


def scores(items: ItemService, calls: int) -> Iterator[Measurement]:
    """500 candidates for one user, by each way that leads there."""
    visits = [Visit.draw(WORLD, Traffic(candidates=CANDIDATES), number, PRESENT) for number in range(VISITS)]
    candidates = [visit.candidates for visit in visits]
    contexts = [{**visit.user, **visit.context} for visit in visits]
    item = items.learner.schema.item
    rows = [[{item: name, **context} for name in names] for names, context in zip(candidates, contexts, strict=True)]
    frames = [pl.DataFrame(table) for table in rows]
    ways: dict[str, Callable[[int], object]] = {
        "a frame": lambda number: items.score(frames[number % VISITS]),
        "rows": lambda number: items.score(rows[number % VISITS]),
        "a context and ids": lambda number: score_candidates(
            items, candidates[number % VISITS], contexts[number % VISITS]
        ),
    }
    for name, way in ways.items():
        yield result(f"scoring {CANDIDATES} candidates, given as {name}", milliseconds(way, calls), "ms", 4.0)
    yield result("scores, two threads / one", threads_gain(ways["a context and ids"]), "ratio", 1.6)


def threads_gain(action: Callable[[int], object], seconds: float = 3.0) -> float:
    """Throughput of two threads over that of one, on two cores."""

    def rate(threads: int) -> float:
        done, end = [0] * threads, time.perf_counter() + seconds

        def work(number: int) -> None:
            while time.perf_counter() < end:
                action(done[number])
                done[number] += 1

        workers = [Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(done) / seconds

    return statistics.median(rate(2) / rate(1) for _ in range(3))


def one_event(items: ItemService, names: Sequence[str], numbers: Iterator[int]) -> Callable[[int], object]:
    """Warm up the next of these items, which are cold, by one event."""
    visit, schema = Visit.draw(WORLD, Traffic(candidates=1), 0, PRESENT), items.learner.schema
    event: dict[str, Json] = {**visit.event(0, "", WORLD.first_time).row}

    def warm(_: int) -> None:
        number = next(numbers)
        row = {**event, schema.item: names[number], "event_id": f"e{number}"}
        if items.warm([row]).new != 1:
            raise RuntimeError("an event was not counted")

    return warm


def add_copies(items: ItemService, names: Sequence[str]) -> None:
    """Cold items with the features of one, which this process has read."""
    like = items.states.get(items.model, [sorted(items.headers())[-1]]).popitem()[1]
    for begin in range(0, len(names), PART):
        part = names[begin : begin + PART]
        items.states.add(items.model, [Change(replace(like, item=name), []) for name in part])
        items.refreshed(part)


def events(
    folder: Path, states: str, title: str, target: float, calls: int, sizes: Sequence[int]
) -> Iterator[Measurement]:
    """One event at each number of items; and the last one's cost over the first one's."""
    with ItemService.open(folder, states) as items:
        items.add([WORLD.truth.item_row(item) for item in range(PRESENT)])
        names, numbers, taken = list[str](), count(), list[float]()
        for size in sizes:
            new = [f"copy {number}" for number in range(len(names), size - PRESENT)]
            add_copies(items, new)
            names += new
            taken.append(milliseconds(one_event(items, names, numbers), min(calls, len(names) // 2)))
            goal = target if size == sizes[0] else None
            yield result(f"one event, {title}, {size:,} items known", taken[-1], "ms", goal)
        if len(sizes) > 1:
            yield result(f"one event, {title}, {sizes[-1]:,} / {sizes[0]:,} items", taken[-1] / taken[0], "ratio", 1.2)


class Application:
    """The service's application without a network: what a worker computes for a request."""

    def __init__(self, folder: Path) -> None:
        config = ServeConfig(
            stores=(folder / "shop",), states=f"sqlite:///{folder / 'served.db'}", folder=folder / "own"
        )
        self._app, self._loop = create_app(config), asyncio.new_event_loop()
        self._headers = [(b"content-type", b"application/json")]

    def post(self, path: str, body: bytes) -> bytes:
        """The answer. Raises RuntimeError for any other than success."""
        sent, received = list[Any](), [{"type": "http.request", "body": body}]

        async def receive() -> Any:
            return received.pop() if received else await asyncio.Future()

        async def send(message: Any) -> None:
            sent.append(message)

        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
        }
        scope |= {"query_string": b"", "headers": self._headers, "client": ("127.0.0.1", 1), "scheme": "http"}
        self._loop.run_until_complete(self._app(scope, receive, send))
        if sent[0]["status"] != 200:
            raise RuntimeError(sent[1]["body"].decode())
        found: bytes = sent[1]["body"]
        return found


def served(folder: Path, calls: int) -> Iterator[Measurement]:
    """Scores and events by the application, scores beside those of the library in this process."""
    app = Application(folder)
    app.post("/items", json.dumps({"items": [WORLD.truth.item_row(item) for item in range(PRESENT)]}).encode())
    visits = [Visit.draw(WORLD, Traffic(candidates=CANDIDATES), number, PRESENT) for number in range(VISITS)]
    bodies = [
        json.dumps({**visit.user, "context": visit.context, "candidates": visit.candidates}).encode()
        for visit in visits
    ]
    candidates = [visit.candidates for visit in visits]
    contexts = [{**visit.user, **visit.context} for visit in visits]
    with ItemService.open(folder / "shop", f"sqlite:///{folder / 'served.db'}") as items:
        items.max_age = 0.5
        application, library = list[float](), list[float]()
        for number in range(calls):
            one = number % VISITS
            begin = time.process_time()
            app.post("/score", bodies[one])
            middle = time.process_time()
            score_candidates(items, candidates[one], contexts[one])
            application.append(1e3 * (middle - begin))
            library.append(1e3 * (time.process_time() - middle))
    yield result(f"POST /score of {CANDIDATES} candidates", statistics.median(application[10:]), "ms", 8.0)
    ratio = statistics.median(application[10:]) / statistics.median(library[10:])
    yield result("POST /score / the library in process", ratio, "ratio", 1.5)
    for batch, batches, target in ((500, 6, 1000.0), (20, calls, 1000.0), (1, calls, None)):
        rows = (
            {**visit.event(n, "", WORLD.first_time).row, "event_id": f"{batch}-{visit.number}-{n}"}
            for visit in (
                Visit.draw(WORLD, Traffic(candidates=CANDIDATES), number, PRESENT) for number in count(VISITS)
            )
            for n in range(CANDIDATES)
        )
        sent = [json.dumps({"events": list(islice(rows, batch))}).encode() for _ in range(batches)]
        begin = time.process_time()
        new = sum(json.loads(app.post("/events", part))["new"] for part in sent)
        if new != batch * batches:
            raise RuntimeError(f"{batch * batches} events sent, {new} new")
        rate = new / (time.process_time() - begin)
        yield result(f"POST /events in batches of {batch}, per second of CPU time", rate, "events/s", target)


def measurements(folder: Path, calls: int, sizes: Sequence[int]) -> Iterator[Measurement]:
    WORLD.train(folder / "shop")
    with ItemService.open(folder / "shop", "sqlite://") as items:
        items.max_age = 0.5  # as in the service
        items.add([WORLD.truth.item_row(item) for item in range(PRESENT)])
        yield from scores(items, calls)
    yield from served(folder, calls)
    yield from events(folder / "shop", "sqlite://", "in memory", 2.0, calls, sizes[:1])
    yield from events(folder / "shop", f"sqlite:///{folder / 'items.db'}", "SQLite", 5.0, calls, sizes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=150)
    parser.add_argument("--items", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        emit(measurements(Path(name), args.calls, args.items))
