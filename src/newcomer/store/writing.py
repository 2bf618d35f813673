"""Files that appear whole or not at all, and are never written through a link that somebody else laid."""

import errno
import json
import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock

CANNOT_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system answers that has no fsync, as some over a network do."""
CANNOT_SYNC_FOLDERS = CANNOT_SYNC | {errno.EACCES, errno.EPERM, errno.EISDIR, errno.EBADF, errno.ENOENT}
"""What it answers where only files can be fsynced: Windows, SMB, FUSE."""
CANNOT_LOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


def write_whole(path: Path, content: bytes | str) -> None:
    """The file appears with all its bytes on disk, or not at all; text as UTF-8.

    What lies at its temporary name is replaced and, where it is a link, not followed. Raises OSError when the disk refuses.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.unlink(missing_ok=True)  # of a process that was killed; a link goes, and what it names stays
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666), "wb") as file:
            file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
            file.flush()
            sync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def to_json(content: Any, **form: Any) -> str:
    r"""JSON that is read as it was written, names of other scripts as they are, and what UTF-8 cannot say as its escape.

    >>> to_json(["\udcff.png", "größer"]) == r'["\udcff.png", "größer"]'
    True
    """
    return json.dumps(content, ensure_ascii=False, **form).encode("utf-8", "backslashreplace").decode("utf-8")


def sync(file: int) -> None:
    """Bring an open file to the disk, where the file system can; what cannot be written is an OSError all the same."""
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk, where the file system can. Raises OSError where it tried and failed."""
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
    """A lock on this file, taken; where the file system has no locks, the file's presence is one. The caller releases it.

    `reentrant`: this process may take it again while it has it.
    Raises filelock.Timeout where another process has it, OSError where it cannot be made.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "its lock is a link; remove it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a lock is one of the second kind
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
