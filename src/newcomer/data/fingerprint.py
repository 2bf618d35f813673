"""Fingerprint of a run's data: a digest of the file contents that detects changed files."""

import glob
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from newcomer.data.paths import find_path
from newcomer.errors import DataError
from newcomer.settings import Json

BLOCK = 1 << 22
"""Bytes per read."""
PATH_SETTINGS = ("path", "train", "test")
"""Settings of sources that are paths; the value of another, such as a column, may equal the name of an existing folder."""


def fingerprint(settings: Mapping[str, Json], known: Mapping[str, Json] | None = None) -> dict[str, Json] | None:
    """Digests of the files that a source names: `stamp` of paths, sizes and modification times, `sha256` of the contents.

    `sha256` does not depend on the location. If `known` has the same stamp, its digest is reused instead of reading the files.
    None if the source reads no files or they are not there. Raises DataError for an unreadable file.
    """
    files = [pair for key in PATH_SETTINGS for pair in _files(settings.get(key))]
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
    """Whether two fingerprints have different contents; False if one is None, as in older records."""
    return then is not None and now is not None and then["sha256"] != now["sha256"]


def _files(value: Json) -> Iterator[tuple[str, Path]]:
    """Files of a setting (path, glob pattern or folder), with their names relative to the folder."""
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _files(part)
    if not isinstance(value, str) or not value:
        return
    found: Iterable[Path] = map(Path, sorted(glob.glob(value)))  # noqa: PTH207
    for path in [*found] or [path for path in (find_path(value),) if path is not None]:
        if not path.is_dir():
            yield path.name, path
            continue
        for file in sorted(path.rglob("*")):
            if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts):
                yield file.relative_to(path).as_posix(), file


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            yield block
