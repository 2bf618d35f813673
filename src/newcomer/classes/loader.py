"""A lesson's inputs as tensors: decoded once where they fit in memory, and read ahead while the device is at work."""

from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Lock

import torch

from newcomer.backbones.backbone import Backbone
from newcomer.data.examples import Input
from newcomer.errors import NewcomerError
from newcomer.shapes import Tensor

AHEAD = 3
"""Batches that are being read while one is in use."""


class Feed:
    """Batches of `inputs`, ready for the backbone but still on the CPU, in the order asked for.

    Pictures are kept decoded, at the backbone's size, until `cache_bytes` are full; the rest is decoded again each time.
    """

    def __init__(self, backbone: Backbone, inputs: Sequence[Input], cache_bytes: float) -> None:
        self.backbone, self.inputs, self.room = backbone, inputs, cache_bytes
        self.lock = Lock()
        self.kept: dict[int, dict[str, Tensor]] = {}

    def batches(self, plan: Iterable[Sequence[int]]) -> Generator[dict[str, Tensor]]:
        """One batch of tensors for every list of indices.

        Raises DataError for a picture that cannot be read, when its batch's turn comes.
        """
        rest = iter(plan)
        with ThreadPoolExecutor(AHEAD) as readers:
            waiting: list[Future[dict[str, Tensor]]] = [
                readers.submit(self.read, batch) for batch in islice(rest, AHEAD)
            ]
            try:
                while waiting:
                    found = waiting.pop(0).result()
                    waiting += [readers.submit(self.read, batch) for batch in islice(rest, 1)]
                    yield found
            finally:
                for future in waiting:
                    future.cancel()

    def unreadable(self) -> dict[int, NewcomerError]:
        """What cannot be read, by its row. Pictures that can be are kept, as long as there is room."""
        found: dict[int, NewcomerError] = {}
        for row in range(len(self.inputs)):
            try:
                self._picture(row) if self.backbone.pictures else self.inputs[row]
            except NewcomerError as error:
                found[row] = error
        return found

    def read(self, batch: Sequence[int]) -> dict[str, Tensor]:
        """These inputs as the backbone reads them."""
        if not self.backbone.pictures:
            return self.backbone.read([self.inputs[i] for i in batch])
        read = [self._picture(i) for i in batch]
        return {key: torch.cat([one[key] for one in read]) for key in read[0]}

    def _picture(self, index: int) -> dict[str, Tensor]:
        if index in self.kept:
            return self.kept[index]
        read = self.backbone.read([self.inputs[index]])
        size = sum(t.nbytes for t in read.values())
        with self.lock:
            if self.room >= size and index not in self.kept:
                self.room -= size
                self.kept[index] = read
        return read
