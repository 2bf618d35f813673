"""Training data of the old items: in memory, or chunk by chunk from files larger than memory."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from newcomer.data.click_log import ClickLog, EntityTable
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.log_statistics import LogStatistics
from newcomer.data.io.shuffle import ShuffledPasses, latest_events
from newcomer.items.encoding.encoder import Clicks, Encoder, event_codes
from newcomer.seeds import shuffled, spawn
from newcomer.settings import Json
from newcomer.shapes import Int, Tensor
from newcomer.training.processes import Processes

AtServing = Mapping[str, str | int | float]
NO_VALUES: AtServing = {}

MAX_ROWS = 2_000_000
"""Maximum number of events held in memory at once when a log in files is read by item."""


@dataclass(frozen=True)
class Share:
    """What one of several processes trains on of a chunk; of a single process all of it."""

    clicks: Clicks
    rows: Int[Tensor, " row"]
    """Rows of `clicks`, in the order of training."""
    position: Int[Tensor, " row"]
    """Ascending: place of each in an order of the chunk's rows that all processes have in common, batch after batch."""
    draw: Int[Tensor, " row"]
    """Number of each among the chunk's rows, for what is drawn at random for every row."""
    total: int
    """Number of the chunk's rows."""

    def batches(self, size: int) -> Iterator[tuple[Int[Tensor, " row"], Int[Tensor, " row"], int]]:
        """Of each batch of `size` rows of all processes: the rows of this one, their draws, and the size of the whole batch."""
        ends = torch.arange(0, self.total, size, device=self.position.device)
        starts = [*torch.searchsorted(self.position, ends).tolist(), len(self.rows)]
        for batch, (begin, end) in enumerate(pairwise(starts)):
            yield self.rows[begin:end], self.draw[begin:end], min(size, self.total - batch * size)


class TrainingData(ABC):
    """Encoder, items and counts of the old items, with access to their events by shuffled chunk or by item."""

    def __init__(
        self, survey: LogStatistics, device: torch.device, at_serving: AtServing = NO_VALUES, **users: Any
    ) -> None:
        """`users`: how their ids are encoded, see `Encoder.fit`."""
        survey.require_both_classes()
        survey.require_at_serving(at_serving)
        survey.warn_of_placeholders()
        self.encoder, self.device = Encoder.fit(survey, **users), device
        self.items: EntityTable = survey.items
        self.counts: list[int] = survey.events.tolist()
        """Number of events per item."""
        self.clicks_of_items = survey.clicks
        self.weights: list[float] = survey.weights.tolist()
        """Sum of the weights of each item's events."""
        self.rows = survey.rows
        self.mean_weight = sum(self.weights) / survey.rows
        self.fingerprint: list[Json] = [
            list(self.items.ids),
            self.counts,
            survey.clicks.tolist(),
            survey.first,
            survey.last,
            *([self.weights] if self.weights != self.counts else []),
        ]
        """Identifies the log in a checkpoint."""

    @property
    @abstractmethod
    def chunks_per_epoch(self) -> int:
        """Number of chunks per epoch."""

    @abstractmethod
    def shuffled_chunk(self, number: int, seed: int, stage: str) -> tuple[Clicks, Int[Tensor, " row"]]:
        """Chunk `number`, counted over all epochs, and the shuffled order of its rows; a function of the arguments."""

    def share(self, number: int, seed: int, stage: str, processes: Processes, batch_size: int) -> Share:
        """This process's rows of chunk `number`; the batches are those of `shuffled_chunk`."""
        clicks, order = self.shuffled_chunk(number, seed, stage)
        position = torch.arange(len(order), device=order.device)
        if processes.count > 1:
            # Of a batch each process gets the rows of consecutive items: what is computed once an item is computed by one of them.
            batch, place = position // batch_size, position % batch_size
            order = order[torch.argsort(batch * len(self.items) + clicks.item[order], stable=True)]
            size = (len(order) - batch * batch_size).clamp(max=batch_size)
            position = position[place * processes.count // size == processes.index]
        return Share(clicks, order[position], position, order[position], len(order))

    @abstractmethod
    def clicks_by_part(self) -> Iterator[Clicks]:
        """All events, in an order of their own, as many at a time as are held in memory."""

    @abstractmethod
    def event_histories(self, seed: int, stage: str) -> Clicks:
        """Events of as many items as fit into `MAX_ROWS`, sorted by time."""

    @abstractmethod
    def latest_events(self, limit: int) -> Iterator[Clicks]:
        """At most `limit` latest events of every item, some items at a time."""


class InMemory(TrainingData):
    """Training data in memory: one chunk per epoch."""

    def __init__(self, log: ClickLog, device: torch.device, at_serving: AtServing = NO_VALUES, **users: Any) -> None:
        super().__init__(LogStatistics(log.schema).add(log), device, at_serving, **users)
        log = log.take(np.lexsort((log.row, log.fraction_or_zero, log.time)))
        self.clicks = self.encoder.clicks(log, np.searchsorted(np.unique(log.item), log.item), event_codes).to(device)

    @property
    def chunks_per_epoch(self) -> int:
        return 1

    def shuffled_chunk(self, number: int, seed: int, stage: str) -> tuple[Clicks, Int[Tensor, " row"]]:
        chance = spawn(seed, stage, "pretrain", "epoch", number)
        return self.clicks, torch.randperm(len(self.clicks), generator=chance).to(self.device)

    def clicks_by_part(self) -> Iterator[Clicks]:
        yield self.clicks

    def event_histories(self, seed: int, stage: str) -> Clicks:
        return self.clicks

    def latest_events(self, limit: int) -> Iterator[Clicks]:
        order = torch.argsort(self.clicks.item, stable=True)
        counts = torch.bincount(self.clicks.item)
        age = torch.arange(len(order), device=self.device) - (counts.cumsum(0) - counts)[self.clicks.item[order]]
        yield self.clicks.by_row(order[age >= (counts - limit)[self.clicks.item[order]]].sort().values)


class InFiles(TrainingData):
    """Training data in files: a chunk is a few file chunks, shuffled together."""

    def __init__(
        self, files: ChunkedLog, device: torch.device, at_serving: AtServing = NO_VALUES, **users: Any
    ) -> None:
        super().__init__(LogStatistics.of(files), device, at_serving, **users)
        self.files, self.number = files, {name: n for n, name in enumerate(self.items.ids)}

    @property
    def chunks_per_epoch(self) -> int:
        return ShuffledPasses(self.files, 1, 0).buffers_per_epoch

    def shuffled_chunk(self, number: int, seed: int, stage: str) -> tuple[Clicks, Int[Tensor, " row"]]:
        clicks = self._encode(ShuffledPasses(self.files, 1 + number // self.chunks_per_epoch, seed).buffer(number))
        return clicks, torch.arange(len(clicks), device=self.device)

    def share(self, number: int, seed: int, stage: str, processes: Processes, batch_size: int) -> Share:
        """It reads the file chunks that fall to this process."""
        passes = ShuffledPasses(self.files, 1 + number // self.chunks_per_epoch, seed)
        log, places, total = passes.share(number, processes.index, processes.count)
        position = torch.from_numpy(places).to(self.device)
        return Share(self._encode(log), torch.arange(len(log), device=self.device), position, position, total)

    def clicks_by_part(self) -> Iterator[Clicks]:
        return (self._encode(self.files.read(chunk)) for chunk in self.files.chunks)

    def event_histories(self, seed: int, stage: str) -> Clicks:
        order, total = shuffled(len(self.items), seed, stage, "histories"), 0
        chosen: list[str] = []
        for item in order:
            total += self.counts[item]
            if chosen and total > MAX_ROWS:
                break
            chosen.append(self.items.ids[item])
        return self._sorted_by_time(chosen, max(self.counts))

    def latest_events(self, limit: int) -> Iterator[Clicks]:
        at_once = max(MAX_ROWS // limit, 1)
        for begin in range(0, len(self.items), at_once):
            yield self._sorted_by_time(self.items.ids[begin : begin + at_once], limit)

    def _sorted_by_time(self, items: list[str] | tuple[str, ...], limit: int) -> Clicks:
        log = latest_events(self.files, items, limit)
        return self._encode(log.take(np.lexsort((log.row, log.fraction_or_zero, log.time)))).by_row()

    def _encode(self, log: ClickLog) -> Clicks:
        numbers = np.array([self.number[name] for name in log.items.ids])
        return self.encoder.clicks(log, numbers[log.item], event_codes).to(self.device)


def training_data(
    log: ClickLog | ChunkedLog, device: torch.device, at_serving: AtServing = NO_VALUES, **users: Any
) -> TrainingData:
    """Training data of this log. `at_serving`: values of context fields in requests, which its events must have; `users`: how
    their ids are encoded, see `Encoder.fit`.
    """
    if isinstance(log, ClickLog):
        return InMemory(log, device, at_serving, **users)
    return InFiles(log, device, at_serving, **users)
