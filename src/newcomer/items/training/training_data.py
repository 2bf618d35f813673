"""The old items' events as a learner reads them, wherever they lie: in memory, or in files that are larger than it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch

from newcomer.data.click_log import Log, Table
from newcomer.data.io.chunked_log import LogFiles
from newcomer.data.io.log_statistics import Survey
from newcomer.data.io.shuffle import Passes, windows
from newcomer.items.encoding.encoder import Clicks, Encoder, deeds
from newcomer.seeds import shuffled, spawn
from newcomer.settings import Json
from newcomer.shapes import Int, Tensor

ROWS = 2_000_000
"""Events of a log in files that are held in memory at once, to be asked for by item."""


class Lessons(ABC):
    """What is known of all old items before training, and two ways through their events."""

    def __init__(self, survey: Survey, device: torch.device, tastes: bool = False) -> None:
        survey.require_both_answers()
        self.encoder, self.device = Encoder.fit(survey, tastes), device
        self.items: Table = survey.items
        self.counts: list[int] = survey.events.tolist()
        """How many events each item has."""
        self.rows = survey.rows
        self.seen: list[Json] = [list(self.items.ids), self.counts, survey.clicks.tolist(), survey.first, survey.last]
        """By what one log is told from another."""

    @property
    @abstractmethod
    def mixes_per_epoch(self) -> int:
        """In how many parts an epoch comes."""

    @abstractmethod
    def mix(self, number: int, seed: int, stage: str) -> tuple[Clicks, Int[Tensor, " row"]]:
        """A part, counted over all epochs, and the order in which to take its rows: both follow from the arguments."""

    @abstractmethod
    def histories(self, seed: int, stage: str) -> Clicks:
        """Events of as many items as memory allows, in the order of time."""

    @abstractmethod
    def latest(self, most: int) -> Iterator[Clicks]:
        """The latest events of every item, at most so many of each, some items at a time."""


class InMemory(Lessons):
    """A part is an epoch."""

    def __init__(self, log: Log, device: torch.device, tastes: bool = False) -> None:
        super().__init__(Survey(log.schema).add(log), device, tastes)
        log = log.take(np.lexsort((log.row, log.ticks, log.time)))
        self.clicks = self.encoder.clicks(log, np.searchsorted(np.unique(log.item), log.item), deeds).to(device)

    @property
    def mixes_per_epoch(self) -> int:
        return 1

    def mix(self, number: int, seed: int, stage: str) -> tuple[Clicks, Int[Tensor, " row"]]:
        chance = spawn(seed, stage, "pretrain", "epoch", number)
        return self.clicks, torch.randperm(len(self.clicks), generator=chance).to(self.device)

    def histories(self, seed: int, stage: str) -> Clicks:
        return self.clicks

    def latest(self, most: int) -> Iterator[Clicks]:
        order = torch.argsort(self.clicks.item, stable=True)
        counts = torch.bincount(self.clicks.item)
        place = torch.arange(len(order), device=self.device) - (counts.cumsum(0) - counts)[self.clicks.item[order]]
        yield self.clicks.by_row(order[place >= (counts - most)[self.clicks.item[order]]].sort().values)


class InFiles(Lessons):
    """A part is a few pieces of the files, mixed."""

    def __init__(self, files: LogFiles, device: torch.device, tastes: bool = False) -> None:
        super().__init__(Survey.of(files), device, tastes)
        self.files, self.number = files, {name: n for n, name in enumerate(self.items.ids)}

    @property
    def mixes_per_epoch(self) -> int:
        return Passes(self.files, 1, 0).mixes_per_epoch

    def mix(self, number: int, seed: int, stage: str) -> tuple[Clicks, Int[Tensor, " row"]]:
        clicks = self._encoded(Passes(self.files, 1 + number // self.mixes_per_epoch, seed).mix(number))
        return clicks, torch.arange(len(clicks), device=self.device)

    def histories(self, seed: int, stage: str) -> Clicks:
        order, total = shuffled(len(self.items), seed, stage, "histories"), 0
        chosen: list[str] = []
        for item in order:
            total += self.counts[item]
            if chosen and total > ROWS:
                break
            chosen.append(self.items.ids[item])
        return self._in_time(chosen, max(self.counts))

    def latest(self, most: int) -> Iterator[Clicks]:
        at_once = max(ROWS // most, 1)
        for begin in range(0, len(self.items), at_once):
            yield self._in_time(self.items.ids[begin : begin + at_once], most)

    def _in_time(self, items: list[str] | tuple[str, ...], most: int) -> Clicks:
        log = windows(self.files, items, most)
        return self._encoded(log.take(np.lexsort((log.row, log.ticks, log.time)))).by_row()

    def _encoded(self, log: Log) -> Clicks:
        numbers = np.array([self.number[name] for name in log.items.ids])
        return self.encoder.clicks(log, numbers[log.item]).to(self.device)


def lessons(log: Log | LogFiles, device: torch.device, tastes: bool = False) -> Lessons:
    """The way to the events of this log."""
    return InMemory(log, device, tastes) if isinstance(log, Log) else InFiles(log, device, tastes)
