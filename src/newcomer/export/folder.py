"""Atomic creation of a folder."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from safetensors import SafetensorError

from newcomer.errors import StoreError


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder next to `folder`, renamed to it on success.

    Raises StoreError if `folder` exists and is not empty, or if writing fails.
    """
    folder = Path(folder).absolute()
    if not folder.name:
        raise StoreError(f"{folder}: is no folder that can be made; export to a new one")
    part = folder.with_name(f".{folder.name}.{token_hex(4)}.part")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StoreError(f"{folder}: is not an empty folder; export to a new one")
        part.mkdir(parents=True)
        yield part
        if folder.exists():
            folder.rmdir()  # Windows replaces no folder
        part.replace(folder)
    except (OSError, SafetensorError) as error:  # the latter where a disk is full
        reason = getattr(error, "strerror", None) or error
        raise StoreError(f"{folder}: could not be written ({reason}); nothing was changed") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
