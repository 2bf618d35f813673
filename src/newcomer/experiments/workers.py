"""Runs side by side: each in a process of its own that is kept for the next one; what happens is told here as it happens."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Self

import torch

from newcomer.errors import LearnerError, NewcomerError
from newcomer.experiments.recipe import Recipe
from newcomer.experiments.run import Event, perform


@dataclass(frozen=True)
class Job:
    """A recipe to be run in a folder."""

    recipe: Recipe
    folder: Path
    title: str


@dataclass(frozen=True)
class Ended:
    """A job is over: the seconds it took here, and why it failed if the learner could not do it."""

    seconds: float
    failure: str | None


class Workers:
    """Runs jobs so many at a time, while this context lasts.

    With one process they run in this one. More are spawned when they are first needed, and divide the processor's cores among them;
    leaving the context ends them at once: every run goes on after its last complete stage when it is started again.
    """

    def __init__(self, processes: int = 1) -> None:
        self.processes = processes
        self.spawned: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.spawned:
            worker.end()
        self.spawned.clear()

    def perform(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Event | Ended]]:
        """What happens in all jobs as it happens, those begun first that come first.

        A job that ends by a LearnerError is a job that ended. Raises any other error of ours that a job ends by, and NewcomerError
        where its process was killed.
        """
        if self.processes == 1:
            yield from ((job, event) for job in jobs for event in _events(job))
            return
        waiting = list(jobs)
        while len(self.spawned) < min(self.processes, len(jobs)):
            self.spawned.append(_Worker(self.processes))
        for worker in self.spawned[: len(jobs)]:
            worker.begin(waiting.pop(0))
        while busy := {worker.here: worker for worker in self.spawned if worker.job}:
            for here in wait(list(busy)):
                worker = busy[here]  # type: ignore[index]
                job, event = worker.told()
                yield job, event
                if isinstance(event, Ended) and waiting:
                    worker.begin(waiting.pop(0))


class _Worker:
    """One spawned process, and the job it is at."""

    def __init__(self, processes: int) -> None:
        spawned = multiprocessing.get_context("spawn")
        self.here, there = spawned.Pipe()
        threads = max(1, (os.cpu_count() or 1) // processes)
        self.process: BaseProcess = spawned.Process(target=_work, args=(there, threads), daemon=True)
        with _deaf_to_ctrl_c():
            self.process.start()
        there.close()
        self.job: Job | None = None

    def begin(self, job: Job) -> None:
        self.job = job
        self.here.send(job)

    def told(self) -> tuple[Job, Event | Ended]:
        assert self.job is not None  # nobody listens to one that has nothing to do
        job = self.job
        try:
            event = self.here.recv()
        except (EOFError, OSError):
            self.process.join()
            raise NewcomerError(
                f"{job.folder}: its process ended with code {self.process.exitcode}; with too little memory give fewer "
                "--processes; the same command goes on"
            ) from None
        if isinstance(event, NewcomerError):
            raise event
        if isinstance(event, Ended):
            self.job = None
        return job, event

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.here.close()


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """What is spawned meanwhile stays so: Ctrl-C goes to all processes, and the one that began the others ends them."""
    if threading.current_thread() is not threading.main_thread():  # whom Python lets set no signals
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(there: Connection, threads: int) -> None:
    """What a spawned process does: one job after the other until nobody gives it any."""
    torch.set_num_threads(threads)
    while True:
        try:
            job = there.recv()
        except (EOFError, OSError):
            return
        try:
            for event in _events(job):
                there.send(event)
        except NewcomerError as error:
            there.send(error)
        except BrokenPipeError:
            return


def _events(job: Job) -> Iterator[Event | Ended]:
    start, failure = time.perf_counter(), None
    try:
        yield from perform(job.recipe, job.folder)
    except LearnerError as error:
        failure = str(error)
    yield Ended(time.perf_counter() - start, failure)
