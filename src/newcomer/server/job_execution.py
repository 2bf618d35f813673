"""One job, done in this process: what it does, and what is written about it."""

import logging
import os
import sys
import time
from typing import Any

from newcomer.errors import NewcomerError, SettingError, data_warnings_to
from newcomer.printable import printable
from newcomer.server.configuration import ServeConfig
from newcomer.server.job_bodies import ENDED, Job, Progress
from newcomer.server.job_runner import become_child
from newcomer.server.jobs import FOLDER, Jobs
from newcomer.server.learn_job import has_learned, learn
from newcomer.server.models import ModelsFile
from newcomer.server.stores import classifier_folders
from newcomer.server.train_job import make_ready, make_version
from newcomer.settings import Json
from newcomer.training.learner import Step

log = logging.getLogger("newcomer.server")

REPORT_SECONDS = 0.5
"""Least time between two writes of a job's progress."""

WARNINGS, WARNING_LENGTH = 20, 500
"""Warnings that a job keeps, and characters of each; the log has all of them whole."""

NICE = 10
"""Lower priority of a job's process: scores come first."""


def execute(config: ServeConfig, job_id: str) -> None:
    """Do a job, and write what became of it."""
    jobs = Jobs(config.own_folder / FOLDER)
    with jobs.lock(job_id):
        job = jobs.get(job_id)
        if job is None or job.status in ENDED:
            return
        report = _Report(jobs, job)
        try:
            if jobs.is_cancelled(job) and not _is_done(config, job):
                end: dict[str, Json] = {"status": "cancelled"}
            else:
                with data_warnings_to(report.warn):
                    end = {"status": "done", "result": _do(config, jobs, job, report)}
        except NewcomerError as error:
            end = {"status": "failed", "detail": str(error)}
        except Exception as error:
            log.error("unexpected", exc_info=error, extra={"job": job_id})
            end = {"status": "failed", "detail": "an unexpected error; it is in the service's log under this job"}
        if end["status"] != "done":
            ModelsFile(config.own_folder).abandon(job.id, job.model)
        jobs.end(report.job.model_copy(update=end))
        log.info("job", extra={"job": job_id, "status": end["status"]})


def _do(config: ServeConfig, jobs: Jobs, job: Job, report: "_Report") -> dict[str, Json]:
    if job.kind in ("train", "calibrate"):
        return make_version(config, jobs, job, report)
    if job.kind == "replay":
        return make_ready(config, str(job.model), report)
    folder = classifier_folders(config).get(str(job.model))
    if folder is None:
        raise SettingError(f"model '{job.model}' is not served any more")
    ModelsFile(config.own_folder).require_latest(str(job.model))
    return learn(folder, config.backbone, jobs, job, report)


def _is_done(config: ServeConfig, job: Job) -> bool:
    """Whether a job that was cut off had its effect already: there is no way back then."""
    if job.kind == "learn":
        folder = classifier_folders(config).get(str(job.model))
        return folder is not None and has_learned(folder, job)
    return ModelsFile(config.own_folder).has_ready(job.id, job.model)


class _Report:
    """Writes a job's progress, every part and its steps not too often, and its warnings."""

    def __init__(self, jobs: Jobs, job: Job) -> None:
        self.jobs, self.job, self._next, self._part = jobs, job, 0.0, ""

    def __call__(self, step: Step) -> None:
        if step.part == self._part and time.monotonic() < self._next:
            return
        self._next, self._part = time.monotonic() + REPORT_SECONDS, step.part
        self._save(progress=Progress(part=step.part, step=step.step, steps=step.steps))

    def warn(self, message: str) -> None:
        """Log a warning, and keep it with the job: each once, those of an earlier start too."""
        log.warning("%s", message, extra={"job": self.job.id})
        text, kept = printable(message), self.job.warnings
        text = text if len(text) <= WARNING_LENGTH else text[: WARNING_LENGTH - 1] + "…"
        if text not in kept and len(kept) <= WARNINGS:
            more = "there are more; they are in the service's log under this job"
            self._save(warnings=[*kept, text if len(kept) < WARNINGS else more])

    def _save(self, **changes: Any) -> None:
        self.job = self.job.model_copy(update=changes)
        self.jobs.save(self.job)


if __name__ == "__main__":
    become_child()
    if hasattr(os, "nice"):
        os.nice(NICE)
    execute(ServeConfig.from_environment(), sys.argv[1])
