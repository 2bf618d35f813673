"""The URL of a database of item states: which database it is, and how it is shown."""

import re

from newcomer.errors import StoreError
from newcomer.extras import optional_imports
from newcomer.store.states import ItemStates

VALKEY = ("valkey", "valkeys", "redis", "rediss")
"""Schemes of Valkey and Redis, without and with TLS."""

_ADDRESS = re.compile(r"(?:[^/?#@]*@)?(?P<shown>(?:\[[^\]@]*\]|[^/?#@:]*)(?::\d+)?(?:/[^?@]*)?)(?:\?[^@]*)?")
"""What follows `scheme://`: user and password, host, port and name, options."""


def open_states(url: str) -> ItemStates:
    """The database at this URL.

    Raises StoreError for a URL or a database that cannot be used, and MissingExtraError without its driver.
    """
    if url.partition(":")[0] in VALKEY:
        with optional_imports():
            from newcomer.store.valkey_states import ValkeyItemStates

        return ValkeyItemStates(url)
    from newcomer.store.sql_read_only import open_sql_states  # SQLAlchemy is loaded by services only

    return open_sql_states(url)


def without_secrets(url: str) -> str:
    """The URL as it may be shown, without user, password and options.

    >>> without_secrets("postgresql+psycopg://me:secret@host:5432/items?sslpassword=secret")
    'postgresql+psycopg://host:5432/items'
    >>> without_secrets("sqlite:////data/items.db"), without_secrets("postgresql://me:secret/items")
    ('sqlite:////data/items.db', 'postgresql://…')
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "…" if "@" in url else url
    if rest.startswith("/"):  # a path, without host and user
        return f"{scheme}://{rest.partition('?')[0]}"
    found = _ADDRESS.fullmatch(rest)
    return f"{scheme}://{found['shown'] if found else '…'}"


def require_clear(url: str) -> None:
    """Raises StoreError for a URL of which it is not clear where the password ends."""
    shown = without_secrets(url)
    if shown.endswith("…"):
        raise StoreError(
            f"{shown}: no URL of a database; write SCHEME://USER:PASSWORD@HOST:PORT/NAME, and @ / ? # : within a name or a "
            "password as %40 %2F %3F %23 %3A"
        )
