"""Route class whose bodies are strict JSON: UTF-8, finite numbers, no unpaired surrogates, no key twice, limited nesting.

Parameters of the address that a route does not have are refused as well.
"""

import json
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic_core import from_json

from newcomer.errors import nearest
from newcomer.server.problems import ProblemError


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
    """Reads bodies by `JsonRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = _parameters(self.dependant)

        async def strict(request: Request) -> Response:
            for name in request.query_params:
                if name not in known:
                    detail = f"is no parameter here; {nearest(name, known) if known else 'there is none'}"
                    raise ProblemError(
                        HTTPStatus.UNPROCESSABLE_ENTITY,
                        f"query:/{name}: {detail}",
                        [{"pointer": f"query:/{name}", "detail": detail}],
                    )
            return await handle(JsonRequest(request.scope, request.receive))

        return strict


def _parameters(dependant: Dependant) -> list[str]:
    """Names of the parameters in the address that a route or what it depends on has."""
    found = [field.alias for field in dependant.query_params]
    return found + [name for one in dependant.dependencies for name in _parameters(one)]
