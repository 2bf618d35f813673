"""Where data lies: as given, under `$NEWCOMER_DATA`, or under `data/` here."""

import os
from pathlib import Path

from newcomer.errors import DataError


def roots() -> list[Path]:
    """The folders in which a relative path is looked for, first come first served."""
    named = os.environ.get("NEWCOMER_DATA")
    return [Path(), *([Path(named)] if named else []), Path("data")]


def find(path: str) -> Path | None:
    """The file or folder of this name, or None."""
    found = (root / path for root in roots())
    return next((place for place in found if place.exists()), None)


def locate(path: str, what: str, get: str) -> Path:
    """The file or folder of this name.

    Raises DataError that says where it was looked for, and by `get` what to download from where, and how to lay it out.
    """
    place = find(path)
    if place is None:
        tried = ", ".join(str(root / path) for root in roots())
        raise DataError(f"{what} not found at {tried}; {get}")
    return place


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder; not so, too, where none can have this name, as a long text.

    >>> is_there(Path("card " * 100))
    False
    """
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
