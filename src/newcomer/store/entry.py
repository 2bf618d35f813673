"""What a store holds of a stage: what the stage added, and the learner's state after it."""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from safetensors import SafetensorError
from safetensors.torch import load as read_safetensors
from torch import Tensor

from newcomer.errors import StoreError
from newcomer.settings import Json
from newcomer.store.tensor_files import sha256_of, write_file
from newcomer.store.writing import to_json

MEMORY_LIMIT = 2**24
"""Bytes of earlier states that are kept in memory."""


@dataclass(frozen=True)
class Entry:
    """What one stage added to a learner, tensors and JSON information, and what the learner is after it.

    The additions of all stages and the last state determine a learner. Earlier states are those that it can go back to.
    """

    name: str
    tensors: Mapping[str, Tensor]
    info: Mapping[str, Json] = field(default_factory=dict)
    state: Mapping[str, Tensor] | None = field(default_factory=dict)
    """Empty for a learner that is the sum of its stages' additions; None for a state that is no longer kept."""

    def write(self, path: Path) -> None:
        """Write the file of what the stage added."""
        vars(self)["sha256"] = write_file(self.tensors, path, self._metadata)

    @cached_property
    def sha256(self) -> str:
        """Digest of what the stage added."""
        return sha256_of(self.tensors, self._metadata)

    @cached_property
    def state_sha256(self) -> str:
        """Digest of the state."""
        return self.state.sha256 if isinstance(self.state, StoredState) else sha256_of(self.state or {})

    @property
    def _metadata(self) -> dict[str, str]:
        return {"info": to_json(dict(self.info), sort_keys=True)}

    @classmethod
    def read(cls, name: str, path: Path, digest: str, state: Mapping[str, Tensor] | None) -> Self:
        """The entry whose additions are in this file. Raises StoreError if it has not this digest."""
        content = read_checked(path, digest)
        try:
            (length,) = struct.unpack("<Q", content[:8])
            info = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["info"])
            tensors = read_safetensors(content)
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, struct.error) as error:
            raise StoreError(f"{path}: not a stage of a store ({reason(error)})") from None
        if not isinstance(info, dict):
            raise StoreError(f"{path}: not a stage of a store (its info is no table)")
        entry = cls(name, tensors, info, state)
        vars(entry)["sha256"] = digest  # what `sha256` would compute
        return entry

    def without_state(self) -> "Entry":
        """Without the state."""
        entry = replace(self, state=None)
        vars(entry)["sha256"] = self.sha256
        return entry


class StoredState(Mapping[str, Tensor]):
    """A state in a file, which is read and checked against its digest when it is used.

    Raises StoreError if the file is missing or has another digest.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self.sha256 = path, digest

    @property
    def is_there(self) -> bool:
        """Whether it was read, or its file is there."""
        return "_tensors" in vars(self) or self.path.exists()

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        try:
            return read_safetensors(read_checked(self.path, self.sha256))
        except SafetensorError as error:
            raise StoreError(f"{self.path}: not a state of a store ({reason(error)})") from None

    def __getitem__(self, key: str) -> Tensor:
        return self._tensors[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def kept_states(sizes: Sequence[int | None], limit: int) -> list[bool]:
    """Which states to keep, given their sizes in bytes (None: already gone): the last, and at most `limit` bytes of earlier ones.

    Of the earlier ones the second last is kept if it fits; then they are thinned out where they are closest.

    >>> kept_states([4, 4, 4, 4, 4, 4, 4], 12)
    [False, True, False, True, False, True, True]
    >>> kept_states([9, None, 9], 8)
    [False, False, True]
    """
    kept = [k for k, size in enumerate(sizes) if size is not None]
    while len(kept) > 1 and sum(sizes[k] or 0 for k in kept[:-1]) > limit:
        before = [-1, *kept]
        gaps = [kept[i + 1] - before[i] for i in range(len(kept) - 2)]
        kept.pop(gaps.index(min(gaps)) if gaps else 0)
    return [k in kept for k in range(len(sizes))]


def within_memory(entries: list[Entry]) -> list[Entry]:
    """The entries, without earlier states that exceed `MEMORY_LIMIT`."""
    sizes = [_bytes_in_memory(entry) for entry in entries]
    return [
        entry if keep or size is None else entry.without_state()
        for entry, size, keep in zip(entries, sizes, kept_states(sizes, MEMORY_LIMIT), strict=True)
    ]


def sha256(content: bytes) -> str:
    """Digest of a file's content."""
    return hashlib.sha256(content).hexdigest()


def read_checked(path: Path, digest: str) -> bytes:
    """Content of a file with this digest. Raises StoreError for another one."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); restore the folder from a copy") from None
    if sha256(content) != digest:
        raise StoreError(f"{path}: its bytes are not those that were written (checksum); restore it from a copy")
    return content


def reason(error: Exception) -> str:
    """First line of an error's message."""
    if isinstance(error, KeyError):
        return f"no '{error.args[0]}'"
    return (str(error) or type(error).__name__).splitlines()[0]


def _bytes_in_memory(entry: Entry) -> int | None:
    if entry.state is None or isinstance(entry.state, StoredState):
        return None
    return sum(tensor.nbytes for tensor in entry.state.values())
