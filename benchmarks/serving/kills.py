"""Workers, the service and its database are killed at random moments under load: what is lost, and how long until it answers?

    python benchmarks/serving/kills.py [--rounds 10] [--done FILE] [--model FOLDER]

Two workers serve simulated traffic, whose client sends again what failed. The benchmark starts again what it killed as a whole, as
systemd does: the service, PostgreSQL, and Valkey, which writes each change to its log on the disk (`appendfsync always`). A worker
is replaced by the service, and PostgreSQL recovers by itself when one of its processes is killed. Recovery is from the kill until a
score and then an event on it have succeeded. After each round of 20 kills, on a new database, states and numbers of events are
compared with a replay of the sent log. Rounds that are in the file of `--done` are not run again.
"""

import io
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
from database_servers import DATABASES, Database
from endurance import TOLERANCE, WORLD, Load, Service, arguments, compare, result

from measurement import Measurement, emit
from newcomer.client import Client, ServiceError
from newcomer.items.serving.service import ItemService
from newcomer.simulation.sent_log import SentLog, replay
from newcomer.simulation.visits import Traffic, Visit

COMMAND = "python benchmarks/serving/kills.py"
TRAFFIC = Traffic(candidates=20, exploration=1.0, new_item_every=1)
"""Random items are shown: an item's events then stay below the number from which their order matters a little."""
RATE = 20.0
"""Visits a second, of five events each."""
ROUNDS: Mapping[str, tuple[int, Mapping[str, int]]] = {
    "SQLite": (3, {"worker": 13, "service": 7}),
    "PostgreSQL": (4, {"worker": 5, "service": 1, "database": 7, "database process": 7}),
    "Valkey": (3, {"worker": 8, "service": 2, "database": 10}),
}
"""Rounds with each database, and how often what is killed in each."""
WORKERS = 2
LONGEST_PAUSE = 2.0
"""Seconds between two kills, at most, when all workers answer again."""


class Probe:
    """One score and one event on it, tried until both succeed."""

    def __init__(self, client: Client, log: SentLog) -> None:
        self.client, self.log, self._number = client, log, 0

    def wait(self) -> float:
        """The moment at which both had succeeded."""
        visit, request = Visit.draw(WORLD, TRAFFIC, 10**9 + self._number, WORLD.old_items), None
        self._number += 1
        while True:
            try:
                request = request or self.client.score(visit.user, visit.context, visit.candidates).request_id
                event = visit.event(0, request, WORLD.first_time)
                answer = self.client.warm([event.to_send()])
            except ServiceError:
                time.sleep(0.02)
                continue
            end = time.monotonic()
            if answer.new + answer.known != 1:
                raise RuntimeError(f"an event of a probe: {answer}")
            self.log.events([event], answer)
            return end


def killed(database: Database, service: Service, probe: Probe, kinds: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Kinds of kills, and seconds until each had recovered."""
    for number, kind in enumerate(kinds, 1):
        workers = list(service.each_worker(WORKERS))
        time.sleep(random.uniform(0, LONGEST_PAUSE))
        begin = time.monotonic()
        if kind == "worker":
            psutil.Process(random.choice(workers)).kill()
        elif kind == "service":
            service.kill()
        else:
            database.kill(kind)
        taken = probe.wait() - begin
        print(f"{number} of {len(kinds)}, {kind}: {taken:.2f} s", file=sys.stderr, flush=True)
        yield kind, taken


@dataclass(frozen=True)
class Round:
    """Seconds of recovery by what was killed, and what became of the events."""

    database: str
    number: int
    seconds: Mapping[str, Sequence[float]]
    events: int
    lost: int
    twice: int
    difference: float


def run(name: str, number: int, store: Path, folder: Path) -> Round:
    """One round with this database."""
    taken, probed = defaultdict[str, list[float]](list), io.StringIO()
    kinds = [kind for kind, count in ROUNDS[name][1].items() for _ in range(count)]
    random.shuffle(kinds)
    folder.mkdir()
    with DATABASES[name](folder) as database:
        words = [str(store), "--states", database.url, "--folder", str(folder / "own"), "--workers", str(WORKERS)]
        with (
            Service(*words, log=folder / "log") as service,
            Client(service.url, retries=7) as client,
            Client(service.url, retries=0) as asking,
            Load(client, TRAFFIC, RATE) as load,
        ):
            for kind, seconds in killed(database, service, Probe(asking, SentLog(probed)), kinds):
                taken[kind].append(seconds)
        summary = load.summary
        if summary.pending or summary.refused or summary.corrected:
            raise RuntimeError(f"{name}: {summary.info()['events']}, {summary.errors}")
        offline = f"sqlite:///{folder / 'replayed.db'}"
        with ItemService.open(store, database.url) as served, ItemService.open(store, offline) as replayed:
            before = replayed.headers()
            replay([*load.lines(), *probed.getvalue().splitlines()], replayed)
            counted = compare(served, replayed, before)
    print(f"{name}, round {number}: {counted}", file=sys.stderr, flush=True)
    return Round(name, number, dict(taken), **asdict(counted))


def rounds(store: Path, folder: Path, most: int, done: Path) -> Iterator[Round]:
    """The first rounds of every database, those that are done and those that are not."""
    found = [Round(**json.loads(line)) for line in done.read_text().splitlines()] if done.exists() else []
    wanted = [(name, number) for name, (count, _) in ROUNDS.items() for number in range(count)]
    for name, number in sorted(wanted, key=lambda one: one[1])[:most]:
        one = next((one for one in found if (one.database, one.number) == (name, number)), None)
        if one is None:
            one = run(name, number, store, folder / f"{name}-{number}")
            with done.open("a") as stream:
                stream.write(json.dumps(asdict(one)) + "\n")
        yield one


def measurements(found: Sequence[Round]) -> Iterator[Measurement]:
    every = list[float]()
    for name in ROUNDS:
        own, taken = [one for one in found if one.database == name], defaultdict[str, list[float]](list)
        for kind, seconds in [pair for one in own for pair in one.seconds.items()]:
            taken[kind] += seconds
        if not own:
            continue
        title = f"{sum(map(len, taken.values()))} kills on {name}"
        yield result(COMMAND, f"{title}, events", sum(one.events for one in own), "events")
        yield result(COMMAND, f"{title}, events lost", sum(one.lost for one in own), "events", 0.0)
        yield result(COMMAND, f"{title}, events counted twice", sum(one.twice for one in own), "events", 0.0)
        difference = max(one.difference for one in own)
        yield result(COMMAND, f"{title}, state against a replay", difference, "absolute", TOLERANCE)
        for kind, seconds in taken.items():
            for share, target in ((50, None), (99, 5.0)):
                figure = float(np.percentile(seconds, share))
                yield result(COMMAND, f"recovery from a killed {kind}, {name}, p{share}", figure, "s", target)
            every += seconds
    yield result(COMMAND, f"recovery from {len(every)} kills, p99", float(np.percentile(every, 99)), "s", 5.0)


if __name__ == "__main__":
    random.seed(WORLD.seed)
    with arguments(__doc__, rounds=sum(count for count, _ in ROUNDS.values()), done="") as (args, folder):
        done = Path(args.done or folder / "done.jsonl")
        emit(measurements([*rounds(args.model, folder, args.rounds, done)]))
