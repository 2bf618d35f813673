"""Tokens with roles, and limits per client."""

import hmac
import os
import re
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from http import HTTPStatus
from math import ceil
from pathlib import Path
from threading import Lock
from typing import Any

from fastapi import Request

from newcomer.errors import SettingError
from newcomer.server.problems import ProblemError

MIN_LENGTH = 16
"""Minimum number of characters of a token."""

TOKENS = "NEWCOMER_TOKENS"
"""Environment variable with tokens, beside those of a file."""

COOKIE = "newcomer_token"
"""Cookie with the token of a browser."""

LOCAL_NAME = re.compile(r"(\[[0-9a-fA-F:.]+\]|\d+(\.\d+){3}|[\w-]*)\.?(:\d+)?", re.ASCII)
"""Host of a request: an address, or a name without a dot, such as localhost or that of a container."""

MAX_CLIENTS = 10_000
"""Clients whose rates are remembered; beyond it the oldest are dropped."""


class Role(IntEnum):
    """What a token allows; a higher role includes the lower ones."""

    READ = 1
    WRITE = 2
    ADMIN = 3


def read_tokens(file: Path | None, environment: Mapping[str, str] = os.environ) -> dict[str, Role] | None:
    """Tokens of a file and of the variable `TOKENS`: one `role token` a line (role: read, write or admin); empty lines and lines
    with # are skipped. None without both.

    Raises SettingError, with the line, for anything else, and for a file without tokens. Messages never contain a token.
    """
    sources = {TOKENS: environment[TOKENS]} if TOKENS in environment else {}
    if file is not None:
        try:
            sources[str(file)] = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'})") from None
    if not sources:
        return None
    found: dict[str, Role] = {}
    for where, text in sources.items():
        for token, role in _parsed(where, text):
            if found.setdefault(token, role) != role:
                raise SettingError(
                    f"{where}: a token has the role '{role.name.lower()}', and another one before; give one"
                )
    return found


def _parsed(where: str, text: str) -> list[tuple[str, Role]]:
    found = list[tuple[str, Role]]()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        role, _, token = line.strip().partition(" ")
        token = token.strip()
        if role.upper() not in Role.__members__ or not token or " " in token:
            raise SettingError(f"{where}: line {number} is not 'ROLE TOKEN'; ROLE is read, write or admin")
        if len(token) < MIN_LENGTH:
            raise SettingError(
                f"{where}: the token in line {number} has fewer than {MIN_LENGTH} characters; make a longer one"
            )
        if not (token.isascii() and token.isprintable()):
            raise SettingError(
                f"{where}: the token in line {number} has a character that no HTTP header can carry; write letters and digits"
            )
        found.append((token, Role[role.upper()]))
    if not found:
        raise SettingError(f"{where}: holds no token; write lines such as: write TOKEN")
    return found


@dataclass
class RateLimit:
    """Token bucket per client: `rate` requests per second, bursts of twice as many."""

    rate: float | None
    clock: Callable[[], float] = time.monotonic
    _level: dict[str, tuple[float, float]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def take(self, client: str) -> bool:
        """Whether this request of the client is within the rate.

        >>> limit = RateLimit(1, clock=lambda: 0.0)
        >>> [limit.take("a") for _ in range(3)], limit.take("b")
        ([True, True, False], True)
        """
        if self.rate is None:
            return True
        now, burst = self.clock(), max(2 * self.rate, 1.0)
        with self._lock:
            level, then = self._level.pop(client, (burst, now))
            level = min(burst, level + (now - then) * self.rate)
            allowed = level >= 1
            self._level[client] = (level - allowed, now)
            if len(self._level) > MAX_CLIENTS:
                del self._level[next(iter(self._level))]
        return allowed


def _require_local_name(request: Request) -> None:
    """Raises ProblemError (403) for a request to a domain's name: a site may have given its name this machine's address, to be let
    in by a browser here (DNS rebinding). Addresses, and names without a dot, are nobody's domain."""
    host = request.headers.get("host", "")
    if LOCAL_NAME.fullmatch(host) is None:
        raise ProblemError(
            HTTPStatus.FORBIDDEN,
            f"without tokens this service is not answering under the name {host!r}; ask localhost, or start it with tokens",
        )


class Guard:
    """Checks the role and rate of requests. Without tokens every request is allowed."""

    def __init__(self, tokens: Mapping[str, Role] | None, rate: float | None) -> None:
        self._tokens = tokens if tokens is None else {token.encode(): role for token, role in tokens.items()}
        self._limit = RateLimit(rate)

    def requires(self, role: Role) -> Callable[[Request], Coroutine[Any, Any, None]]:
        """A dependency of a route that needs this role."""

        async def check(request: Request) -> None:
            client = self._client(request, role)
            if not self._limit.take(client):
                raise ProblemError(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    f"more than {self._limit.rate:g} requests per second; wait",
                    headers={"Retry-After": str(max(1, ceil(1 / self._limit.rate)))} if self._limit.rate else None,
                )

        return check

    async def has_local_name(self, request: Request) -> None:
        """A dependency of a route without a role. Raises ProblemError (403) for a foreign name of a service without tokens."""
        if self._tokens is None:
            _require_local_name(request)

    @property
    def has_tokens(self) -> bool:
        """Whether requests need a token."""
        return self._tokens is not None

    def knows(self, token: str) -> bool:
        """Whether this is a token."""
        return self._tokens is None or any(hmac.compare_digest(known, token.encode()) for known in self._tokens)

    def allows(self, request: Request, role: Role) -> bool:
        """Whether the request may do what this role may."""
        try:
            self._client(request, role)
        except ProblemError:
            return False
        return True

    def _client(self, request: Request, role: Role) -> str:
        """Token or address of the request. Raises ProblemError (401, 403) if it may not do this."""
        if self._tokens is None:
            _require_local_name(request)
            return request.client.host if request.client else ""
        header = request.headers.get("authorization") or f"Bearer {request.cookies.get(COOKIE, '')}"
        kind, _, token = header.partition(" ")
        given = token.strip().encode()
        granted = [known for known in self._tokens if hmac.compare_digest(known, given)]  # all are compared
        if kind.lower() != "bearer" or not granted:
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED,
                "no valid token; send the header Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if self._tokens[granted[0]] < role:
            raise ProblemError(HTTPStatus.FORBIDDEN, f"this token does not have the role '{role.name.lower()}'")
        return granted[0].decode()
