"""Errors as problem details (RFC 9457, `application/problem+json`)."""

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from newcomer.errors import DataError, LearnerError, NewcomerError, SettingError, StoreError, nearest
from newcomer.server.bodies import Body
from newcomer.settings import Json

MEDIA_TYPE = "application/problem+json"

STATUS: Mapping[type[NewcomerError], HTTPStatus] = {
    DataError: HTTPStatus.UNPROCESSABLE_ENTITY,
    SettingError: HTTPStatus.UNPROCESSABLE_ENTITY,
    LearnerError: HTTPStatus.CONFLICT,
    StoreError: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""Status by error; subclasses as their base."""

NO_OBJECT = ("model_attributes_type", "dict_type")
"""Pydantic's errors of a body that is no object, or was not read as JSON."""

ROW = re.compile(r"^(?P<where>\w+): row (?P<row>\d+)(?:, (?:column|time|label|weight) '(?P<column>[^']*)')?")
"""Beginning of a message about a row of a body's list `where`."""

COLUMN = re.compile(r"^column '(?P<column>[^']*)'")

log = logging.getLogger("newcomer.server")


DESCRIBED: Mapping[int, str] = {
    400: "the body is no JSON",
    401: "no valid token",
    403: "the token does not have the role",
    404: "not known",
    409: "the model cannot do this",
    413: "the body is too large",
    422: "the request does not fit",
    429: "too many requests",
    503: "the database or the store cannot be used now",
}
"""Statuses of problems in OpenAPI, of every route."""

PROBLEM: Mapping[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "path of the request"},
        "request_id": {"type": ["string", "null"]},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "JSON pointer into the body"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}
"""JSON schema of a problem."""


class ProblemError(Exception):
    """An answer other than success; `pointers` are JSON pointers into the body."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        errors: Sequence[Mapping[str, Json]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors, self.headers = status, detail, errors, headers


def problem(
    request: Request, status: int, detail: str, errors: Sequence[Mapping[str, Json]] = (), headers: Any = None
) -> JSONResponse:
    """The response for a problem."""
    content: dict[str, Json] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        "instance": request.url.path,
        "request_id": getattr(request.state, "request_id", None),
    }
    content |= {"errors": [dict(error) for error in errors]} if errors else {}
    return JSONResponse(content, status, media_type=MEDIA_TYPE, headers=headers)


def status_of(error: NewcomerError) -> HTTPStatus:
    """Status of an error of the library."""
    return next(
        (status for kind, status in STATUS.items() if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR
    )


def row_error(message: str) -> dict[str, Json]:
    """An error's message with a JSON pointer, if it names a row of a list in the body.

    >>> row_error("items: row 2, column 'price': 'x' is not a number")
    {'pointer': '/items/1/price', 'detail': "items: row 2, column 'price': 'x' is not a number"}
    """
    found = ROW.match(message)
    if found is None:
        return {"detail": message}
    column = f"/{escaped(found['column'])}" if found["column"] else ""
    return {"pointer": f"/{found['where']}/{int(found['row']) - 1}{column}", "detail": message}


def value_error(message: str, context: Collection[str]) -> dict[str, Json]:
    """An error's message with the JSON pointer of the column that it begins with; columns of `context` stand under that key.

    >>> value_error("column 'device' is empty", {"device"})
    {'pointer': '/context/device', 'detail': "column 'device' is empty"}
    """
    found = COLUMN.match(message)
    if found is None:
        return {"detail": message}
    part = "/context" if found["column"] in context else ""
    return {"pointer": f"{part}/{escaped(found['column'])}", "detail": message}


def body_problem(errors: Sequence[Mapping[str, Any]], body: Any) -> ProblemError:
    """The problem of a body with these errors of pydantic; `body`: its type."""
    details = dict[str, dict[str, None]]()  # of a value that may be one of several types, one of each
    for pointer, detail in (_validation_error(one, body) for one in errors[:100]):
        mine = details.setdefault(pointer, {})
        mine[detail.removeprefix("Input should be ") if mine else detail] = None
    meant = [one for one in details if not any(other.startswith(f"{one}/") for other in details)]
    found = [{"pointer": pointer, "detail": ", or ".join(details[pointer])} for pointer in meant]
    hinted = (one for one in found if "is not a key here" in one["detail"])
    pointer, detail = next(hinted, found[0]).values()
    return ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{pointer}: {detail}" if pointer else detail, found)


def install(app: FastAPI) -> None:
    """Answer all errors with problem details, and describe them; an unexpected one without its traceback, which is logged."""
    generate = app.openapi
    app.openapi = lambda: described(generate())  # type: ignore[method-assign]

    @app.exception_handler(ProblemError)
    async def _problem(request: Request, error: ProblemError) -> JSONResponse:
        return problem(request, error.status, error.detail, error.errors, error.headers)

    @app.exception_handler(NewcomerError)
    async def _library(request: Request, error: NewcomerError) -> JSONResponse:
        status = status_of(error)
        if status >= 500:
            log.warning("%s", error, extra={"request_id": getattr(request.state, "request_id", None)})
        return problem(request, status, str(error), [row_error(str(error))] if status == 422 else [])

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> JSONResponse:
        field = getattr(request.scope.get("route"), "body_field", None)
        found = error.errors()
        if found[0]["type"] in NO_OBJECT and found[0]["loc"] == ("body",):
            sent = request.headers.get("content-type", "none")
            why = "write one" if "json" in sent else f"send the header 'content-type: application/json' (it is: {sent})"
            found = [{**found[0], "msg": f"the body is no JSON object; {why}"}]
        wrong = body_problem(found, None if field is None else field.field_info.annotation)
        return problem(request, wrong.status, wrong.detail, wrong.errors)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        detail = str(error.detail)
        if detail == HTTPStatus.NOT_FOUND.phrase:
            detail = "no such route; GET /openapi.json describes those of this service"
        elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            detail = f"not by {request.method}; GET /openapi.json describes the routes"
        return problem(request, error.status_code, detail, headers=error.headers)

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("unexpected", exc_info=error, extra={"request_id": getattr(request.state, "request_id", None)})
        return problem(request, 500, "an unexpected error; it is in the service's log under this request_id")


def described(openapi: dict[str, Any]) -> dict[str, Any]:
    """This description with problems as the errors of every route."""
    schemas = openapi.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = PROBLEM
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for operations in openapi["paths"].values():
        for operation in operations.values():
            operation["responses"] |= {
                str(status): {"description": text, "content": content} for status, text in DESCRIBED.items()
            }
    return openapi


def _validation_error(error: Mapping[str, Any], body: Any) -> tuple[str, str]:
    """Pointer and message of an error of pydantic; `body`: type of the route's body."""
    source, *path = error["loc"] or ("body",)
    places, detail = list[str](), str(error["msg"])
    for part in path:
        kinds = _kinds(body)
        body = kinds[0] if len(kinds) == 1 else body
        model = body if isinstance(body, type) and issubclass(body, BaseModel) else None
        if len(kinds) > 1:  # one of several types, by its name
            lists = (one for one in kinds if get_origin(one) is list and str(part).startswith("list["))
            body = next((one for one in kinds if getattr(one, "__name__", None) == part), next(lists, None))
            continue
        if model is None:  # an element of a list, or a value of a mapping
            body = next(reversed(get_args(body)), None)
        else:
            body = next((one.annotation for name, one in model.model_fields.items() if part in (name, one.alias)), None)
            if error["type"] == "extra_forbidden" and issubclass(model, Body):
                known = [field.alias or name for name, field in model.model_fields.items()]
                detail = f"is not a key here; {model.hints.get(part) or nearest(part, known)}"
        places.append(f"/{escaped(str(part))}")
    pointer = "".join(places)
    return pointer if source == "body" else f"{source}:{pointer}", detail


def _kinds(kind: Any) -> list[Any]:
    """The types of a union without None; a list of this type alone for any other."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return [one for one in kinds if one is not NoneType]


def escaped(name: str) -> str:
    """A part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")
