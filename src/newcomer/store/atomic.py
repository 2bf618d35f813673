"""Files that appear with all their bytes or not at all, on whatever a user's disk is.

What is written goes to a new file of a random name beside the one that is meant and takes its place at the end: a link that
somebody laid there is replaced, never written through. Some disks (Windows, SMB, FUSE) refuse to flush a folder, or know no flushing at
all: there a file is as safe as the disk makes it, and saving works. A disk that is full or broken still says so.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

PART = ".part"
NO_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""What a disk says that cannot flush; anything else is a file that is lost."""
NO_FOLDER_FLUSH = NO_FLUSH | {errno.EACCES, errno.EPERM, errno.EISDIR, errno.EBADF, errno.ENOTTY}


def write_atomically(path: Path, content: bytes) -> None:
    """The file appears with all its bytes on disk, or not at all.

    Raises OSError where the disk refuses.
    """
    with replacing(path) as part, part.open("xb") as file:  # x: never a file or link that is there
        file.write(content)
        flush(file.fileno())
    flush_folder(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to that nothing has; what was written takes the place of `path` at the end, and is gone after an error."""
    part = path.with_name(f"{path.name}.{token_hex(8)}{PART}")
    try:
        yield part
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def remove_parts(path: Path) -> None:
    """Remove what a kill left half-written of this file; only for who may write it alone."""
    for file in path.parent.iterdir() if path.parent.is_dir() else ():
        if file.name.startswith(path.name + ".") and file.name.endswith(PART):
            file.unlink(missing_ok=True)


def flush(file: int) -> None:
    """Put the bytes of an open file on disk, as far as the disk can."""
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in NO_FLUSH:
            raise


def flush_folder(folder: Path) -> None:
    """Put the names in a folder on disk, as far as the disk and the system can."""
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno not in NO_FOLDER_FLUSH:  # Windows opens no folder
            raise
        return
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in NO_FOLDER_FLUSH:
            raise
    finally:
        os.close(opened)
