"""What benchmarks of endurance share: a service that comes back when it is killed, its load, and the count of its events."""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import psutil
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1]))
from latency import Connection

from measurement import Better, Measurement
from newcomer.client import Client, ServiceError
from newcomer.data.datasets.simulated_clicks import CONTEXT_FIELDS, SCHEMA, item_id, value_name
from newcomer.experiments.run import commit, machine
from newcomer.items.serving.service import ItemService
from newcomer.settings import Json
from newcomer.simulation.run import Simulation
from newcomer.simulation.sent_log import SentLog
from newcomer.simulation.visits import Traffic
from newcomer.simulation.world import World
from newcomer.store.folder import Store
from newcomer.store.states import ItemHeader
from serving import free_port, wait_until_ready

WORLD = World(new_items=9700)
PRESENT = WORLD.old_items + WORLD.new_items

TOLERANCE = 1e-5
"""Absolute difference of states that are equal: sums over events in another order, in float32."""


def result(
    command: str, name: str, value: float, unit: str, target: float | None = None, **of_machine: float
) -> Measurement:
    """A measurement, with the load of the machine in the last quarter of an hour: others may use it too."""
    info = {**machine(), "load": round(os.getloadavg()[2], 1), **of_machine}
    better: Better = "higher" if unit.endswith("/s") else "lower"
    return Measurement(name, float(f"{value:.4g}"), unit, command, [WORLD.seed], info, commit(), target, better=better)


def add_items(connection: Connection, present: int = PRESENT) -> None:
    """Register the first items of the world."""
    rows = [WORLD.truth.item_row(item) for item in range(present)]
    for begin in range(0, present, 1000):
        connection.post("/items", json.dumps({"items": rows[begin : begin + 1000]}).encode())


def events(first: int, item: NDArray[np.int64], world: World = WORLD) -> list[dict[str, Json]]:
    """Events of these items of a world, numbered from `first`: a function of both."""
    chance, count = np.random.default_rng((world.seed, first)), len(item)
    user, context = chance.integers(world.users, size=count), chance.integers(4, size=(len(CONTEXT_FIELDS), count))
    click = chance.random(count) < world.truth.probability(item, user, context)
    return [
        {
            SCHEMA.item: item_id(item[n]),
            **world.truth.user_row(user[n]),
            **{field: value_name(field, context[k, n]) for k, field in enumerate(CONTEXT_FIELDS)},
            SCHEMA.label: int(click[n]),
            SCHEMA.time: world.first_time + first + n,
            "event_id": f"e{first + n}",
        }
        for n in range(count)
    ]


@contextmanager
def arguments(description: str | None, **defaults: int | float | str) -> Iterator[tuple[Any, Path]]:
    """Options of these names, and `model`, the folder of the click model of `WORLD`; and a temporary folder."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--model", type=Path, help="folder of the click model, which is trained if it is not there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        args.model = args.model or Path(name) / "shop"
        if not Store(args.model).exists():
            WORLD.train(args.model)
        yield args, Path(name)


class Service:
    """`newcomer serve` with these words, on one port, started again at once whenever it ends: as systemd would do.

    A context manager; `log` gets what it says. Its processes are one group, which is killed as a whole.
    """

    def __init__(self, *words: str, log: Path) -> None:
        self.log, self.port, self.starts = log, free_port(), 0
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", "newcomer", "serve", *words, "--port", str(self.port)]
        self._stopped, self._thread = threading.Event(), threading.Thread(target=self._supervise)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its byte code
        with self.log.open("ab") as stream:
            return subprocess.Popen(
                self._command, stdout=stream, stderr=stream, env=environment, start_new_session=True
            )

    def _supervise(self) -> None:
        while True:
            self.process.wait()
            if self._stopped.is_set():
                return
            self.process = self._start()

    def workers(self) -> list[int]:
        """The processes that answer, or start to."""
        with suppress(psutil.Error):
            for process in psutil.Process(self.process.pid).children():
                if "forkserver" in " ".join(process.cmdline()):
                    return [worker.pid for worker in process.children()]
        return [self.process.pid]

    def each_worker(self, count: int) -> dict[int, Connection]:
        """A connection to each of so many workers, when all of them answer."""
        while True:
            found = dict[int, Connection]()
            with suppress(OSError, HTTPException, RuntimeError, psutil.Error):
                for _ in range(20 * count):
                    connection = Connection(self.port)
                    connection.get("/readyz")
                    found[self._owner(connection)] = connection
                    if len(found) == count:
                        return found
            time.sleep(0.1)

    def _owner(self, connection: Connection) -> int:
        """The worker that answers on this connection. Raises RuntimeError if it is gone."""
        for worker in self.workers():
            for other in psutil.Process(worker).net_connections("tcp4"):
                if other.raddr and other.raddr.port == connection.port:
                    return worker
        raise RuntimeError("its worker is gone")

    def kill(self) -> None:
        """Kill all its processes at once."""
        os.killpg(self.process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        self._thread.start()
        with httpx.Client(base_url=self.url, timeout=60) as client:
            wait_until_ready(client)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
        self._thread.join()


class Load:
    """Simulated traffic, `rate` visits a second, in a thread; at the end all events are sent. A context manager."""

    def __init__(self, client: Client, traffic: Traffic, rate: float) -> None:
        self.rate, self._stream = rate, io.StringIO()
        self._simulation = Simulation(client, WORLD, traffic, SentLog(self._stream))
        self.summary = self._simulation.summary
        self._stopped, self._thread = threading.Event(), threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stopped.is_set():
            with suppress(ServiceError):  # is down for longer than a simulation waits
                for _ in self._simulation.run(rate=self.rate, threads=4, interval=0.5):
                    if self._stopped.is_set():
                        break

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        list(self._simulation.run(visits=0))

    def lines(self) -> list[str]:
        """The log of what was sent and answered."""
        return self._stream.getvalue().splitlines()


def memory(process: int) -> float:
    """Resident memory of a process in MiB."""
    return float(psutil.Process(process).memory_info().rss) / 2**20


def cpu_seconds(process: int) -> float:
    """CPU time of a process so far."""
    times = psutil.Process(process).cpu_times()
    return float(times.user + times.system)


def states(service: ItemService, part: int = 1000) -> Iterator[tuple[str, torch.Tensor]]:
    """The state of every item as one vector."""
    names = sorted(service.headers())
    for begin in range(0, len(names), part):
        known = service.refreshed(names[begin : begin + part])
        for name in names[begin : begin + part]:
            values = (value[known.numbers[name]].flatten() for _, value in sorted(known.state.items()))
            yield name, torch.cat([*values])


@dataclass(frozen=True)
class Counted:
    """What became of events, against a replay of those that were sent."""

    events: int
    """Sent and acknowledged, each counted once."""
    lost: int
    twice: int
    """Events of items in the service beyond those of the replay."""
    difference: float
    """Largest absolute difference of a value of two states."""

    def __str__(self) -> str:
        return f"{self.events:,} events, {self.lost} lost, {self.twice} twice, states within {self.difference:.1e}"


def compare(served: ItemService, replayed: ItemService, before: Mapping[str, ItemHeader]) -> Counted:
    """The items of a service beside those of a replay; `before`: as they were before anything was sent."""
    one, other = ({name: header.events for name, header in of.headers().items()} for of in (served, replayed))
    if one.keys() != other.keys():
        raise RuntimeError(f"{len(one)} items in the service, {len(other)} in the replay")
    gaps = [one[name] - other[name] for name in one]
    differences = [
        float((state - again).abs().max())
        for (_, state), (_, again) in zip(states(served), states(replayed), strict=True)
    ]
    return Counted(
        sum(other.values()) - sum(header.events for header in before.values()),
        -sum(gap for gap in gaps if gap < 0),
        sum(gap for gap in gaps if gap > 0),
        max(differences),
    )
