"""Fingerprint of a run's data: a digest of the file contents that detects changed files."""

import glob
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from newcomer.data.io.log_files import matching_files
from newcomer.data.io.remote import LogFile, local, remote_url
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
        stats = [_stat(file) for _, file in files]
        stamp = hashlib.sha256(repr(stats).encode(errors="surrogateescape")).hexdigest()
        if known is not None and known.get("stamp") == stamp:
            return dict(known)
        whole = hashlib.sha256()
        for name, file in files:
            path = local(file)
            whole.update(f"{name}\0{path.stat().st_size}\0".encode(errors="surrogateescape"))
            for block in _blocks(path):
                whole.update(block)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); make it readable") from None
    return {"stamp": stamp, "sha256": whole.hexdigest(), "files": len(files)}


def have_changed(then: Mapping[str, Json] | None, now: Mapping[str, Json] | None) -> bool:
    """Whether two fingerprints have different contents; False if one is None, as in older records."""
    return then is not None and now is not None and then["sha256"] != now["sha256"]


def _stat(file: LogFile) -> tuple[str, int, int | str]:
    """What tells whether a file may have changed."""
    if isinstance(file, Path):
        return str(file.resolve()), (stat := file.stat()).st_size, stat.st_mtime_ns
    return file.url, file.size, file.version


def _files(value: Json) -> Iterator[tuple[str, LogFile]]:
    """Files of a setting (path, glob pattern, folder or URL), with their names relative to the folder."""
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _files(part)
    if not isinstance(value, str) or not value:
        return
    if remote_url(value):
        yield from ((_name(file, value.rstrip("/")), file) for file in matching_files(value))
        return
    found: Iterable[Path] = map(Path, sorted(glob.glob(value, recursive=True)))  # noqa: PTH207
    for path in [*found] or [path for path in (find_path(value),) if path is not None]:
        if not path.is_dir():
            yield _name(path), path
        elif "**" not in value:  # which matches the files in it too
            for file in sorted(path.rglob("*")):
                if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts):
                    yield file.relative_to(path).as_posix(), file


def _name(file: LogFile, folder: str = "") -> str:
    """The name relative to its folder if it is in this one, else that of the file and of its partitions, which are columns."""
    if folder and str(file).startswith(f"{folder}/"):
        return str(file).removeprefix(f"{folder}/")
    return "/".join([*(part for part in file.parts[:-1] if "=" in part), file.name])


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            yield block
