"""Jobs on disk: a folder each, with its state, its request, and its inputs as numbered files."""

import json
import logging
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from filelock import FileLock

from newcomer.errors import StoreError
from newcomer.server.job_bodies import ENDED, Job
from newcomer.settings import Json
from newcomer.store.states import now
from newcomer.store.writing import to_json, write_whole

log = logging.getLogger("newcomer.server")

FOLDER = "jobs"
"""Folder of jobs among the service's own files."""

JOB, REQUEST, INPUTS, WORK, CANCEL = "job.json", "request.json", "inputs", "work", "cancel"

ID = re.compile(r"[0-9a-f]{24}", re.ASCII)
"""Ids of jobs, in the order of their creation; nothing else becomes a path."""


class Jobs:
    """The jobs in this folder. One process runs them; others create, read and cancel."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(
        self,
        kind: str,
        model: str | None,
        request: Mapping[str, Json],
        inputs: Sequence[bytes] = (),
        key: str | None = None,
    ) -> Job:
        """Queue a job; or return the one with this key. Raises StoreError, and queues nothing, if the disk refuses."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".new.lock"):
                same = None if key is None else next((job for job in self.all() if job.key == key), None)
                return same or self._create(kind, model, request, inputs, key)
        except OSError as error:
            raise StoreError(f"{self.folder}: a job cannot be written ({error.strerror or error})") from None

    def _create(
        self, kind: str, model: str | None, request: Mapping[str, Json], inputs: Sequence[bytes], key: str | None
    ) -> Job:
        job = Job(id=f"{time.time_ns():016x}{secrets.token_hex(4)}", kind=kind, model=model, key=key, created=now())
        part = self.folder / f"{job.id}.part"
        try:
            (part / INPUTS).mkdir(parents=True)
            for number, content in enumerate(inputs):
                (part / INPUTS / f"{number:06d}").write_bytes(content)
            write_whole(part / REQUEST, to_json(dict(request)))
            write_whole(part / JOB, job.model_dump_json())
            part.rename(self.folder / job.id)
        except OSError:
            shutil.rmtree(part, ignore_errors=True)
            raise
        return job

    def all(self) -> list[Job]:
        """All jobs, the oldest first; see `readable`."""
        return list(self.readable(self.ids()))

    def readable(self, ids: Iterable[str]) -> Iterator[Job]:
        """The jobs with these ids, without those whose file is damaged, which are logged."""
        for name in ids:
            try:
                job = self.get(name)
            except StoreError as error:
                log.error("%s", error, extra={"job": name})
            else:
                if job is not None:
                    yield job

    def ids(self) -> list[str]:
        """Ids of all jobs, the oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if ID.fullmatch(path.name))

    def get(self, job_id: str) -> Job | None:
        """The job with this id, if there is one. Raises StoreError for a damaged file."""
        if not ID.fullmatch(job_id):
            return None
        path = self.folder / job_id / JOB
        try:
            job = Job.model_validate_json(path.read_bytes())
            datetime.fromisoformat(job.created)
            if job.id != job_id:
                raise ValueError(f"it is of job '{job.id}'")
            return job
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:  # pydantic's errors are such
            raise StoreError(f"{path}: is no job ({type(error).__name__}); remove its folder") from None

    def save(self, job: Job) -> None:
        """Write a job's new state."""
        write_whole(self.folder / job.id / JOB, job.model_dump_json())

    def end(self, job: Job) -> None:
        """Write a job's last state, and remove its inputs and intermediate files: no example is kept."""
        self.save(job.model_copy(update={"ended": now(), "progress": None}))
        for name in (INPUTS, WORK):
            shutil.rmtree(self.folder / job.id / name, ignore_errors=True)

    def request(self, job: Job) -> dict[str, Json]:
        """What `create` was given."""
        found: dict[str, Json] = json.loads((self.folder / job.id / REQUEST).read_bytes())
        return found

    def inputs(self, job: Job) -> list[bytes]:
        """The inputs that `create` was given."""
        return [path.read_bytes() for path in sorted((self.folder / job.id / INPUTS).iterdir())]

    def work_folder(self, job: Job) -> Path:
        """An empty folder for a job's intermediate files."""
        folder = self.folder / job.id / WORK
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def lock(self, job_id: str) -> FileLock:
        """Held by the process that does a job: one that was cut off may still be ending."""
        return FileLock(self.folder / job_id / ".lock")

    def cancel(self, job: Job) -> None:
        """Ask the process that runs the jobs to cancel this one."""
        (self.folder / job.id / CANCEL).touch()

    def is_cancelled(self, job: Job) -> bool:
        """Whether `cancel` was called for this job."""
        return (self.folder / job.id / CANCEL).exists()

    def unfinished(self) -> list[Job]:
        """Jobs that have not ended, the oldest first."""
        return [job for job in self.all() if job.status not in ENDED]
