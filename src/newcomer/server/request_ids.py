"""Request ids of scores that carry the user and the context, signed: an event needs only the id, and nothing is stored."""

import base64
import hashlib
import hmac
import json
import os
import secrets
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from newcomer.errors import DataError, StoreError
from newcomer.settings import Json

SIGNATURE = 12
"""Bytes of the signature."""

MAX_LENGTH = 8192
MAX_CONTENT = 65536
"""Maximum number of characters of an id, and of bytes of its content."""

KEY_FILE = "service.key"
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class RequestIds:
    """Makes and reads request ids. `key` is shared by all workers.

    >>> ids = RequestIds(b"0" * 32)
    >>> made = ids.make({"user_id": "3", "device": "tv"})
    >>> ids.read(made)
    {'user_id': '3', 'device': 'tv'}
    >>> ids.read(made[:-1] + "!")
    Traceback (most recent call last):
    newcomer.errors.DataError: column 'request_id' is none of this service; score again, or give user and context
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        """With the key of this folder, which is created if there is none; several processes may do so at once.

        Raises StoreError if it cannot be written or read.
        """
        file = folder / KEY_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                with os.fdopen(
                    os.open(part := folder / f"{KEY_FILE}.{secrets.token_hex(4)}", NEW, 0o600), "wb"
                ) as stream:
                    stream.write(secrets.token_bytes(32))
                try:
                    os.link(part, file)  # of several processes one is the first
                finally:
                    part.unlink()
            return cls(file.read_bytes())
        except OSError as error:
            raise StoreError(
                f"{file}: cannot be used ({error.strerror or error}); give another folder (--folder)"
            ) from None

    def make(self, content: Mapping[str, Json]) -> str:
        """An id with this content, different each time."""
        packed = secrets.token_bytes(6) + zlib.compress(json.dumps(dict(content), separators=(",", ":")).encode(), 6)
        return base64.urlsafe_b64encode(self._sign(packed) + packed).decode().rstrip("=")

    def read(self, request_id: str) -> dict[str, Json]:
        """The content of an id. Raises DataError for one that this service did not make."""
        wrong = DataError("column 'request_id' is none of this service; score again, or give user and context")
        if len(request_id) > MAX_LENGTH:
            raise wrong
        try:
            content = base64.b64decode(request_id + "=" * (-len(request_id) % 4), altchars=b"-_", validate=True)
        except ValueError:
            raise wrong from None
        signature, packed = content[:SIGNATURE], content[SIGNATURE:]
        if not hmac.compare_digest(signature, self._sign(packed)):
            raise wrong
        found: dict[str, Json] = json.loads(zlib.decompressobj().decompress(packed[6:], MAX_CONTENT))
        return found

    def _sign(self, packed: bytes) -> bytes:
        return hmac.new(self._key, packed, hashlib.sha256).digest()[:SIGNATURE]


def joined(
    request: Mapping[str, Json], event: Mapping[str, Any], may_differ: Callable[[str, Any], bool]
) -> dict[str, Any]:
    """The event with what its request contained; null is no value.

    `may_differ`: whether an event may have this value in this column, where its request had one that is written differently. Raises
    DataError where it may not.

    >>> joined({"user_id": "3", "device": "tv"}, {"item_id": "a", "user_id": "3", "device": None}, lambda name, value: False)
    {'user_id': '3', 'device': 'tv', 'item_id': 'a'}
    >>> joined({"user_id": "3"}, {"item_id": "a", "user_id": "4"}, lambda name, value: False)
    Traceback (most recent call last):
    newcomer.errors.DataError: column 'user_id' is '4', and '3' in the request of this request_id; leave it out
    """
    had = {name: value for name, value in request.items() if value is not None}
    given = {name: value for name, value in event.items() if value is not None or name not in had}
    for name, value in given.items():
        if name in had and json.dumps(value) != json.dumps(had[name]) and not may_differ(name, value):
            raise DataError(
                f"column '{name}' is {value!r}, and {had[name]!r} in the request of this request_id; leave it out"
            )
    return {**request, **given}


def event_id(request_id: str) -> str:
    """Event id of an event that names its request: at most one event an item and request."""
    return hashlib.sha256(request_id.encode()).hexdigest()[:32]
