"""A pool of worker processes that run recipes; their events are yielded in the parent as they happen."""

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
from newcomer.experiments.run import Event, run_recipe


@dataclass(frozen=True)
class Job:
    """A recipe to be run in a folder."""

    recipe: Recipe
    folder: Path
    title: str

    def __hash__(self) -> int:
        return hash(self.folder)  # a recipe is not hashable


@dataclass(frozen=True)
class JobEnd:
    """The end of a job: its wall-clock seconds in this session, and the learner's error, if any."""

    seconds: float
    failure: str | None


class Workers:
    """Runs up to `processes` jobs at a time, within its context.

    One process: jobs run in this one. More are spawned when first needed and share the CPU cores. Leaving the context terminates
    them; a run that is started again continues after its last complete stage.
    """

    def __init__(self, processes: int = 1) -> None:
        self.processes = processes
        self.workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.terminate()
        self.workers.clear()

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Event | JobEnd]]:
        """Run the jobs, started in the given order; yields their events as they happen.

        A LearnerError ends its job with a failure. Raises any other NewcomerError of a job, and NewcomerError if a process was
        killed.
        """
        if self.processes == 1:
            yield from ((job, event) for job in jobs for event in run_job(job))
            return
        waiting = list(jobs)
        while len(self.workers) < min(self.processes, len(jobs)):
            self.workers.append(_Worker(self.processes))
        for worker in self.workers[: len(jobs)]:
            worker.start(waiting.pop(0))
        while busy := {worker.connection: worker for worker in self.workers if worker.job}:
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                job, event = worker.receive()
                yield job, event
                if isinstance(event, JobEnd) and waiting:
                    worker.start(waiting.pop(0))


class _Worker:
    """A spawned process and its current job."""

    def __init__(self, processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, child_connection = context.Pipe()
        threads = max(1, (os.cpu_count() or 1) // processes)
        self.process: BaseProcess = context.Process(target=_work, args=(child_connection, threads), daemon=True)
        with _ignore_sigint():
            self.process.start()
        child_connection.close()
        self.job: Job | None = None

    def start(self, job: Job) -> None:
        self.job = job
        self.connection.send(job)

    def receive(self) -> tuple[Job, Event | JobEnd]:
        assert self.job is not None  # only busy workers are waited for
        job = self.job
        try:
            event = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise NewcomerError(
                f"{job.folder}: its process ended with code {self.process.exitcode}; with too little memory give fewer "
                "--processes; the same command goes on"
            ) from None
        if isinstance(event, NewcomerError):
            raise event
        if isinstance(event, JobEnd):
            self.job = None
        return job, event

    def terminate(self) -> None:
        self.process.terminate()
        self.process.join()
        self.connection.close()


@contextmanager
def _ignore_sigint() -> Iterator[None]:
    """Processes spawned within ignore SIGINT: Ctrl-C reaches the whole group, and the parent terminates its workers."""
    if threading.current_thread() is not threading.main_thread():  # Python sets signal handlers in the main thread only
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(connection: Connection, threads: int) -> None:
    """Main loop of a worker process: run jobs until the connection is closed."""
    torch.set_num_threads(threads)
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        try:
            for event in run_job(job):
                connection.send(event)
        except NewcomerError as error:
            connection.send(error)
        except BrokenPipeError:
            return


def run_job(job: Job) -> Iterator[Event | JobEnd]:
    """The job's events. A LearnerError ends it with a failure; raises any other NewcomerError."""
    start, failure = time.perf_counter(), None
    try:
        yield from run_recipe(job.recipe, job.folder)
    except LearnerError as error:
        failure = str(error)
    yield JobEnd(time.perf_counter() - start, failure)
