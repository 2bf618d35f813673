"""The process that runs jobs, one after the other, each in a child process.

`newcomer serve` starts it, and again if it ends; it ends with its parent, and its child with it. Of several services on one
folder one has the lock and runs the jobs. A job that was cut off starts again.
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

from filelock import FileLock, Timeout

from newcomer.errors import NewcomerError, SettingError
from newcomer.server.configuration import ServeConfig
from newcomer.server.job_bodies import ENDED, Job, Progress
from newcomer.server.jobs import FOLDER, Jobs
from newcomer.server.learn_job import learn
from newcomer.server.middleware import log_to_stderr
from newcomer.server.models import ModelsFile
from newcomer.server.stores import classifier_folders
from newcomer.server.train_job import make_ready, train
from newcomer.settings import Json
from newcomer.store.states import now
from newcomer.store.writing import take_lock
from newcomer.training.learner import Step

log = logging.getLogger("newcomer.server")

POLL_SECONDS = 0.2
RESTART_SECONDS = 1.0

REPORT_SECONDS = 0.5
"""Least time between two writes of a job's progress."""

ATTEMPTS = 3
"""Starts of a job, after which it has failed: it may be what kills the machine."""

NICE = 10
"""Lower priority of a job's process: scores come first."""


class JobRunner:
    """Runs the jobs of a service's folder."""

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self.jobs = Jobs(config.own_folder / FOLDER)
        self._ended: set[str] = set()

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
                job = self.next()
                if job is None:
                    time.sleep(POLL_SECONDS)
                else:
                    self.run_job(job)

    def next(self) -> Job | None:
        """The oldest job that has not ended; one that is running was cut off."""
        for name in self.jobs.ids():
            if name in self._ended:
                continue
            job = self.jobs.get(name)
            if job is not None and job.status not in ENDED:
                return job
            self._ended.add(name)
        return None

    def run_job(self, job: Job) -> None:
        """Run a job in a child process, and write how that ended."""
        if self.jobs.is_cancelled(job):
            return self._end(job, "cancelled")
        if job.attempts >= ATTEMPTS:
            return self._end(job, "failed", f"was cut off {job.attempts} times; give it more memory, or less data")
        started = {"status": "running", "started": now(), "attempts": job.attempts + 1, "progress": None}
        self.jobs.save(job.model_copy(update=started))
        command = [sys.executable, "-m", "newcomer.server.job_runner", job.id]
        environment = os.environ | self.config.to_environment()
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as child:  # its input ends with us
            while child.poll() is None:
                if self.jobs.is_cancelled(job):
                    child.kill()
                time.sleep(POLL_SECONDS)
        found = self.jobs.get(job.id)
        if found is None or found.status in ENDED:
            return None
        if self.jobs.is_cancelled(job):
            return self._end(found, "cancelled")
        return self._end(found, "failed", f"its process ended with code {child.returncode}")

    def _end(self, job: Job, status: str, detail: str | None = None) -> None:
        self.jobs.end(job.model_copy(update={"status": status, "detail": detail}))


def execute(config: ServeConfig, job_id: str) -> None:
    """Do a job, and write what became of it."""
    jobs = Jobs(config.own_folder / FOLDER)
    with FileLock(jobs.folder / job_id / ".lock"):  # a process that was cut off may still be ending
        job = jobs.get(job_id)
        if job is None or job.status in ENDED:
            return
        report = _Report(jobs, job)
        try:
            result = _do(config, jobs, job, report)
            end = {"status": "done", "result": result}
        except NewcomerError as error:
            end = {"status": "failed", "detail": str(error)}
        except Exception as error:
            log.error("unexpected", exc_info=error, extra={"job": job_id})
            end = {"status": "failed", "detail": "an unexpected error; it is in the service's log under this job"}
        jobs.end(job.model_copy(update=end))
        log.info("job", extra={"job": job_id, "status": end["status"]})


def _do(config: ServeConfig, jobs: Jobs, job: Job, report: "_Report") -> dict[str, Json]:
    if job.kind == "train":
        return train(config, jobs, job, report)
    if job.kind == "replay":
        return make_ready(config, str(job.model), report)
    folder = classifier_folders(config).get(str(job.model))
    if folder is None:
        raise SettingError(f"model '{job.model}' is not served any more")
    ModelsFile(config.own_folder).require_latest(str(job.model))
    return learn(folder, config.backbone, jobs, job, report)


class _Report:
    """Writes a job's progress, not too often."""

    def __init__(self, jobs: Jobs, job: Job) -> None:
        self.jobs, self.job, self._next = jobs, job, 0.0

    def __call__(self, step: Step) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + REPORT_SECONDS
        progress = Progress(part=step.part, step=step.step, steps=step.steps)
        self.jobs.save(self.job.model_copy(update={"progress": progress}))


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


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def main(arguments: list[str]) -> None:
    """Run the job of this id, or, without one, all jobs for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent stops its processes
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log_to_stderr()
    config = ServeConfig.from_environment()
    if not arguments:
        JobRunner(config).run()
    if hasattr(os, "nice"):
        os.nice(NICE)
    execute(config, arguments[0])


if __name__ == "__main__":
    main(sys.argv[1:])
