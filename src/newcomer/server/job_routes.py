"""Routes of jobs: create, look at, cancel."""

import binascii
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from itertools import islice
from types import MappingProxyType
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from newcomer.server.bodies import from_base64
from newcomer.server.classifiers import ServedClassifier, find_classifier
from newcomer.server.click_versions import version_folder
from newcomer.server.configuration import ServeConfig
from newcomer.server.job_bodies import ENDED, CalibrateBody, Job, JobBody, JobList, LearnBody, ReplayBody, TrainBody
from newcomer.server.jobs import FOLDER, Jobs
from newcomer.server.json_route import JsonRoute
from newcomer.server.learn_job import require_settings
from newcomer.server.models import ClickModel, ModelsFile
from newcomer.server.problems import ProblemError
from newcomer.server.security import Guard, Role
from newcomer.server.stores import click_model_folder
from newcomer.server.train_job import new_settings
from newcomer.settings import Json


class JobRoutes:
    """Routes of the jobs for the click model, if there is one, and for these classifiers."""

    def __init__(
        self,
        config: ServeConfig,
        models: ModelsFile,
        has_click_model: bool,
        classifiers: Mapping[str, ServedClassifier],
        guard: Guard,
    ) -> None:
        self.config, self.models, self.has_click_model, self.classifiers = config, models, has_click_model, classifiers
        self.jobs, self.limits = Jobs(config.own_folder / FOLDER), config.limits
        self.router = APIRouter(tags=["jobs"], route_class=JsonRoute)
        read, admin = (Depends(guard.requires(role)) for role in (Role.READ, Role.ADMIN))
        route = self.router.add_api_route
        route("/jobs", self.create, methods=["POST"], dependencies=[admin], status_code=202)
        route("/jobs", self.all, methods=["GET"], dependencies=[read])
        route("/jobs/{job_id}", self.one, methods=["GET"], dependencies=[read])
        route("/jobs/{job_id}", self.cancel, methods=["DELETE"], dependencies=[admin], status_code=202)

    def create(self, body: JobBody) -> Job:
        """Queue a job."""
        self._require_room()
        match body:
            case LearnBody():
                served = find_classifier(self.classifiers, body.model)
                inputs = _decoded(body, served.reads_images)
                return self.learn(served, inputs, [one.label for one in body.examples], body.settings, body.key)
            case TrainBody():
                return self._train(body)
            case CalibrateBody():
                self._click_model()
                return self.jobs.create("calibrate", None, body.model_dump(), key=body.key)
            case ReplayBody():
                return self._replay(body)

    def all(self, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> JobList:
        """The newest jobs."""
        return JobList(jobs=list(islice(self.jobs.readable(reversed(self.jobs.ids())), limit)))

    def one(self, job_id: str) -> Job:
        """A job: its status, how far it is, its result."""
        job = self.jobs.get(job_id)
        if job is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, f"job '{job_id}' is not there")
        return job

    def cancel(self, job_id: str) -> Job:
        """Cancel a job: it ends soon, as if it had never been started, unless it is done already."""
        job = self.one(job_id)
        if job.status in ENDED:
            raise ProblemError(HTTPStatus.CONFLICT, f"job '{job_id}' has ended ({job.status})")
        self.jobs.cancel(job)
        return job

    def learn(
        self,
        served: ServedClassifier,
        inputs: Sequence[bytes],
        labels: Sequence[str],
        settings: Mapping[str, Json] = MappingProxyType({}),
        key: str | None = None,
    ) -> Job:
        """Queue a job that learns these images, or texts in UTF-8, with their labels."""
        self._require_room()
        if len(inputs) > self.limits.rows:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"{len(inputs)} examples, but at most {self.limits.rows} a job"
            )
        served.models.require_latest(served.name)
        require_settings(served.folder, settings)
        request = {"labels": list(labels), "settings": dict(settings)}
        return self.jobs.create("learn", served.name, request, inputs, key)

    def _train(self, body: TrainBody) -> Job:
        click_model = self._click_model()
        if not self.config.log:
            raise ProblemError(HTTPStatus.CONFLICT, "the training log is not known; start the service with --log FILES")
        first = click_model_folder(self.config)
        assert first is not None
        new_settings(version_folder(self.config, first, click_model.live), body.settings)
        return self.jobs.create("train", None, body.model_dump(), key=body.key)

    def _replay(self, body: ReplayBody) -> Job:
        version = self._click_model().version(body.version)
        if version.status == "ready":
            raise ProblemError(HTTPStatus.CONFLICT, f"version '{body.version}' has all items and events")
        return self.jobs.create("replay", body.version, {}, key=body.key)

    def _require_room(self) -> None:
        if len(self.jobs.unfinished()) >= self.limits.jobs:
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS, f"{self.limits.jobs} jobs are waiting; cancel some, or wait"
            )

    def _click_model(self) -> ClickModel:
        found = self.models.read().click_model
        if found is None or not self.has_click_model:
            raise ProblemError(HTTPStatus.NOT_FOUND, "no click model is served")
        return found


def _decoded(body: LearnBody, images: bool) -> list[bytes]:
    """The inputs as bytes. Raises ProblemError, with their places, for inputs that are not base64."""
    found, errors = list[bytes](), list[dict[str, str]]()
    for number, example in enumerate(body.examples):
        try:
            found.append(from_base64(example.input) if images else example.input.encode())
        except binascii.Error:
            detail = "is not base64; this model reads images"
            errors.append({"pointer": f"/examples/{number}/input", "detail": detail})
        except UnicodeEncodeError:
            errors.append({"pointer": f"/examples/{number}/input", "detail": "is not valid Unicode"})
    if errors:
        first = errors[0]
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{first['pointer']} {first['detail']}", errors)
    return found
