"""Route class whose bodies are strict JSON: UTF-8, finite numbers, no unpaired surrogates, no key twice, limited nesting.

Parameters of the address that a route does not have are refused as well.
"""

import json
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import Depends, HTTPException, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic_core import from_json

from newcomer.errors import nearest
from newcomer.server.problems import ProblemError, escaped


class JsonRequest(Request):
    """A request whose `json()` raises HTTPException (400) for anything else than strict JSON."""

    async def json(self) -> Any:
        body = await self.body()
        try:
            found = from_json(body, allow_inf_nan=False)
            json.loads(body, object_pairs_hook=_require_distinct)
        except ValueError as error:
            sent = self.headers.get("content-type", "none")
            more = "" if "json" in sent else f"; the header content-type is: {sent}"
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"the body is no JSON: {error}{more}") from None
        return found


def _require_distinct(pairs: Sequence[tuple[str, Any]]) -> None:
    """Raises ValueError for a key that is there twice."""
    if len({key for key, _ in pairs}) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key '{twice}' is there twice")


class JsonRoute(APIRoute):
    """Reads bodies by `JsonRequest`, and refuses parameters that it does not have."""

    def __init__(
        self, path: str, endpoint: Callable[..., Any], *, dependencies: Sequence[Any] | None = None, **settings: Any
    ) -> None:
        last = [one for one in dependencies or () if one.dependency is not _require_known]  # tokens come first
        super().__init__(path, endpoint, dependencies=[*last, Depends(_require_known)], **settings)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(JsonRequest(request.scope, request.receive))

        return strict


async def _require_known(request: Request) -> None:
    """Raises ProblemError for a parameter in the address that the route does not have."""
    known = _parameters(request.scope["route"].dependant)
    for name in request.query_params:
        if name not in known:
            detail = f"is no parameter here; {nearest(name, known) if known else 'there is none'}"
            pointer = f"query:/{escaped(name)}"
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"{pointer}: {detail}", [{"pointer": pointer, "detail": detail}]
            )


def _parameters(dependant: Dependant) -> list[str]:
    """Names of the parameters in the address that a route or what it depends on has."""
    found = [field.alias for field in dependant.query_params]
    return found + [name for one in dependant.dependencies for name in _parameters(one)]
