"""Files of object stores, the Hugging Face hub and web servers, copied to this machine when they are first read.

A copy serves every format, every pass and the fingerprint alike. Credentials come from the environment only.
"""

import atexit
import errno
import hashlib
import os
import re
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlsplit

from newcomer.errors import DataError
from newcomer.extras import optional_imports

SECONDS = 30
"""Longest wait for an answer; afterwards it is tried again."""
ATTEMPTS = 3

URL = re.compile(r"(s3|gs|az|hf|https?):/{1,2}(?=[^/])", re.IGNORECASE)
"""Beginning of a URL; a `Path` of one has lost a slash."""

HELP = {
    "s3": "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, or AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "hf": "set HF_TOKEN if it is private",
    "http": "check the address",
    "https": "check the address",
}
"""What to do about an error, by scheme."""


DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

CHANGED = "{}: has changed since it was listed; start again when nothing writes to it"

_LOCK = Lock()
"""Of the copies: a file is fetched once, whichever thread asks first."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of another machine; `version` changes with its content."""

    url: str
    size: int
    version: str

    def __str__(self) -> str:
        return self.url.partition("?")[0]  # a signed address has its signature behind it

    @property
    def name(self) -> str:
        return unquote(PurePosixPath(str(self)).name)

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(str(self).split("/"))


LogFile = Path | RemoteFile


def remote_url(source: str | Path) -> str | None:
    """The source as a URL if it is one.

    >>> remote_url(Path("s3://bucket/clicks"))
    's3://bucket/clicks'
    >>> remote_url("clicks.csv") is None
    True

    Raises DataError for a URL with a password.
    """
    text = str(source)
    if (found := URL.match(text)) is None:
        return None
    url = f"{found[1].lower()}://{text[found.end() :]}"
    if found[1].lower().startswith("http") and "@" in urlsplit(url).netloc:
        raise DataError(f"{found[1]}://…@…: has credentials in the address; give them by the environment only")
    return url


def remote_files(url: str) -> list[RemoteFile]:
    """All files below this URL, which names a file or a folder. Raises DataError if it cannot be read."""
    scheme = url.partition(":")[0]
    with _remote_errors(url):
        return _LISTERS[scheme](url)


def local(file: LogFile) -> Path:
    """The file on this machine: itself, or a copy that lives as long as this process."""
    if isinstance(file, Path):
        return file
    path = _copy_path(f"{file.url}\0{file.version}\0{file.size}")
    with _LOCK:
        if not path.exists():
            part = path.with_suffix(".part")
            with _remote_errors(file.url):
                _FETCHERS[file.url.partition(":")[0]](file, part)
                if part.stat().st_size != file.size:
                    raise DataError(CHANGED.format(file))
            part.replace(path)
    return path


def _copy_path(key: str) -> Path:
    return _folder(os.getpid()) / hashlib.sha256(key.encode()).hexdigest()


@cache
def _folder(process: int) -> Path:
    """Folder of the copies of a process, deleted when it ends, but not when a fork of it does."""
    folder = Path(tempfile.mkdtemp(prefix="newcomer-remote-"))
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == process else None)
    return folder


@contextmanager
def _remote_errors(url: str) -> Iterator[None]:
    """Context that converts what a client raises to a DataError of one line; every client has errors of its own."""
    try:
        yield
    except (DataError, ImportError):
        raise
    except Exception as error:
        shown, scheme = url.partition("?")[0], url.partition(":")[0]
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise DataError(
                f"{shown}: cannot be copied to {tempfile.gettempdir()} ({error.strerror}); make room, or set TMPDIR"
            ) from None
        reason = _reason(error)
        raise DataError(f"{shown}: cannot be read ({reason}); {HELP[scheme]}") from None


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    code = re.search(r"<Code>(\w+)</Code>", text)
    return code[1] if code else text.partition("Debug source")[0].strip()[:160]


def _store(url: str) -> tuple[Any, str, str]:
    """Object store of a URL, the URL of its bucket, and the key."""
    with optional_imports():
        from obstore.store import from_url
    parts = urlsplit(url)
    bucket = f"{parts.scheme}://{parts.netloc}"
    options: Any = {  # the time without an answer is limited, not that of a large file
        "connect_timeout": "5s",
        "read_timeout": f"{SECONDS}s",
        "timeout": "24h",
        "allow_http": True,
    }
    retries: Any = {"max_retries": ATTEMPTS - 1, "retry_timeout": timedelta(seconds=SECONDS)}
    return from_url(bucket, client_options=options, retry_config=retries), bucket, url.removeprefix(bucket).strip("/")


def _list_objects(url: str) -> list[RemoteFile]:
    store, bucket, key = _store(url)
    import obstore

    found = [entry for page in obstore.list(store, prefix=key or None) for entry in page]
    if not found and key:  # a prefix ends where a folder does: a file is asked for by its name
        try:
            found = [obstore.head(store, key)]
        except FileNotFoundError:
            found = []
    return [RemoteFile(f"{bucket}/{entry['path']}", entry["size"], _version(entry)) for entry in found]


def _version(entry: Any) -> str:
    return str(entry["e_tag"] or entry["last_modified"].isoformat())


def _fetch_object(file: RemoteFile, target: Path) -> None:
    store, _, key = _store(file.url)
    import obstore

    found = obstore.get(store, key)
    if file.version != _version(found.meta):
        raise DataError(CHANGED.format(file))
    with target.open("wb") as stream:
        for block in found.stream():
            stream.write(block)


def _list_hub(url: str) -> list[RemoteFile]:
    from huggingface_hub import HfFileSystem

    found: Any = HfFileSystem().find(url.removeprefix("hf://"), detail=True)
    return [RemoteFile(f"hf://{name}", entry["size"], entry["blob_id"]) for name, entry in found.items()]


def _fetch_hub(file: RemoteFile, target: Path) -> None:
    from huggingface_hub import HfFileSystem

    HfFileSystem().get_file(file.url.removeprefix("hf://"), str(target))


def _list_web(url: str) -> list[RemoteFile]:
    path = _download(url)
    with path.open("rb") as stream:
        return [RemoteFile(url, path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest())]


def _fetch_web(file: RemoteFile, target: Path) -> None:
    target.hardlink_to(_download(file.url))


def _download(url: str) -> Path:
    """A web server lists nothing and need not name a version, so the file itself is fetched, once a process."""
    path = _copy_path(url)
    for attempt in range(1, ATTEMPTS + 1):
        if path.exists():
            break
        part = path.with_suffix(".part")
        try:
            with urllib.request.urlopen(url, timeout=SECONDS) as answer, part.open("wb") as stream:
                shutil.copyfileobj(answer, stream)
                length = answer.headers["Content-Length"]
            if length is not None and part.stat().st_size != int(length):
                raise OSError(f"{part.stat().st_size} of {length} bytes arrived")
            part.replace(path)
        except OSError as error:
            refused = False
            if isinstance(error, urllib.error.HTTPError):
                error.close()
                refused = error.code < 500
            if refused or attempt == ATTEMPTS:
                raise
    return path


_LISTERS: dict[str, Callable[[str], list[RemoteFile]]] = {
    **dict.fromkeys(("s3", "gs", "az"), _list_objects),
    **dict.fromkeys(("http", "https"), _list_web),
    "hf": _list_hub,
}

_FETCHERS: dict[str, Callable[[RemoteFile, Path], None]] = {
    **dict.fromkeys(("s3", "gs", "az"), _fetch_object),
    **dict.fromkeys(("http", "https"), _fetch_web),
    "hf": _fetch_hub,
}
