"""The process that runs jobs, one after the other, each in a child process.

`newcomer serve` starts it, and again if it ends; it ends with its parent, and its child with it. Of several services on one
folder one has the lock and runs the jobs. A job that was cut off starts again. What jobs do is in `job_execution`, so that this
process stays small.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from filelock import Timeout

from newcomer.errors import StoreError
from newcomer.server.configuration import ServeConfig
from newcomer.server.job_bodies import ENDED, VERSION_JOBS, CalibrateBody, Job, Progress, Status
from newcomer.server.jobs import FOLDER, Jobs
from newcomer.server.logs import log_to_stderr
from newcomer.server.models import ModelsFile
from newcomer.store.states import now
from newcomer.store.writing import take_lock

log = logging.getLogger("newcomer.server")

POLL_SECONDS = 0.2
RESTART_SECONDS = 1.0

LOOK_SECONDS = 60.0
"""Most time between two looks whether a calibration is due."""

ATTEMPTS = 3
"""Starts of a job, after which it has failed: it may be what kills the machine."""


class JobRunner:
    """Runs the jobs of a service's folder."""

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self.jobs = Jobs(config.own_folder / FOLDER)
        self._ended: set[str] = set()
        self._next_look = 0.0
        """When to see again whether a calibration is due, by the monotonic clock."""

    def run(self) -> None:
        """Run jobs for ever, when no other process does."""
        self.jobs.folder.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                lock = take_lock(self.jobs.folder / ".lock")
                break
            except Timeout:
                time.sleep(RESTART_SECONDS)
        with lock:
            while True:
                self.schedule()
                job = self.next()
                if job is None:
                    time.sleep(POLL_SECONDS)
                else:
                    self.run_job(job)

    def schedule(self) -> None:
        """Queue the job `calibrate` if the last one, or the start of the live version, is `calibrate_every` seconds ago.

        Not while a job of the click model waits or runs. What cannot be read or written is logged: other jobs go on.
        """
        every = self.config.calibrate_every
        if every is None or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + min(every / 10, LOOK_SECONDS)
        try:
            click_model = ModelsFile(self.config.own_folder).read().click_model
            jobs = [job for job in self.jobs.all() if job.kind in VERSION_JOBS]
            if click_model is None or any(job.status not in ENDED for job in jobs):
                return
            earlier = (job.created for job in jobs if job.kind == "calibrate")
            last = max([click_model.versions[click_model.live].created, *earlier])
            if (datetime.now(UTC) - datetime.fromisoformat(last)).total_seconds() >= every:
                self.jobs.create("calibrate", None, CalibrateBody(kind="calibrate").model_dump())
        except StoreError as error:
            log.error("%s; the calibration is fitted anew later", error)

    def next(self) -> Job | None:
        """The oldest job that has not ended; one that is running was cut off."""
        for name in self.jobs.ids():
            if name in self._ended:
                continue
            job = next(self.jobs.readable([name]), None)
            if job is not None and job.status not in ENDED:
                return job
            self._ended.add(name)
        return None

    def end_cancelled(self) -> None:
        """End the jobs that were cancelled before they were started."""
        for job in self.jobs.readable(name for name in self.jobs.ids() if name not in self._ended):
            if job.status == "queued" and self.jobs.is_cancelled(job):
                self.jobs.end(job.model_copy(update={"status": "cancelled"}))
            if job.status in ENDED:
                self._ended.add(job.id)

    def run_job(self, job: Job) -> None:
        """Run a job in a child process, and write how that ended."""
        if not job.attempts and self.jobs.is_cancelled(job):
            return self.jobs.end(job.model_copy(update={"status": "cancelled"}))
        if job.attempts >= ATTEMPTS:
            return self._end(job, "failed", f"was cut off {job.attempts} times; give it more memory, or less data")
        start = Progress(part="start", step=0, steps=1)
        started = {"status": "running", "started": now(), "attempts": job.attempts + 1, "progress": start}
        self.jobs.save(job.model_copy(update=started))
        while True:
            settles = self.jobs.is_cancelled(job)  # a child that was killed may have been done
            if settles and self._left_nothing(job):
                return self._end(job, "cancelled")
            code = self._run_child(job, may_kill=not settles)
            if settles or not self.jobs.is_cancelled(job):
                break
        found = self.jobs.get(job.id)
        if found is not None and found.status not in ENDED:
            self._end(found, "failed", f"its process ended with code {code}")
        return None

    def _left_nothing(self, job: Job) -> bool:
        """Whether it is known here that a job had no effect; of a classifier's store another child finds out."""
        if job.kind == "learn":
            return False
        with self.jobs.lock(job.id):
            return not ModelsFile(self.config.own_folder).has_ready(job.id, job.model)

    def _run_child(self, job: Job, may_kill: bool) -> int | None:
        command = [sys.executable, "-m", "newcomer.server.job_execution", job.id]
        environment = os.environ | self.config.to_environment()
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as child:  # its input ends with us
            while child.poll() is None:
                if may_kill and self.jobs.is_cancelled(job):
                    child.kill()
                self.end_cancelled()
                time.sleep(POLL_SECONDS)
        return child.returncode

    def _end(self, job: Job, status: Status, detail: str | None = None) -> None:
        ModelsFile(self.config.own_folder).abandon(job.id, job.model)
        self.jobs.end(job.model_copy(update={"status": status, "detail": detail}))


@contextmanager
def runner_process(config: ServeConfig) -> Iterator[None]:
    """Keep a process running that runs the jobs."""
    stopped = threading.Event()
    thread = threading.Thread(target=_keep_running, args=(config, stopped))
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _keep_running(config: ServeConfig, stopped: threading.Event) -> None:
    command = [sys.executable, "-m", "newcomer.server.job_runner"]
    environment = os.environ | config.to_environment()
    while not stopped.is_set():
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as process:  # its input ends with us
            while process.poll() is None:
                if stopped.wait(POLL_SECONDS):
                    process.kill()
        stopped.wait(RESTART_SECONDS)


def become_child() -> None:
    """End when the parent ends, which holds the other end of the standard input; log to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent stops its processes
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log_to_stderr()


def _end_with_parent() -> None:
    while os.read(0, 1024):  # a reader with a buffer would hold its lock when the interpreter ends
        pass
    os._exit(1)


if __name__ == "__main__":
    become_child()
    JobRunner(ServeConfig.from_environment()).run()
