"""Atomic, durable file writes that do not follow symbolic links, and file locks."""

import errno
import json
import os
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock
from typing_extensions import Buffer

CANNOT_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Errors of file systems without fsync, such as some network file systems."""
CANNOT_SYNC_FOLDERS = CANNOT_SYNC | {errno.EACCES, errno.EPERM, errno.EISDIR, errno.EBADF, errno.ENOENT}
"""Errors of file systems that cannot fsync folders: Windows, SMB, FUSE."""
CANNOT_LOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


def write_whole(path: Path, content: bytes | str | Iterable[Buffer]) -> None:
    """Write a file atomically and durably; text as UTF-8, blocks one by one.

    An existing temporary file is replaced; if it is a link, it is not followed. Raises OSError if the write fails.
    """
    part = path.with_name(path.name + ".part")
    content = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    try:
        part.unlink(missing_ok=True)  # left by a killed process; a link is removed, not its target
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666), "wb") as file:
            for block in [content] if isinstance(content, bytes) else content:
                file.write(block)
            file.flush()
            sync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def to_json(content: Any, **form: Any) -> str:
    r"""JSON with non-ASCII text as it is; lone surrogates are escaped, so the text is valid UTF-8.

    >>> to_json(["\udcff.png", "größer"]) == r'["\udcff.png", "größer"]'
    True
    """
    return json.dumps(content, ensure_ascii=False, **form).encode("utf-8", "backslashreplace").decode("utf-8")


def sync(file: int) -> None:
    """fsync an open file, if the file system supports it; raises OSError for write errors."""
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise


def sync_folder(folder: Path) -> None:
    """fsync a folder, if the file system supports it. Raises OSError for other errors."""
    try:
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:
        if error.errno not in CANNOT_SYNC_FOLDERS:
            raise


def take_lock(path: Path, reentrant: bool = False) -> BaseFileLock:
    """Acquire a lock file without waiting; on file systems without locks its existence is the lock. The caller releases it.

    `reentrant`: this process may acquire it again while holding it. Raises filelock.Timeout if another process holds it, OSError
    if it cannot be created.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "its lock is a link; remove it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about falling back to SoftFileLock
        try:
            lock: BaseFileLock = FileLock(path.absolute(), timeout=0, is_singleton=reentrant)
            lock.acquire()
        except (OSError, NotImplementedError) as error:
            if isinstance(error, TimeoutError) or (isinstance(error, OSError) and error.errno not in CANNOT_LOCK):
                raise
            lock = SoftFileLock(path.with_name(path.name + ".taken").absolute(), timeout=0, is_singleton=reentrant)
            lock.acquire()
    return lock


_BINARY = getattr(os, "O_BINARY", 0)
