"""Files that are written block by block have the bytes of `safetensors`."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from newcomer.store.tensor_files import DTYPES, file_blocks, save_file, sha256_of, write_file

TENSORS = {
    f"{kind} {shape} ä\t{n}".removeprefix("torch."): torch.arange(2 * 7 * 3)[: torch.Size(shape).numel()]
    .view(shape)
    .to(kind)
    for n, kind in enumerate(DTYPES)
    for shape in ((), (0, 3), (2, 7, 3), (5,))
}


@pytest.mark.parametrize("metadata", [None, {"info": json.dumps({"größe": "\u2028\x7f\x1f"}, ensure_ascii=False)}])
@pytest.mark.parametrize("tensors", [TENSORS, {"one": torch.randn(6, 4).T}, {}])
def test_a_file_is_the_one_of_safetensors(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None, tmp_path: Path
) -> None:
    """Whatever the types, shapes and names; and its digest is that of its bytes."""
    wanted = save(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, None if metadata is None else dict(metadata)
    )
    assert b"".join(bytes(block) for block in file_blocks(tensors, metadata)) == wanted
    digest = write_file(tensors, tmp_path / "whole", metadata)
    save_file(tensors, tmp_path / "plain", metadata)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "plain").read_bytes() == wanted
    assert digest == sha256_of(tensors, metadata) == hashlib.sha256(wanted).hexdigest()
