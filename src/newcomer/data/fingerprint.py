"""What data a run was made with: a digest over the contents of its files, so that corrected files do not pass for the old ones."""

import glob
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from newcomer.data.paths import find
from newcomer.errors import DataError
from newcomer.settings import Json

PLACES = ("path", "train", "test")
"""Settings of sources that name files; others are words, such as a column's name."""

BLOCK = 1 << 22
"""Bytes that are read at once."""
PLACES = ("path", "train", "test")
"""Settings of sources that name files; another, such as a column, may be called like a folder that happens to lie there."""


def fingerprint(settings: Mapping[str, Json], known: Mapping[str, Json] | None = None) -> dict[str, Json] | None:
    """Digests of the files that a source names: `stamp` of their places, sizes and times, `sha256` of their contents.

    Contents do not depend on where the files lie. They are read whole, but where `known` has the same stamp its digest is taken.
    None for a source that reads no files, and where they are not here. Raises DataError for one that cannot be read.
    """
    files = [pair for key in PLACES for pair in _files(settings.get(key))]
    if not files:
        return None
    try:
        stats = [(str(file.resolve()), (stat := file.stat()).st_size, stat.st_mtime_ns) for _, file in files]
        stamp = hashlib.sha256(repr(stats).encode(errors="surrogateescape")).hexdigest()
        if known is not None and known.get("stamp") == stamp:
            return dict(known)
        whole = hashlib.sha256()
        for name, file in files:
            whole.update(f"{name}\0{file.stat().st_size}\0".encode(errors="surrogateescape"))
            for block in _blocks(file):
                whole.update(block)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); make it readable") from None
    return {"stamp": stamp, "sha256": whole.hexdigest(), "files": len(files)}


def have_changed(then: Mapping[str, Json] | None, now: Mapping[str, Json] | None) -> bool:
    """Whether these are fingerprints of different contents; what has none, as of older records, cannot be told apart."""
    return then is not None and now is not None and then["sha256"] != now["sha256"]


def _files(value: Json) -> Iterator[tuple[str, Path]]:
    """Files that a setting names, by themselves, by a pattern or by their folder, each with its name below it."""
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _files(part)
    if not isinstance(value, str) or not value:
        return
    found: Iterable[Path] = map(Path, sorted(glob.glob(value)))  # noqa: PTH207
    for place in [*found] or [place for place in (find(value),) if place is not None]:
        if not place.is_dir():
            yield place.name, place
            continue
        for file in sorted(place.rglob("*")):
            if file.is_file() and not any(part.startswith(".") for part in file.relative_to(place).parts):
                yield file.relative_to(place).as_posix(), file


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            yield block
