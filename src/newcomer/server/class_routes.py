"""Routes of classifiers: classify inputs; list, name and delete classes."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from newcomer.classes.predictions import Prediction
from newcomer.data.inputs import Input
from newcomer.data.io.image_decoding import read_image
from newcomer.errors import DataError, LearnerError, NewcomerError
from newcomer.server.bodies import Choice, Classifications, Classified, ClassifyBody, ClassList, NamesBody, from_base64
from newcomer.server.classifiers import ServedClassifier, find_classifier
from newcomer.server.json_route import JsonRoute
from newcomer.server.metrics import Metrics
from newcomer.server.problems import ProblemError, body_problem
from newcomer.server.security import Guard, Role

CONTENT = {
    "application/json": {"schema": ClassifyBody.model_json_schema()},
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["files"],
            "additionalProperties": False,
            "properties": {
                "files": {"type": "array", "items": {"type": "string", "contentMediaType": "application/octet-stream"}},
                "top": {"type": "integer"},
                "reject": {"type": "number"},
            },
        }
    },
}
"""Bodies of `classify`."""

ENCODED_IMAGES = ("data:image/", "iVBORw0KGgo", "/9j/4", "R0lGODlh", "R0lGODdh")
"""How images in base64 begin: data URLs, PNG, JPEG, GIF."""

Model = Annotated[str | None, Query(description="name of the classifier; needed if several are served")]


class ClassRoutes:
    """Routes for these classifiers by name."""

    def __init__(self, models: Mapping[str, ServedClassifier], guard: Guard, metrics: Metrics, inputs: int) -> None:
        self.models, self.metrics, self.most = models, metrics, inputs
        self.router = APIRouter(tags=["classes"], route_class=JsonRoute)
        read, write = (Depends(guard.requires(role)) for role in (Role.READ, Role.WRITE))
        route = self.router.add_api_route
        route(
            "/classify",
            self.classify,
            methods=["POST"],
            dependencies=[read],
            openapi_extra={"requestBody": {"required": True, "content": CONTENT}},
        )
        route("/classes", self.classes, methods=["GET"], dependencies=[read])
        route("/classes", self.learn_names, methods=["POST"], dependencies=[write])
        route("/classes/{name:path}", self.delete, methods=["DELETE"], dependencies=[write], status_code=204)
        # by name as well: a path cannot have the names . and ..
        route("/classes", self.delete, methods=["DELETE"], dependencies=[write], status_code=204)

    async def classify(self, request: Request, model: Model = None) -> Classifications:
        """Classes with calibrated probabilities: of texts or images in base64 (JSON), or of uploaded files (multipart)."""
        served = find_classifier(self.models, model)
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            async with request.form(max_files=self.most, max_fields=8) as form:
                contents = [await one.read() for one in form.getlist("files") if isinstance(one, UploadFile)]
                if not contents:
                    raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "the form has no part 'files' with a file")
                fields = {key: value for key, value in form.items() if isinstance(value, str)}
            if "inputs" in fields:
                raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "the form has 'inputs'; give 'files', or send JSON")
            body = _validated(fields | {"inputs": [""] * len(contents)})
            return await run_in_threadpool(self.answer, served, contents, body)
        body = _validated(await request.json())
        return await run_in_threadpool(self.answer, served, body.inputs, body)

    def classes(self, model: Model = None) -> ClassList:
        """The classes that the model knows."""
        served = find_classifier(self.models, model)
        learner = served.learner()
        return ClassList(model=served.name, stage=len(learner.entries), classes=list(learner.classes))

    def learn_names(self, body: NamesBody, model: Model = None) -> ClassList:
        """Add classes by their names or descriptions, without examples: they are answered at once."""
        served = find_classifier(self.models, model)
        served.models.require_latest(served.name)
        if len(names := {one.name: one.description for one in body.classes}) < len(body.classes):
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "body.classes: a class is named twice; name it once")
        learner = served.learn_names(names)
        return ClassList(model=served.name, stage=len(learner.entries), classes=list(learner.classes))

    def delete(self, name: str, model: Model = None) -> None:
        """Remove a class: its statistics and its row of the head. Its effect on the adapted weights remains."""
        served = find_classifier(self.models, model)
        served.models.require_latest(served.name)
        try:
            served.forget(name)
        except LearnerError as error:
            raise ProblemError(HTTPStatus.NOT_FOUND, str(error)) from None

    def answer(self, served: ServedClassifier, given: Sequence[str | bytes], body: ClassifyBody) -> Classifications:
        if len(given) > self.most:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"{len(given)} inputs, but at most {self.most} are classified at once"
            )
        inputs = [_input(one, f"input {number}", served.reads_images) for number, one in enumerate(given, 1)]
        right = [one for one in inputs if not isinstance(one, NewcomerError)]
        answers = served.learner().iter_predictions(right, top=body.top, reject=body.reject)
        results = [
            _result(one if isinstance(one, NewcomerError) else next(answers), f"input {number}")
            for number, one in enumerate(inputs, 1)
        ]
        for result in results:
            outcome = "unreadable" if result.error else "known" if result.known else "novel"
            self.metrics.classified.labels(served.name, outcome).inc()
        return Classifications(model=served.name, results=results)


def _validated(content: Any) -> ClassifyBody:
    try:
        return ClassifyBody.model_validate(content)
    except ValidationError as error:
        raise body_problem([{**one, "loc": ("body", *one["loc"])} for one in error.errors()], ClassifyBody) from None


def _input(given: str | bytes, where: str, image: bool) -> Input | NewcomerError:
    """The image or text, or the error: an image in base64 may be a data URL."""
    try:
        if not image:
            if isinstance(given, str) and given.startswith(ENCODED_IMAGES):
                return DataError(f"{where} is an image in base64; this model reads texts")
            return given if isinstance(given, str) else given.decode("utf-8")
        if isinstance(given, str):
            given = from_base64(given)
        return read_image(given, where)
    except UnicodeDecodeError:
        return DataError(f"{where} is not UTF-8; this model reads texts")
    except ValueError:
        return DataError(f"{where} is not base64; this model reads images: send the bytes of a file, not its name")
    except DataError as error:
        return error


def _result(answer: Prediction | NewcomerError, where: str) -> Classified:
    if isinstance(answer, NewcomerError):  # which counts those that could be decoded, from 0
        return Classified(classes=[], known=False, error=re.sub(r"^inputs\[\d+\]", where, str(answer)))
    pairs = zip(answer.classes, answer.probabilities, strict=True)
    return Classified(classes=[Choice(label=name, probability=share) for name, share in pairs], known=answer.known)
