"""Safetensors files, written block by block: with the bytes that `safetensors` writes, and never whole in memory."""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from newcomer.store.writing import write_whole

DTYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of dtypes, in the order in which the tensors of a file lie."""

Block = bytes | memoryview


@runtime_checkable
class Sharded(Protocol):
    """A tensor whose rows are in several processes."""

    @property
    def whole_shape(self) -> tuple[int, ...]:
        """Shape of all of it."""

    def row_blocks(self) -> Iterator[Tensor]:
        """All its rows in order, some at a time."""


def file_blocks(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Iterator[Block]:
    """The content of a file of these tensors, in blocks."""
    order = list(DTYPES)
    names = sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        shape = _shape(tensors[name])
        begin, end = end, end + int(np.prod(shape, dtype=np.int64)) * tensors[name].element_size()
        header[name] = {"dtype": DTYPES[tensors[name].dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in names:
        tensor = tensors[name]
        for block in tensor.row_blocks() if isinstance(tensor, Sharded) else [tensor]:
            yield block.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def save_file(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a new file of these tensors."""
    with path.open("xb") as file:
        for block in file_blocks(tensors, metadata):
            file.write(block)


def write_file(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> str:
    """Write a file of these tensors as `write_whole` does. Returns its SHA-256."""
    digest = hashlib.sha256()

    def hashed() -> Iterator[Block]:
        for block in file_blocks(tensors, metadata):
            digest.update(block)
            yield block

    write_whole(path, hashed())
    return digest.hexdigest()


def sha256_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """The SHA-256 of a file of these tensors."""
    digest = hashlib.sha256()
    for block in file_blocks(tensors, metadata):
        digest.update(block)
    return digest.hexdigest()


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tensor.whole_shape if isinstance(tensor, Sharded) else tuple(tensor.shape)
