"""One writer at a time: a lock file beside what is written."""

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from newcomer.errors import StoreError

NAME = ".lock"
NO_LOCKS = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOLCK}
"""What a disk says that cannot lock a file."""


@contextmanager
def locked(folder: Path, busy: str) -> Iterator[Path]:
    """The only writer of this folder, which exists, for so long; yields the lock's file.

    Where the disk knows no locks, that the file is there is the lock. Raises StoreError with the sentence `busy` where another
    process holds it, and where the file is a link; OSError where the disk refuses.
    """
    path = (folder / NAME).absolute()
    if path.is_symlink():
        raise StoreError(f"{path}: is a link, which this library never makes; remove it")
    try:
        lock = _acquired(path)
    except Timeout:
        raise StoreError(busy) from None
    try:
        yield path
    finally:
        lock.release()


def _acquired(path: Path) -> BaseFileLock:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it goes on with the file's presence
        lock: BaseFileLock = FileLock(path, timeout=0, is_singleton=True)
        try:
            lock.acquire()
        except (OSError, NotImplementedError) as error:
            if isinstance(error, Timeout) or (isinstance(error, OSError) and error.errno not in NO_LOCKS):
                raise
            lock = SoftFileLock(path, timeout=0, is_singleton=True)
            lock.acquire()
    return lock
