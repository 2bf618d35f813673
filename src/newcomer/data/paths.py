"""Data search path: as given, under `$NEWCOMER_DATA`, or under `./data/`."""

import os
from pathlib import Path

from newcomer.errors import DataError


def search_roots() -> list[Path]:
    """Folders in which a relative path is searched, in order."""
    named = os.environ.get("NEWCOMER_DATA")
    return [Path(), *([Path(named)] if named else []), Path("data")]


def find_path(path: str) -> Path | None:
    """First existing file or folder on the search path, or None."""
    candidates = (root / path for root in search_roots())
    return next((candidate for candidate in candidates if candidate.exists()), None)


def locate(path: str, what: str, get: str) -> Path:
    """Like `find_path`, for a required file.

    Raises DataError with the searched locations; `get` says what to download and how to lay it out.
    """
    found = find_path(path)
    if found is None:
        tried = ", ".join(str(root / path) for root in search_roots())
        raise DataError(f"{what} not found at {tried}; {get}")
    return found


def path_exists(path: Path) -> bool:
    """Whether the path exists; False for names that the file system rejects, such as long texts.

    >>> path_exists(Path("card " * 100))
    False
    """
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
