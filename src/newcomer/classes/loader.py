"""Data loader: preprocesses inputs, caches decoded images and prefetches batches in threads."""

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
"""Number of batches prefetched."""


class Loader:
    """Preprocessed batches of `inputs` on the CPU, in the requested order.

    Decoded images, at the backbone's input size, are cached up to `cache_bytes`; the rest is decoded again each time.
    """

    def __init__(self, backbone: Backbone, inputs: Sequence[Input], cache_bytes: float) -> None:
        self.backbone, self.inputs, self.room = backbone, inputs, cache_bytes
        self.lock = Lock()
        self.kept: dict[int, dict[str, Tensor]] = {}

    def batches(self, plan: Iterable[Sequence[int]]) -> Generator[dict[str, Tensor]]:
        """Yield one batch of tensors for each list of indices.

        Raises DataError for an image that cannot be read, when its batch is due.
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
        """Errors by row of the inputs that cannot be read; readable images are cached while there is room."""
        found: dict[int, NewcomerError] = {}
        for row in range(len(self.inputs)):
            try:
                self._picture(row) if self.backbone.reads_images else self.inputs[row]
            except NewcomerError as error:
                found[row] = error
        return found

    def read(self, batch: Sequence[int]) -> dict[str, Tensor]:
        """Preprocess these inputs for the backbone."""
        if not self.backbone.reads_images:
            return self.backbone.preprocess([self.inputs[i] for i in batch])
        read = [self._picture(i) for i in batch]
        return {key: torch.cat([one[key] for one in read]) for key in read[0]}

    def _picture(self, index: int) -> dict[str, Tensor]:
        if index in self.kept:
            return self.kept[index]
        read = self.backbone.preprocess([self.inputs[index]])
        size = sum(t.nbytes for t in read.values())
        with self.lock:
            if self.room >= size and index not in self.kept:
                self.room -= size
                self.kept[index] = read
        return read
