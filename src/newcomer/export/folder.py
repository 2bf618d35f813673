"""A folder that appears whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from safetensors import SafetensorError

from newcomer.errors import StoreError


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to write into, beside `folder`, whose name it takes at the end.

    Raises StoreError where `folder` is there already and not empty, or the disk refuses.
    """
    folder = Path(folder).absolute()
    part = folder.with_name(f".{folder.name}.{token_hex(4)}.part")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StoreError(f"{folder}: is not an empty folder; export to a new one")
        part.mkdir(parents=True)
        yield part
        part.replace(folder)
    except (OSError, SafetensorError) as error:  # the second is what a full disk is to those who write tensors
        reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
        raise StoreError(f"{folder}: could not be written ({reason}); nothing was changed") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
