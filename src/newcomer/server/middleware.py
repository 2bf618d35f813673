"""ASGI middleware: a limit on bodies, request ids and latency."""

import json
import logging
import re
import secrets
import time
from http import HTTPStatus

from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from newcomer.server.metrics import Metrics
from newcomer.server.problems import MEDIA_TYPE

log = logging.getLogger("newcomer.server")

REQUEST_ID = b"x-request-id"
VALID_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

UNKNOWN = "unknown"

QUIET = {"/healthz", "/readyz", "/metrics"}
"""Routes that are not logged when they succeed."""


class BodyLimit:
    """Refuses bodies of more than `most` bytes, by their declared length or while they arrive."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self.most:
            await self._refuse(scope, send)
            return
        read, refused = 0, False

        async def limited() -> Message:
            nonlocal read, refused
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.most:
                refused = True
                return {"type": "http.disconnect"}
            return message

        async def answer(message: Message) -> None:
            if not refused:
                await send(message)

        try:
            await self.app(scope, limited, answer)
        except Exception:
            if not refused:
                raise
        if refused:
            await self._refuse(scope, send)

    async def _refuse(self, scope: Scope, send: Send) -> None:
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        detail = f"a body has at most {self.most} bytes; send less at a time"
        content = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail}
        body = json.dumps(content | {"instance": scope["path"]}).encode()
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Observed:
    """Gives each request an id (the client's `X-Request-Id`, or a new one), measures and logs it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(REQUEST_ID, b"")
        request_id = given if VALID_ID.fullmatch(given) else secrets.token_hex(8).encode()
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        begin, status = time.perf_counter(), 500
        end: float | None = None

        async def answer(message: Message) -> None:
            nonlocal status, end
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (REQUEST_ID, request_id)]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                end = time.perf_counter()  # shadow versions score afterwards

        try:
            await self.app(scope, receive, answer)
        finally:
            self._observe(scope, status, (end or time.perf_counter()) - begin, request_id.decode())

    def _observe(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        route = _route(scope)
        method = scope["method"] if route != UNKNOWN else UNKNOWN  # labels are few: a client could invent methods
        self.metrics.requests.labels(method, route, str(status)).inc()
        self.metrics.seconds.labels(method, route).observe(seconds)
        if status >= 400 or route not in QUIET:
            fields = {"method": scope["method"], "route": route, "status": status, "ms": round(1000 * seconds, 2)}
            log.info("request", extra={"request_id": request_id, **fields})


def _route(scope: Scope) -> str:
    """Path of the request's route; 'unknown' for a path that leads nowhere, and for a body that was refused before it had one."""
    route = scope.get("route")
    if route is None:  # perhaps one of the documentation
        pages = (one for one in scope["app"].routes if not isinstance(one, APIRoute))
        route = next((one for one in pages if one.matches(scope)[0] != Match.NONE), None)
    return getattr(route, "path", UNKNOWN)
