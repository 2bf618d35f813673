"""Routes of the pages."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, get_args
from urllib.parse import quote, unquote, urlencode

from fastapi import APIRouter, Depends, Form, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from newcomer.errors import NewcomerError
from newcomer.items.analysis.item_graphs import item_graph
from newcomer.items.serving.click_curve import click_curve
from newcomer.printable import counted, printable
from newcomer.server.bodies import ClassifyBody
from newcomer.server.class_routes import ClassRoutes
from newcomer.server.classifiers import find_classifier
from newcomer.server.item_routes import ItemRoutes, Phase
from newcomer.server.job_bodies import Example
from newcomer.server.job_routes import JobRoutes
from newcomer.server.metrics import Metrics
from newcomer.server.problems import ProblemError
from newcomer.server.security import COOKIE, Guard, Role

EXAMPLES = 10
"""Number of items that the first page links to."""

JOBS = 5
"""Number of jobs, the newest, on the first page."""

SHADES = 5
"""Number of background colours of an edge's weight."""

CHART = 600, 120
"""Width and height of a chart."""

CONFUSED = 20
"""Classes of the confusion matrix."""

MESSAGE, MOST = "newcomer_message", 3000
"""Cookie of the next page's message, and its greatest length, which browsers limit to 4,096 with its attributes."""

MAX_TEXT = 8 * 2**20
"""Bytes of a text of a form."""

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
"""Headers of every page: nothing of other origins."""


class Pages:
    """Pages about these jobs, and about items and classifiers, each None if nothing of the kind is served."""

    def __init__(
        self, items: ItemRoutes | None, classes: ClassRoutes | None, jobs: JobRoutes, guard: Guard, metrics: Metrics
    ) -> None:
        self.items, self.classes, self.jobs, self.guard, self.metrics = items, classes, jobs, guard, metrics
        self.environment = Environment(
            loader=PackageLoader("newcomer.server", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            finalize=lambda value: printable(value) if type(value) is str else value,
        )  # fmt: skip
        self.router = APIRouter(include_in_schema=False)
        read, write, admin = (Depends(guard.requires(role)) for role in (Role.READ, Role.WRITE, Role.ADMIN))
        same = Depends(require_same_origin)
        route = self.router.add_api_route
        route("/", self.index, methods=["GET", "HEAD"], dependencies=[Depends(guard.has_local_name)])
        route("/login", self.login, methods=["POST"], dependencies=[same])
        route("/ui/summary", self.summary, methods=["GET"], dependencies=[read])
        route("/ui/style.css", _file("style.css", "text/css"), methods=["GET"])
        route("/ui/icon.svg", _file("icon.svg", "image/svg+xml"), methods=["GET"])
        route("/ui/live.js", _file("live.js", "text/javascript"), methods=["GET"])
        if items is not None:
            route("/ui/item", self.item, methods=["GET"], dependencies=[read])
            route("/ui/item/state", self.item_state, methods=["GET"], dependencies=[read])
            route("/ui/items", _told_if_refused(self.add), methods=["POST"], dependencies=[write, same])
        if classes is not None:
            route("/ui/classes", self.known_classes, methods=["GET"], dependencies=[read])
            route("/ui/classify", _told_if_refused(self.classify), methods=["POST"], dependencies=[read, same])
            route("/ui/learn", _told_if_refused(self.learn), methods=["POST"], dependencies=[admin, same])

    def index(self, request: Request) -> Response:
        """The first page, or the one to sign in."""
        message = unquote(request.cookies.get(MESSAGE, ""))
        if self.guard.has_tokens and not self.guard.allows(request, Role.READ):
            return self._page("login.html.jinja", message=message)
        columns = [] if self.items is None else self._columns(self.items)
        classifiers = [] if self.classes is None else self.classes.models.values()
        answer = self._page(
            "index.html.jinja",
            message=message,
            items=self.items is not None,
            examples=[] if self.items is None else [item.item_id for item in self.items.page(limit=EXAMPLES).items],
            columns=columns,
            may={role.name.lower(): self.guard.allows(request, role) for role in Role},
            classifiers=[{"name": model.name, "images": model.reads_images} for model in classifiers],
            **self._summary(),
        )
        answer.delete_cookie(MESSAGE)
        return answer

    def login(self, request: Request, token: Annotated[str, Form(max_length=500)]) -> Response:
        """Keep the token in a cookie that scripts cannot read and other sites cannot use."""
        if not self.guard.knows(token):
            return self._page("login.html.jinja", message="This token is not valid.", status=401)
        answer = RedirectResponse("/", 303)
        secure = request.url.scheme == "https"
        if self.guard.has_tokens:
            answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure)
        return answer

    def summary(self) -> Response:
        """The part of the first page that changes."""
        return self._page("summary.html.jinja", **self._summary())

    def item(self, id: str) -> Response:
        """One item."""
        try:
            return self._page("item.html.jinja", **self._item(id))
        except ProblemError as error:
            return _told(error.detail)

    def item_state(self, id: str) -> Response:
        """The part of an item's page that changes."""
        return self._page("item_state.html.jinja", **self._item(id))

    async def add(self, request: Request) -> Response:
        """Add the item of the form, and show it."""
        assert self.items is not None
        async with request.form(max_files=0, max_fields=1000) as form:
            row = {key: value for key, value in form.items() if isinstance(value, str) and value.strip()}
        schema = self.items.schema
        known = {schema.item, *(field.name for field in schema.of("item"))}
        row = {key: value for key, value in row.items() if key in known}
        if empty := [name for name, _, required in self._columns(self.items) if required and name not in row]:
            return _told(f"{empty[0]} is empty; fill it in")
        done = await run_in_threadpool(self.items.add, [row], False)
        return RedirectResponse(f"/ui/item?{urlencode({'id': done.items[0].item_id})}", 303)

    async def classify(self, request: Request, model: str) -> Response:
        """Classify the files or lines of the form."""
        assert self.classes is not None
        served = find_classifier(self.classes.models, model)
        contents, _ = await _given(request, self.classes.most, served.reads_images)
        if not contents:
            return _told("Nothing to classify.")
        body = ClassifyBody(inputs=[""], reject=0.05)
        found = await run_in_threadpool(self.classes.answer, served, [one for _, one in contents], body)
        results = [
            {"name": name, **result.model_dump()} for (name, _), result in zip(contents, found.results, strict=True)
        ]
        return self._page("classified.html.jinja", model=model, results=results)

    async def learn(self, request: Request, model: str) -> Response:
        """Queue a job that learns the files or lines of the form as examples of its class."""
        assert self.classes is not None
        served = find_classifier(self.classes.models, model)
        contents, label = await _given(request, self.jobs.limits.rows, served.reads_images)
        if not contents or not label:
            return _told("Nothing to learn: give a class and its examples.")
        Example(input="", label=label)  # raises ValidationError for a label that a job may not have
        await run_in_threadpool(self.jobs.learn, served, [one for _, one in contents], [label] * len(contents))
        return _told(f"A job learns {counted(len(contents), 'example')} of '{label}': see the newest jobs.")

    def known_classes(self, model: str) -> Response:
        """The classes of a classifier, and which of them were confused."""
        assert self.classes is not None
        learner = find_classifier(self.classes.models, model).learner()
        memory = learner.memory
        shown = memory.confusions.most_confused(CONFUSED)
        counts = memory.statistics.count - memory.of_name
        return self._page(
            "classes.html.jinja",
            model=model,
            classes=list(zip(learner.classes, counts.round().int().tolist(), strict=True)),
            confused=[learner.classes[k] for k in shown],
            measured=len(memory.confusions.measured),
            counted=counted,
            rows=_shares(memory.confusions.shares(shown).tolist()),
        )

    def _summary(self) -> dict[str, Any]:
        phases: dict[str, list[int]] = {}
        for header in (self.items.live.headers() if self.items is not None else {}).values():
            phase = phases.setdefault(header.phase, [0, 0])
            phase[0] += 1
            phase[1] += header.events
        every = sum(items for items, _ in phases.values())
        listed = [
            _Phase(name, items, events, items / every)
            for name, (items, events) in sorted(phases.items(), key=lambda one: get_args(Phase).index(one[0]))
        ]
        classes = (
            [] if self.classes is None else [self.classes.classes(name).model_dump() for name in self.classes.models]
        )
        return {
            "phases": listed,
            "classes": [{"name": one["model"], "stage": one["stage"], "classes": one["classes"]} for one in classes],
            "jobs": self.jobs.all(JOBS).jobs,
            "routes": self.metrics.latencies(),
            "outcomes": self.metrics.outcomes(),
            "calibration": self.metrics.calibration(),
        }

    def _item(self, name: str) -> dict[str, Any]:
        assert self.items is not None
        found, service = self.items.details(name), self.items.live
        (_, state), (initial, _) = service.look_up(name), service.initial_state(name)
        generated, adapted = item_graph(service.learner, initial), item_graph(service.learner, state)
        pairs = [("generated from its features", generated), (f"adapted to {counted(found.events, 'event')}", adapted)]
        graphs = [{"title": title, "rows": _cells(graph)} for title, graph in pairs if graph is not None]
        return {
            "item": found.item_id,
            "phase": found.phase,
            "events": found.events,
            "updated_at": found.updated_at,
            "uncertainty": found.uncertainty,
            "graphs": graphs,
            "curve": click_curve(service, name),
            "line": _line,
            "counted": counted,
            "fields": [node.name for node in service.learner.nodes],
        }

    def _columns(self, items: ItemRoutes) -> list[tuple[str, str, bool]]:
        """Name, hint, and whether it is required, of each column of an item."""
        hints = {"multi": "several values, separated by {}", "numeric": "a number", "vector": "numbers and commas"}
        fields = [
            (field.name, hints.get(field.kind, "").format(field.separator), field.missing == "error")
            for field in items.schema.of("item")
        ]
        return [(items.schema.item, "the id", True), *fields]

    def _page(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        content = self.environment.get_template(template).render(query=_query, **values)
        return HTMLResponse(content, status, HEADERS)


@dataclass(frozen=True)
class _Phase:
    """Items of a phase. Attributes: a mapping's `items` is a method in a template."""

    name: str
    items: int
    events: int
    share: float


def require_same_origin(request: Request) -> None:
    """Raises ProblemError (403) for a form that another site has sent."""
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise ProblemError(
            HTTPStatus.FORBIDDEN, "a form of another site; a proxy before the service has to pass the header Host"
        )


async def _given(request: Request, files: int, images: bool) -> tuple[list[tuple[str, bytes]], str]:
    """The form's images, or its lines of text in UTF-8, each with a name; and its class, if it has one."""
    async with request.form(max_files=files, max_fields=8, max_part_size=MAX_TEXT) as form:
        uploads = [one for one in form.getlist("files") if isinstance(one, UploadFile) and (one.filename or one.size)]
        contents = [(one.filename or "file", await one.read()) for one in uploads]
        text, label = (value if isinstance(value, str) else "" for value in (form.get("text"), form.get("label")))
    lines = [] if images else text.splitlines()
    return contents + [(line[:80], line.encode()) for line in lines if line.strip()], label.strip()


def _told_if_refused(answer: Callable[..., Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    """The same route; what it refuses is a message on the first page."""

    @wraps(answer)
    async def told(*arguments: Any, **named: Any) -> Response:
        try:
            return await answer(*arguments, **named)
        except (ProblemError, HTTPException) as error:
            return _told(str(error.detail))
        except ValidationError as error:
            return _told(f"{error.errors()[0]['loc'][-1]}: {error.errors()[0]['msg']}")
        except NewcomerError as error:
            return _told(str(error))

    return told


def _told(message: str) -> Response:
    """The first page, with this message: once, and not in the address, where others could write one."""
    while len(quote(message)) > MOST:
        message = message[: len(message) * 3 // 4]
    answer = RedirectResponse("/", 303)
    answer.set_cookie(MESSAGE, quote(message), max_age=60, httponly=True, samesite="strict")
    return answer


def _query(value: str, name: str = "id") -> str:
    return urlencode({name: value})


def _line(values: Sequence[float], high: float) -> str:
    """Points of a polyline from the lower left of the chart, whose height is `high`.

    >>> _line([1.0, 1.0, 2.0], 2.0)
    '0,120 200,60 400,60 600,0'
    """
    width, height = CHART
    shares = enumerate([0.0, *values])
    return " ".join(f"{width * n / len(values):g},{height * (1 - value / high):g}" for n, value in shares)


def _cells(graph: Sequence[Sequence[float]]) -> list[list[Mapping[str, Any]]]:
    """Text and background of each edge; a field has none with itself."""
    empty = {"text": "", "shade": 0}
    return [[empty if i == j else _cell(weight) for j, weight in enumerate(row)] for i, row in enumerate(graph)]


def _cell(weight: float) -> Mapping[str, Any]:
    return {"text": f"{weight:.2f}", "shade": _shade(weight)}


def _shade(weight: float) -> int:
    return max(0, min(int(weight * SHADES), SHADES - 1))


def _shares(matrix: Sequence[Sequence[float]]) -> list[list[Mapping[str, Any]]]:
    """Text and background of each share of a confusion matrix, without those that round to 0."""
    return [
        [
            {"text": f"{100 * share:.0f}" if share >= 0.005 else "", "shade": 0 if i == j else _shade(share * SHADES)}
            for j, share in enumerate(row)
        ]
        for i, row in enumerate(matrix)
    ]


def _file(name: str, kind: str) -> Any:
    content = Path(__file__).with_name(name).read_bytes()

    def answer() -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "max-age=3600"})

    return answer
