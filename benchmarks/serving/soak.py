"""Sixteen threads score and classify at once for five minutes, while items are warmed up: is every answer that of one thread?

    python benchmarks/serving/soak.py [--seconds 300] [--threads 16] [--model FOLDER]

A service of a click model and a classifier answers the same requests again and again; each answer must be, to the last digit, the
one that was given before to one thread alone. Events of items that are in no request arrive meanwhile.
"""

import base64
import io
import json
import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from endurance import WORLD, Service, add_items, arguments, events, result
from latency import Connection

from measurement import Measurement, emit
from newcomer import FrozenBackbone
from newcomer.data.datasets.digits import digits
from newcomer.simulation.visits import Traffic, Visit

COMMAND = "python benchmarks/serving/soak.py"
REQUESTS = 32
"""Different requests of each kind."""
CANDIDATES, INPUTS = 100, 4

OTHERS = np.arange(WORLD.old_items, WORLD.old_items + 1000)
"""Items that are warmed up, and not asked about."""


def requests() -> list[tuple[str, bytes]]:
    """Paths and bodies: scores of the world's old items, and pictures of digits to classify."""
    found = []
    for number in range(REQUESTS):
        visit = Visit.draw(WORLD, Traffic(candidates=CANDIDATES), number, WORLD.old_items)
        body = {**visit.user, "context": visit.context, "candidates": visit.candidates, "uncertainty": True}
        found.append(("/score", json.dumps(body).encode()))
    pictures = [_encoded(picture) for picture in digits()[1].select(list(range(REQUESTS * INPUTS))).inputs]
    for begin in range(0, len(pictures), INPUTS):
        body = {"inputs": pictures[begin : begin + INPUTS], "top": 3, "reject": 0.05}
        found.append(("/classify", json.dumps(body).encode()))
    return found


def _encoded(picture: Any) -> str:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def answer(connection: Connection, path: str, body: bytes) -> Any:
    """The answer without its request id, which is a new one each time."""
    found = json.loads(connection.post(path, body))
    found.pop("request_id", None)
    return found


def soak(port: int, threads: int, seconds: float) -> tuple[int, int]:
    """Numbers of answers, and of those that differ from the answers to one thread."""
    asked = requests()
    alone = Connection(port)
    add_items(alone, int(OTHERS[-1]) + 1)
    expected = [answer(alone, *request) for request in asked]
    end = time.monotonic() + seconds
    stopped = threading.Event()

    def ask(seed: int) -> tuple[int, int]:
        chance, connection, answers, wrong = random.Random(seed), Connection(port), 0, 0
        while time.monotonic() < end:
            number = chance.randrange(len(asked))
            wrong += answer(connection, *asked[number]) != expected[number]
            answers += 1
        return answers, wrong

    def warm() -> int:
        connection, sent = Connection(port), 0
        while not stopped.is_set():
            batch = events(sent, OTHERS[(sent + np.arange(20)) % len(OTHERS)])
            sent += json.loads(connection.post("/events", json.dumps({"events": batch}).encode()))["new"]
            stopped.wait(0.2)
        return sent

    with ThreadPoolExecutor(threads + 1) as pool:
        writer = pool.submit(warm)
        answers, wrong = map(sum, zip(*pool.map(ask, range(threads)), strict=True))
        stopped.set()
        print(f"{answers:,} answers, {wrong} others; {writer.result():,} events meanwhile", file=sys.stderr)
    return answers, wrong


def measurements(store: Path, folder: Path, seconds: float, threads: int) -> Iterator[Measurement]:
    FrozenBackbone("micro-vit").learn(digits()[0].select(list(range(100)))).save(folder / "digits")
    words = [str(store), str(folder / "digits"), "--states", f"sqlite:///{folder / 'items.db'}"]
    with Service(*words, "--folder", str(folder / "own"), log=folder / "log") as service:
        answers, wrong = soak(service.port, threads, seconds)
    title = f"{threads} threads score and classify for {seconds:.0f} s"
    yield result(COMMAND, f"{title}, answers", answers, "answers")
    yield result(COMMAND, f"{title}, other answers than to one thread", wrong, "answers", 0.0)


if __name__ == "__main__":
    with arguments(__doc__, seconds=300.0, threads=16) as (args, folder):
        emit(measurements(args.model, folder, args.seconds, args.threads))
