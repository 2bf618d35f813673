"""Latency and throughput of the service on one core, beside the library in this process.

    python benchmarks/serving/latency.py

A worker on a core of its own serves the click model of the simulated world. Scores are of 500 candidates for one user. The library
and the service take turns, request by request, so that both see the same noise; then the service is saturated, and then asked at
half of that rate, with latencies from the moments at which requests were due. The database counts events against what was sent.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1]))
from measurement import Better, Measurement, emit
from newcomer.experiments.run import commit, machine
from newcomer.items.serving.candidates import score_candidates
from newcomer.items.serving.service import ItemService
from newcomer.settings import Json
from newcomer.simulation.visits import Traffic, Visit
from newcomer.simulation.world import World
from serving import service

COMMAND = "python benchmarks/serving/latency.py"
CANDIDATES = 500
WORLD = World()
PRESENT = WORLD.old_items + WORLD.new_items
BODIES = 64
"""Different requests."""
CONNECTIONS = 2
"""Connections that saturate one worker: one request is computed while another one is sent."""
REPEATED = 0.1
"""Share of events that are sent twice."""


class Connection:
    """A connection with little overhead of its own."""

    def __init__(self, port: int) -> None:
        self._http = HTTPConnection("127.0.0.1", port, timeout=60)

    @property
    def port(self) -> int:
        """Its port on this side."""
        return int(self._http.sock.getsockname()[1])

    def get(self, path: str) -> Any:
        """As `post`."""
        return self._answer("GET", path, None)

    def post(self, path: str, body: bytes) -> Any:
        """The answer. Raises RuntimeError for any other than success."""
        return self._answer("POST", path, body)

    def _answer(self, method: str, path: str, body: bytes | None) -> Any:
        self._http.request(method, path, body, {"content-type": "application/json"})
        answer = self._http.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(content.decode())
        return content


class Requests:
    """Scores of candidates for users of the world, as bodies and as arguments of the library."""

    def __init__(self) -> None:
        traffic = Traffic(candidates=CANDIDATES)
        self.visits = [Visit.draw(WORLD, traffic, number, PRESENT) for number in range(BODIES)]
        self.bodies = [
            json.dumps({**visit.user, "context": visit.context, "candidates": visit.candidates}).encode()
            for visit in self.visits
        ]

    def score_in_process(self, items: ItemService, number: int) -> None:
        visit = self.visits[number % BODIES]
        score_candidates(items, visit.candidates, {**visit.user, **visit.context})


def side_by_side(requests: Requests, items: ItemService, port: int, calls: int) -> tuple[list[float], list[float]]:
    """Seconds of each call in this process, and over HTTP, by turns."""
    connection = Connection(port)
    own, served = list[float](), list[float]()
    for number in range(calls + 20):
        begin = time.perf_counter()
        requests.score_in_process(items, number)
        middle = time.perf_counter()
        connection.post("/score", requests.bodies[number % BODIES])
        own.append(middle - begin)
        served.append(time.perf_counter() - middle)
    return own[20:], served[20:]


def saturated(requests: Requests, port: int, seconds: float) -> tuple[float, list[float]]:
    """Answers per second, and seconds of each, when `CONNECTIONS` ask without a pause."""
    end = time.perf_counter() + seconds

    def ask(first: int) -> list[float]:
        connection, taken = Connection(port), list[float]()
        while (begin := time.perf_counter()) < end:
            connection.post("/score", requests.bodies[(first + len(taken)) % BODIES])
            taken.append(time.perf_counter() - begin)
        return taken

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        taken = [one for part in pool.map(ask, range(CONNECTIONS)) for one in part]
    return len(taken) / seconds, taken


def at_rate(requests: Requests, port: int, rate: float, seconds: float) -> list[float]:
    """Seconds from the moment at which each request was due, at regular intervals, to its answer."""
    local = threading.local()
    begin = time.perf_counter()

    def ask(number: int) -> float:
        if not hasattr(local, "connection"):
            local.connection = Connection(port)
        due = begin + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        local.connection.post("/score", requests.bodies[number % BODIES])
        return time.perf_counter() - due

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(ask, range(int(rate * seconds))))


def events(count: int, batch: int, first: int) -> list[list[dict[str, Json]]]:
    """Batches of events with ids, of all items by turns; the first `REPEATED` of them once more at the end."""
    rows: list[dict[str, Json]] = []
    visits = [Visit.draw(WORLD, Traffic(candidates=PRESENT), first + n, PRESENT) for n in range(-(-count // PRESENT))]
    for visit in visits:
        for n in range(len(visit.items)):
            rows.append({**visit.event(n, "", WORLD.first_time).row, "event_id": f"{first}-{len(rows)}"})
    rows = rows[:count]
    rows += rows[: int(REPEATED * count)]
    return [rows[begin : begin + batch] for begin in range(0, len(rows), batch)]


def counted_events(items: ItemService, port: int, count: int, batch: int, first: int) -> float:
    """Events per second in batches of this size. Raises RuntimeError if one was lost or counted twice."""
    batches = events(count, batch, first)
    before = sum(header.events for header in items.headers().values())
    bodies = [json.dumps({"events": rows}).encode() for rows in batches]
    connection = Connection(port)
    begin = time.perf_counter()
    answers = [json.loads(connection.post("/events", body)) for body in bodies]
    taken = time.perf_counter() - begin
    new, known = (sum(answer[name] for answer in answers) for name in ("new", "known"))
    stored = sum(header.events for header in items.headers().values()) - before
    if (new, known, stored) != (count, int(REPEATED * count), count):
        raise RuntimeError(f"{count} events sent, {new} new, {known} known, {stored} stored")
    return sum(map(len, batches)) / taken


def visible_delay(requests: Requests, port: int, times: int) -> list[float]:
    """Seconds from the acknowledgement of a click to the first score that has it."""
    connection, found = Connection(port), list[float]()
    for number in range(times):
        visit = requests.visits[number % BODIES]
        body = json.dumps({**visit.user, "context": visit.context, "candidates": visit.candidates[:1]}).encode()
        before = json.loads(connection.post("/score", body))["scores"][0]["events"]
        event = {**visit.event(0, "", WORLD.first_time).row, "event_id": f"visible-{number}"}
        connection.post("/events", json.dumps({"events": [event]}).encode())
        begin = time.perf_counter()
        while json.loads(connection.post("/score", body))["scores"][0]["events"] == before:
            pass
        found.append(time.perf_counter() - begin)
    return found


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Within, threads and processes that are started stay on this core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def result(name: str, value: float, unit: str, target: float | None = None) -> Measurement:
    better: Better = "higher" if unit.endswith("/s") else "lower"
    return Measurement(name, round(value, 3), unit, COMMAND, [0], machine(), commit(), target, better=better)


def latencies(name: str, seconds: Sequence[float], targets: Mapping[int, float]) -> list[Measurement]:
    return [
        result(f"{name}, p{share}", float(np.percentile(seconds, share)) * 1e3, "ms", targets.get(share))
        for share in (50, 99)
    ]


def measurements(folder: Path, calls: int, seconds: float, count: int) -> Iterator[Measurement]:
    WORLD.train(folder / "shop")
    first, second = sorted(os.sched_getaffinity(0))[:2]
    states = f"sqlite:///{folder / 'items.db'}"
    words = [str(folder / "shop"), "--states", states, "--folder", str(folder / "own")]
    with ItemService.open(folder / "shop", states) as items, contextlib.ExitStack() as stack:
        items.max_age = 0.5  # as in the service
        items.add([WORLD.truth.item_row(item) for item in range(PRESENT)])
        with on_core(second):
            client, _ = stack.enter_context(service(*words, log=folder / "log"))
        stack.enter_context(on_core(first))
        port, requests = int(client.base_url.port or 0), Requests()
        own, served = side_by_side(requests, items, port, calls)
        yield from latencies(f"scoring {CANDIDATES} candidates in process", own, {})
        yield from latencies(f"scoring {CANDIDATES} candidates over HTTP", served, {})
        yield result("HTTP / in process, ratio of medians", float(np.median(served) / np.median(own)), "ratio", 1.5)
        rate, taken = saturated(requests, port, seconds)
        yield result("scoring, saturated", rate, "requests/s")
        yield from latencies("scoring, saturated", taken, {})
        yield from latencies("scoring at half load", at_rate(requests, port, rate / 2, seconds), {50: 8.0, 99: 25.0})
        stages = [
            ("in batches of 500", count, 500, 1000.0),
            ("in batches of 20", count // 5, 20, None),
            ("one by one", count // 50, 1, None),
        ]
        for number, (name, many, batch, target) in enumerate(stages, 1):
            rate = counted_events(items, port, many, batch, 1_000_000 * number)
            yield result(f"events {name}", rate, "events/s", target)
        yield from latencies("until a score has an acknowledged click", visible_delay(requests, port, 50), {})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300, help="calls side by side")
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of each load")
    parser.add_argument("--events", type=int, default=10_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        emit(measurements(Path(name), args.calls, args.seconds, args.events))
