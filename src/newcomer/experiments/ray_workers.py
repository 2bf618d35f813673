"""Runs of a comparison as tasks of a Ray cluster; their events are yielded here as they happen."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch

from newcomer.errors import NewcomerError
from newcomer.experiments.run import Event
from newcomer.experiments.workers import Job, JobEnd, run_job
from newcomer.extras import optional_imports

EVERY = 0.5
"""Seconds between two messages of a task."""


class RayWorkers:
    """`Workers` whose jobs are tasks of one core each, in the cluster of `RAY_ADDRESS`, or in one on this machine.

    All machines must see the jobs' folders and the data under the same paths.
    """

    def __enter__(self) -> Self:
        with optional_imports():
            import ray

        self.ray, self.running = ray, dict[Any, Job]()
        self.is_own = not ray.is_initialized()
        if self.is_own:
            try:
                ray.init(log_to_driver=False, configure_logging=False, include_dashboard=False)
            except Exception as error:  # Ray raises no narrower one
                raise NewcomerError(
                    f"Ray cannot be started or reached ({_first_line(error)}); see RAY_ADDRESS, or give a number of "
                    "--processes"
                ) from None
        return self

    def __exit__(self, *_: object) -> None:
        for events in self.running:
            self.ray.cancel(events, force=True)
        self.running.clear()
        if self.is_own:
            self.ray.shutdown()

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Event | JobEnd]]:
        """As `Workers.run`."""
        task = self.ray.remote(num_cpus=1, max_retries=0)(_events)
        data = os.environ.get("NEWCOMER_DATA")
        for job in jobs:
            there = replace(job, folder=job.folder.absolute())
            self.running[task.options(name=job.title).remote(there, Path.cwd(), data)] = job
        while self.running:
            ready, _ = self.ray.wait(list(self.running), fetch_local=False)
            for events in ready:
                job = self.running[events]
                for event in self._received(events, job):
                    if isinstance(event, NewcomerError):
                        raise event
                    yield job, event

    def _received(self, events: Any, job: Job) -> "list[Event | JobEnd | NewcomerError]":
        """The next events of a task; none at its end."""
        try:
            found: list[Event | JobEnd | NewcomerError] = self.ray.get(next(events))
        except StopIteration:
            del self.running[events]
            return []
        except self.ray.exceptions.RayError as error:
            raise NewcomerError(
                f"{job.folder}: its Ray task ended ({_first_line(error)}); the same command goes on"
            ) from None
        return found


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _events(job: Job, folder: Path, data: str | None) -> "Iterator[list[Event | JobEnd | NewcomerError]]":
    """The task: a job's events, those of half a second in one message."""
    os.chdir(folder)
    torch.set_num_threads(1)
    if data is not None:
        os.environ["NEWCOMER_DATA"] = data
    collected, sent = list[Event | JobEnd | NewcomerError](), time.monotonic()
    try:
        for event in run_job(job):
            collected.append(event)
            if time.monotonic() - sent >= EVERY:
                yield collected
                collected, sent = [], time.monotonic()
    except NewcomerError as error:
        collected.append(error)
    yield collected
