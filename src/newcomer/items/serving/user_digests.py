"""Digests of users: by them a database knows whose an event is, and who is forgotten."""

import hashlib

from newcomer.data.schema import NOBODY

DIGITS = 32
"""Hexadecimal digits of a digest."""


def user_digest(user: str) -> str | None:
    """Digest of a user's canonical id; None for events of nobody in particular.

    >>> user_digest("3"), user_digest("")
    ('ef2adf8cbd41972f836a589491f96261', None)
    """
    if user == NOBODY:
        return None
    return hashlib.sha256(f"newcomer user {user}".encode(errors="surrogatepass")).hexdigest()[:DIGITS]
