"""Shuffled passes over a log larger than memory, and the latest or earliest events of given items."""

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from newcomer.data.canonical import canonical_names
from newcomer.data.click_log import ClickLog
from newcomer.data.io.chunked_log import Chunk, ChunkedLog
from newcomer.data.io.column_parsing import ROW
from newcomer.data.io.timestamps import FRACTION
from newcomer.errors import DataError, SettingError
from newcomer.seeds import shuffled, spawn


class ShuffledPasses:
    """`epochs` shuffled passes over a log through a shuffle buffer of `buffer_chunks` random chunks, whose rows are permuted.

    A buffer depends only on the files, the seed and its number, so resuming needs only the number. A log that fits in one buffer
    is shuffled completely. `row_filter` selects the rows of a buffer to keep; it may select none.

    Raises SettingError for less than one epoch or chunk.
    """

    def __init__(
        self,
        files: ChunkedLog,
        epochs: int,
        seed: int,
        buffer_chunks: int = 2,
        row_filter: Callable[[ClickLog], ClickLog] | None = None,
    ) -> None:
        if epochs < 1 or buffer_chunks < 1:
            raise SettingError(f"epochs = {epochs}, buffer_chunks = {buffer_chunks}: both are at least 1; raise them")
        self.files, self.epochs, self.seed = files, epochs, seed
        self.buffer_chunks, self.row_filter = buffer_chunks, row_filter

    @property
    def buffers_per_epoch(self) -> int:
        return -(-len(self.files.chunks) // self.buffer_chunks)

    def __len__(self) -> int:
        """Number of buffers of all epochs."""
        return self.epochs * self.buffers_per_epoch

    def buffer(self, number: int) -> ClickLog:
        """Rows of one buffer, numbered from 0 over all epochs."""
        log = self.files.read(*self._chunks(number))
        log = self.row_filter(log) if self.row_filter else log
        return log.take(self._order(number, len(log)))

    def share(self, number: int, index: int, count: int) -> tuple[ClickLog, NDArray[np.int64], int]:
        """The rows of a buffer that fall to reader `index` of `count`, in the buffer's order; their positions in it; its length.

        A reader reads chunks of its own, and shares one only where there are more readers than chunks. Without `row_filter`.
        """
        chunks = self._chunks(number)
        starts = np.cumsum([0, *(chunk.rows for chunk in chunks)])
        own = [k for k in range(len(chunks)) if k % count == index % len(chunks)]
        log = self.files.read(*(chunks[k] for k in own))
        rows = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in own])
        beside = len(range(index % len(chunks), count, len(chunks)))  # readers of the same chunks
        mine = np.arange(len(log))[index // len(chunks) :: beside]
        place = np.empty(starts[-1], np.int64)
        place[self._order(number, int(starts[-1]))] = np.arange(starts[-1])
        mine = mine[np.argsort(place[rows[mine]])]
        return log.take(mine), place[rows[mine]], int(starts[-1])

    def _chunks(self, number: int) -> list[Chunk]:
        """The chunks of a buffer."""
        if not 0 <= number < len(self):
            raise IndexError(f"buffer {number} of {len(self)}")
        epoch, position = divmod(number, self.buffers_per_epoch)
        order = shuffled(len(self.files.chunks), self.seed, "passes", "pieces", epoch)
        return [
            self.files.chunks[k] for k in order[position * self.buffer_chunks : (position + 1) * self.buffer_chunks]
        ]

    def _order(self, number: int, rows: int) -> NDArray[np.int64]:
        """The order of a buffer's rows."""
        found: NDArray[np.int64] = torch.randperm(rows, generator=spawn(self.seed, "passes", "rows", number)).numpy()
        return found

    def iterate(self, done: int = 0) -> Iterator[ClickLog]:
        """Buffers from number `done` on, the next one prefetched in a thread."""
        with ThreadPoolExecutor(max_workers=1) as reader:
            prefetched = reader.submit(self.buffer, done) if done < len(self) else None
            while prefetched:
                log, done = prefetched.result(), done + 1
                prefetched = reader.submit(self.buffer, done) if done < len(self) else None
                yield log


def latest_events(files: ChunkedLog, items: Collection[str], per_item: int) -> ClickLog:
    """The latest `per_item` events of each item (ties: later rows), in the order of the files, in one pass.

    Memory: two chunks, and `per_item` events per item. Raises DataError if none of the items has an event.
    """
    return _some_events(files, items, per_item, latest=True)


def earliest_events(files: ChunkedLog, items: Collection[str], per_item: int) -> ClickLog:
    """The same of the earliest events (ties: earlier rows)."""
    return _some_events(files, items, per_item, latest=False)


def _some_events(files: ChunkedLog, items: Collection[str], per_item: int, latest: bool) -> ClickLog:
    if per_item < 1:
        raise SettingError(f"per_item = {per_item}: at least one event per item; raise it")
    item, order = files.schema.item, (files.schema.time, FRACTION, ROW)
    chosen = canonical_names(pl.Series("item", sorted(items), dtype=pl.String), "items").implode()
    found: pl.DataFrame | None = None
    for chunk in files.chunks:
        rows = files.table(chunk).filter(pl.col(item).is_in(chosen))
        rows = rows if found is None else pl.concat([found, rows])
        lives = rows.sort(order).group_by(item, maintain_order=True)
        found = lives.tail(per_item) if latest else lives.head(per_item)
    if found is None or not len(found):
        raise DataError(f"none of {len(items)} items has an event in these files; give ids of column '{item}'")
    return files.encode(found.sort(ROW))
