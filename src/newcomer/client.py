"""Client of a service (`newcomer serve`), synchronous and asynchronous.

Requests that fail on the way, or that the service cannot answer now, are sent again: events carry ids, so each counts once.
"""

import asyncio
import base64
import random
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from newcomer.errors import DataError, NewcomerError
from newcomer.server.bodies import (
    EVENT_ID,
    REQUEST_ID,
    AddedItems,
    Classifications,
    ClassList,
    Counts,
    Explore,
    Forgotten,
    ItemDetails,
    ItemPage,
    Scores,
)
from newcomer.server.job_bodies import ENDED, Job, JobList, Promote
from newcomer.server.model_bodies import ModelList
from newcomer.settings import Json

T = TypeVar("T", bound=BaseModel)

AGAIN = {429, 502, 503, 504}
"""Statuses after which a request is sent again."""

Row = Mapping[str, Any]
OnUnknown = Literal["error", "null", "prior"]


class ServiceError(NewcomerError):
    """An answer other than success. `status`: of HTTP, None without an answer; `errors`: JSON pointers and details."""

    def __init__(self, detail: str, status: int | None = None, errors: Sequence[Mapping[str, Json]] = ()) -> None:
        super().__init__(detail)
        self.status, self.errors = status, errors


class _Empty(BaseModel):
    """The answer of a deletion."""


@dataclass(frozen=True)
class _Request(Generic[T]):
    """A request, and the type of its answer."""

    method: str
    path: str
    answer: type[T]
    json: Any = None
    params: Mapping[str, Any] | None = None


class _Policy:
    """What both clients do with requests: headers, retries, errors."""

    def __init__(self, url: str, token: str | None, timeout: float, retries: int) -> None:
        self.retries = retries
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.options: dict[str, Any] = {"base_url": url, "headers": headers, "timeout": timeout}

    def pause(self, attempt: int, response: httpx.Response | None) -> float | None:
        """Seconds to wait before the next attempt; None if there is none."""
        if attempt >= self.retries or (response is not None and response.status_code not in AGAIN):
            return None
        asked = response.headers.get("retry-after", "") if response is not None else ""
        return float(asked) if asked.isdigit() else random.uniform(0.5, 1) * 0.1 * 2**attempt

    def result(self, request: _Request[T], response: httpx.Response) -> T:
        """The answer. Raises ServiceError for any other."""
        if response.is_success:
            return request.answer.model_validate_json(response.content or b"{}")
        try:
            content = response.json()
            detail, errors = str(content["detail"]), content.get("errors", ())
        except (ValueError, KeyError, TypeError):
            detail, errors = response.text[:200] or response.reason_phrase, ()
        raise ServiceError(detail, response.status_code, errors)


class Client:
    """A service at this URL. Thread-safe; to be closed, or used as a context manager.

    `token`: see `newcomer serve --token-file`. `timeout`: seconds of one attempt. `retries`: further attempts after failures on the
    way and after answers that say "not now".

    All methods raise ServiceError for an answer other than success, or without any.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 10.0, retries: int = 4) -> None:
        self._policy = _Policy(url, token, timeout, retries)
        self._http = httpx.Client(**self._policy.options)

    def add(self, items: Sequence[Row], replace: bool = True) -> AddedItems:
        """Register items: their ids and fields by column. One that is there with other fields gets these, or is refused."""
        return self._send(_add(items, replace))

    def score(
        self,
        user: Row,
        context: Row,
        candidates: Sequence[str | int | Row],
        on_unknown: OnUnknown = "error",
        uncertainty: bool = False,
        explore: Explore | None = None,
        strength: float = 1.0,
        epsilon: float = 0.0,
    ) -> Scores:
        """Click probabilities of candidates, given by ids or by fields. `user`: the user's id and fields by column.

        With `explore` the answer has the `order` in which to show them, and the `propensity` of the first one
        (`newcomer.items.serving.exploration`).
        """
        return self._send(_score(user, context, candidates, on_unknown, uncertainty, explore, strength, epsilon))

    def warm(self, events: Sequence[Row]) -> Counts:
        """Count events; a click corrects the impression of its id.

        An event without `event_id` and `request_id` gets an id here, so that it counts once if it is sent again.
        """
        return self._send(_warm(events))

    def forget(self, item: str) -> None:
        """Delete an item and its events."""
        self._send(_item("DELETE", item, _Empty))

    def forget_user(self, user: str | int) -> Forgotten:
        """Forget a user for good; what remains is said. Give time: the whole event log and all items are searched."""
        return self._send(_forget_user(user))

    def item(self, item: str) -> ItemDetails:
        """Phase, events and graph of an item."""
        return self._send(_item("GET", item, ItemDetails))

    def items(self, phase: str | None = None) -> Iterator[str]:
        """Ids of all items, or of those of a phase, in order."""
        after: str | None = ""
        while after is not None:
            page = self._send(_page(phase, after))
            yield from (item.item_id for item in page.items)
            after = page.next

    def predict(
        self, inputs: Sequence[str | bytes | Path], top: int = 3, reject: float | None = None, model: str | None = None
    ) -> Classifications:
        """Classes of texts, or of images: paths or the contents of files."""
        return self._send(_predict(inputs, top, reject, model))

    def classes(self, model: str | None = None) -> ClassList:
        """The classes that a classifier knows."""
        return self._send(_Request("GET", "/classes", ClassList, params=_named(model)))

    def learn_names(self, names: Sequence[str] | Mapping[str, str], model: str | None = None) -> ClassList:
        """A classifier learns classes by name, or descriptions by name, without examples."""
        return self._send(_learn_names(names, model))

    def forget_class(self, name: str, model: str | None = None) -> None:
        """Remove a class of a classifier."""
        self._send(_forget_class(name, model))

    def learn(
        self,
        examples: Sequence[tuple[str | bytes | Path, str]],
        model: str | None = None,
        settings: Mapping[str, Json] | None = None,
    ) -> Job:
        """Queue a job: a classifier learns these inputs (as in `predict`) with their labels. See `wait`."""
        return self._send(_learn(examples, model, settings))

    def train(
        self,
        promote: Promote = "if_better",
        settings: Mapping[str, Json] | None = None,
        eval_share: float = 0.1,
        tolerance: float = 0.001,
        min_events: int = 100,
    ) -> Job:
        """Queue a job: the click model is trained anew on its log and the events of the service. See `wait`."""
        return self._send(_train(promote, settings, eval_share, tolerance, min_events))

    def calibrate(
        self, promote: Promote = "if_better", eval_share: float = 0.1, tolerance: float = 0.0, min_events: int = 100
    ) -> Job:
        """Queue a job: the click model's calibration is fitted anew on the service's events of new items. See `wait`."""
        return self._send(_calibrate(promote, eval_share, tolerance, min_events))

    def replay(self, version: str) -> Job:
        """Queue a job: a version of the click model gets the items and events that it lacks. See `wait`."""
        return self._send(_new_job({"kind": "replay", "version": version}))

    def job(self, job_id: str) -> Job:
        """A job as it is now."""
        return self._send(_job("GET", job_id))

    def jobs(self, limit: int = 100) -> list[Job]:
        """The newest jobs, newest first."""
        return self._send(_Request("GET", "/jobs", JobList, params={"limit": limit})).jobs

    def cancel(self, job_id: str) -> Job:
        """Cancel a job that has not ended. See `wait`."""
        return self._send(_job("DELETE", job_id))

    def wait(self, job_id: str, every_seconds: float = 1.0) -> Job:
        """A job when it has ended: done, failed or cancelled."""
        while (found := self.job(job_id)).status not in ENDED:
            time.sleep(every_seconds)
        return found

    def models(self) -> ModelList:
        """Versions of the click model, and stages of the classifiers."""
        return self._send(_Request("GET", "/models", ModelList))

    def change_models(
        self,
        live: str | None = None,
        shares: Mapping[str, float] | None = None,
        shadow: Sequence[str] | None = None,
        retire: Sequence[str] = (),
    ) -> ModelList:
        """Change which versions of the click model score, for whom; what is None stays as it is."""
        return self._send(_change_models(live, shares, shadow, retire))

    def roll_back(self, stages: int | None, model: str | None = None) -> ModelList:
        """Serve a classifier after its first `stages` stages; None: after all."""
        return self._send(_Request("POST", "/models", ModelList, {"model": model, "stages": stages}))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, request: _Request[T]) -> T:
        for attempt in range(self._policy.retries + 1):
            try:
                response = self._http.request(request.method, request.path, json=request.json, params=request.params)
            except httpx.TransportError as error:
                pause = self._policy.pause(attempt, None)
                if pause is None:
                    raise ServiceError(f"{self._http.base_url}: no answer ({error})") from None
            else:
                pause = self._policy.pause(attempt, response)
                if response.is_success or pause is None:
                    return self._policy.result(request, response)
            time.sleep(pause)
        raise AssertionError  # the last attempt has returned or raised


class AsyncClient:
    """`Client`, asynchronous."""

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 10.0, retries: int = 4) -> None:
        self._policy = _Policy(url, token, timeout, retries)
        self._http = httpx.AsyncClient(**self._policy.options)

    async def add(self, items: Sequence[Row], replace: bool = True) -> AddedItems:
        return await self._send(_add(items, replace))

    async def score(
        self,
        user: Row,
        context: Row,
        candidates: Sequence[str | int | Row],
        on_unknown: OnUnknown = "error",
        uncertainty: bool = False,
        explore: Explore | None = None,
        strength: float = 1.0,
        epsilon: float = 0.0,
    ) -> Scores:
        return await self._send(_score(user, context, candidates, on_unknown, uncertainty, explore, strength, epsilon))

    async def warm(self, events: Sequence[Row]) -> Counts:
        return await self._send(_warm(events))

    async def forget(self, item: str) -> None:
        await self._send(_item("DELETE", item, _Empty))

    async def forget_user(self, user: str | int) -> Forgotten:
        return await self._send(_forget_user(user))

    async def item(self, item: str) -> ItemDetails:
        return await self._send(_item("GET", item, ItemDetails))

    async def items(self, phase: str | None = None) -> list[str]:
        """Ids of all items, or of those of a phase, in order."""
        found, after = list[str](), ""
        while True:
            page = await self._send(_page(phase, after))
            found += [item.item_id for item in page.items]
            if page.next is None:
                return found
            after = page.next

    async def predict(
        self, inputs: Sequence[str | bytes | Path], top: int = 3, reject: float | None = None, model: str | None = None
    ) -> Classifications:
        return await self._send(_predict(inputs, top, reject, model))

    async def classes(self, model: str | None = None) -> ClassList:
        return await self._send(_Request("GET", "/classes", ClassList, params=_named(model)))

    async def learn_names(self, names: Sequence[str] | Mapping[str, str], model: str | None = None) -> ClassList:
        return await self._send(_learn_names(names, model))

    async def forget_class(self, name: str, model: str | None = None) -> None:
        await self._send(_forget_class(name, model))

    async def learn(
        self,
        examples: Sequence[tuple[str | bytes | Path, str]],
        model: str | None = None,
        settings: Mapping[str, Json] | None = None,
    ) -> Job:
        return await self._send(_learn(examples, model, settings))

    async def train(
        self,
        promote: Promote = "if_better",
        settings: Mapping[str, Json] | None = None,
        eval_share: float = 0.1,
        tolerance: float = 0.001,
        min_events: int = 100,
    ) -> Job:
        return await self._send(_train(promote, settings, eval_share, tolerance, min_events))

    async def calibrate(
        self, promote: Promote = "if_better", eval_share: float = 0.1, tolerance: float = 0.0, min_events: int = 100
    ) -> Job:
        return await self._send(_calibrate(promote, eval_share, tolerance, min_events))

    async def replay(self, version: str) -> Job:
        return await self._send(_new_job({"kind": "replay", "version": version}))

    async def job(self, job_id: str) -> Job:
        return await self._send(_job("GET", job_id))

    async def jobs(self, limit: int = 100) -> list[Job]:
        return (await self._send(_Request("GET", "/jobs", JobList, params={"limit": limit}))).jobs

    async def cancel(self, job_id: str) -> Job:
        return await self._send(_job("DELETE", job_id))

    async def wait(self, job_id: str, every_seconds: float = 1.0) -> Job:
        while (found := await self.job(job_id)).status not in ENDED:
            await asyncio.sleep(every_seconds)
        return found

    async def models(self) -> ModelList:
        return await self._send(_Request("GET", "/models", ModelList))

    async def change_models(
        self,
        live: str | None = None,
        shares: Mapping[str, float] | None = None,
        shadow: Sequence[str] | None = None,
        retire: Sequence[str] = (),
    ) -> ModelList:
        return await self._send(_change_models(live, shares, shadow, retire))

    async def roll_back(self, stages: int | None, model: str | None = None) -> ModelList:
        return await self._send(_Request("POST", "/models", ModelList, {"model": model, "stages": stages}))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(self, request: _Request[T]) -> T:
        for attempt in range(self._policy.retries + 1):
            try:
                response = await self._http.request(
                    request.method, request.path, json=request.json, params=request.params
                )
            except httpx.TransportError as error:
                pause = self._policy.pause(attempt, None)
                if pause is None:
                    raise ServiceError(f"{self._http.base_url}: no answer ({error})") from None
            else:
                pause = self._policy.pause(attempt, response)
                if response.is_success or pause is None:
                    return self._policy.result(request, response)
            await asyncio.sleep(pause)
        raise AssertionError  # the last attempt has returned or raised


def _add(items: Sequence[Row], replace: bool) -> _Request[AddedItems]:
    return _Request("POST", "/items", AddedItems, {"items": [dict(item) for item in items], "replace": replace})


def _score(
    user: Row,
    context: Row,
    candidates: Sequence[str | int | Row],
    on_unknown: OnUnknown,
    uncertainty: bool,
    explore: Explore | None,
    strength: float,
    epsilon: float,
) -> _Request[Scores]:
    given = [dict(one) if isinstance(one, Mapping) else one for one in candidates]
    options: dict[str, Json] = {"on_unknown": on_unknown, "uncertainty": uncertainty}
    if explore is not None or strength != 1 or epsilon:
        options |= {"explore": explore, "strength": strength, "epsilon": epsilon}
    return _Request("POST", "/score", Scores, {**user, "context": dict(context), "candidates": given, **options})


def _item(method: str, item: str, answer: type[T]) -> _Request[T]:
    """Ids are sent by name: a path loses `.` and `..`, and a proxy may change its slashes."""
    return _Request(method, "/items", answer, params={"item_id": item})


def _forget_user(user: str | int) -> _Request[Forgotten]:
    return _Request("DELETE", "/users", Forgotten, params={"user_id": str(user)})


def _forget_class(name: str, model: str | None) -> _Request[_Empty]:
    return _Request("DELETE", "/classes", _Empty, params={"name": name, **(_named(model) or {})})


def _learn_names(names: Sequence[str] | Mapping[str, str], model: str | None) -> _Request[ClassList]:
    if isinstance(names, str):
        raise DataError(f"names = {names!r}: one text; give a list of names, or a dict of descriptions by name")
    pairs = names.items() if isinstance(names, Mapping) else ((name, "") for name in names)
    classes = [{"name": name, "description": text} for name, text in pairs]
    return _Request("POST", "/classes", ClassList, {"classes": classes}, _named(model))


def _warm(events: Sequence[Row]) -> _Request[Counts]:
    has_id = (EVENT_ID, REQUEST_ID)
    rows = [
        dict(event) if any(event.get(name) is not None for name in has_id) else {**event, EVENT_ID: uuid.uuid4().hex}
        for event in events
    ]
    return _Request("POST", "/events", Counts, {"events": rows})


def _page(phase: str | None, after: str) -> _Request[ItemPage]:
    params = {"limit": 1000} | ({"phase": phase} if phase else {}) | ({"after": after} if after else {})
    return _Request("GET", "/items", ItemPage, params=params)


def _predict(
    inputs: Sequence[str | bytes | Path], top: int, reject: float | None, model: str | None
) -> _Request[Classifications]:
    body = {"inputs": [_text(one) for one in inputs], "top": top, "reject": reject}
    return _Request("POST", "/classify", Classifications, body, _named(model))


def _learn(
    examples: Sequence[tuple[str | bytes | Path, str]], model: str | None, settings: Mapping[str, Json] | None
) -> _Request[Job]:
    given = [{"input": _text(one), "label": label} for one, label in examples]
    return _new_job({"kind": "learn", "model": model, "examples": given, "settings": dict(settings or {})})


def _train(
    promote: Promote, settings: Mapping[str, Json] | None, eval_share: float, tolerance: float, min_events: int
) -> _Request[Job]:
    body = {
        "promote": promote,
        "settings": dict(settings or {}),
        "eval_share": eval_share,
        "tolerance": tolerance,
        "min_events": min_events,
    }
    return _new_job({"kind": "train", **body})


def _calibrate(promote: Promote, eval_share: float, tolerance: float, min_events: int) -> _Request[Job]:
    body = {"promote": promote, "eval_share": eval_share, "tolerance": tolerance, "min_events": min_events}
    return _new_job({"kind": "calibrate", **body})


def _new_job(body: Mapping[str, Json]) -> _Request[Job]:
    return _Request("POST", "/jobs", Job, {**body, "key": uuid.uuid4().hex})  # sent again it is the same job


def _job(method: str, job_id: str) -> _Request[Job]:
    return _Request(method, f"/jobs/{quote(job_id, safe='')}", Job)


def _change_models(
    live: str | None, shares: Mapping[str, float] | None, shadow: Sequence[str] | None, retire: Sequence[str]
) -> _Request[ModelList]:
    body = {"live": live, "shares": shares, "shadow": shadow, "retire": list(retire)}
    return _Request("POST", "/models", ModelList, body)


def _text(one: str | bytes | Path) -> str:
    """A text as it is; an image, a path or the content of a file, in base64."""
    content = one.read_bytes() if isinstance(one, Path) else one
    return base64.b64encode(content).decode() if isinstance(content, bytes) else content


def _named(model: str | None) -> dict[str, str] | None:
    return None if model is None else {"model": model}
