"""Digest of labelled examples, by which examples that are learned twice are noticed."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from newcomer.data.examples import Examples, Subset
from newcomer.data.inputs import EAGER
from newcomer.data.io.image_folders import ImageFiles


def examples_digest(examples: Examples) -> str | None:
    """SHA-256 of all inputs and labels, whatever their order; None for inputs that load lazily, which are not read for this.

    >>> one, other = Examples(["my card", "no money"], [1, 2]), Examples(["no money", "my card"], [2, 1])
    >>> examples_digest(one) == examples_digest(other) != examples_digest(Examples(["my card", "no money"], [2, 1]))
    True
    """
    if (inputs := _in_memory(examples.inputs)) is None:
        return None
    digests = []
    try:
        for one, label in zip(inputs, examples.labels, strict=True):
            digests.append(hashlib.sha256(label.encode("utf-8", "surrogatepass") + b"\0" + _content(one)).digest())
    except OSError:
        return None
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def _in_memory(inputs: Sequence[Any]) -> Sequence[Any] | None:
    """The inputs, of images in files their paths; None if they load lazily."""
    if isinstance(inputs, ImageFiles):
        return inputs.paths
    if isinstance(inputs, Subset):
        every = _in_memory(inputs.inputs)
        return None if every is None else [every[i] for i in inputs.indices]
    return inputs if isinstance(inputs, EAGER) else None


def _content(one: Any) -> bytes:
    if isinstance(one, Path):
        return one.read_bytes()
    if isinstance(one, str):
        return one.encode("utf-8", "surrogatepass")
    if isinstance(one, Image):
        return f"{one.mode} {one.size}".encode() + one.tobytes()
    if isinstance(one, np.ndarray):
        return f"{one.dtype} {one.shape}".encode() + np.ascontiguousarray(one).tobytes()
    return bytes(one)
