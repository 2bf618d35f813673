"""One simulation: visits, new items and delayed events are sent by several threads, and the answers are counted by one."""

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from newcomer.client import Client, ServiceError
from newcomer.server.bodies import Counts, Scores
from newcomer.simulation.sent_log import SentLog
from newcomer.simulation.summary import Quality, Summary
from newcomer.simulation.visits import Event, Traffic, Visit
from newcomer.simulation.world import World

BATCH = 20
"""Events that are due are sent so many at a time."""

MAX_FAILURES = 20
"""So many failures in a row end a simulation."""


@dataclass(frozen=True)
class _Sent:
    """An event to send. `repeated`: it was sent before."""

    event: Event
    repeated: bool = False


Answer = Scores | Counts | ServiceError


class Simulation:
    """Visits of a world to a service.

    With one thread and a new database, everything but times and request ids is a function of the seed.
    """

    def __init__(self, client: Client, world: World, traffic: Traffic, log: SentLog | None = None) -> None:
        self.client, self.world, self.traffic, self.log = client, world, traffic, log or SentLog()
        self.summary = Summary()
        self._failures = 0
        self._running: dict[Future[Answer], Callable[[Answer], None]] = {}
        self._later: list[tuple[int, int, _Sent]] = []
        """Heap of events by the visit before which they arrive and their order."""
        self._order = count()
        self._due = deque[_Sent]()

    def run(
        self,
        visits: int | None = None,
        seconds: float | None = None,
        rate: float | None = None,
        threads: int = 1,
        interval: float = 10.0,
    ) -> Iterator[Summary]:
        """Send visits, at most `rate` a second, until one of the limits; yields the figures so far every `interval` seconds.

        Events that are due later are sent at the end. A service that fails many times in a row ends the simulation.
        Raises SettingError for a service of another world.
        """
        self.world.require_served(self.client)
        self._failures = 0
        begin = shown = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            try:
                for number in count():
                    elapsed = time.perf_counter() - begin
                    if number == visits or (seconds is not None and elapsed >= seconds) or self._has_given_up:
                        break
                    if rate is not None:
                        time.sleep(max(0.0, number / rate - elapsed))
                    self._add_items(number, elapsed)
                    self._send_events(pool, threads, number)
                    self._visit(pool, threads, number)
                    if time.perf_counter() - shown >= interval:
                        shown = time.perf_counter()
                        self.summary.seconds = shown - begin
                        yield self.summary
                self._collect(0)
                while (self._later or self._due) and not self._has_given_up:
                    self._send_events(pool, threads, None)
                    self._collect(0)
            finally:
                self._collect(0)
                self.summary.seconds = time.perf_counter() - begin
                self.summary.pending = len(self._later) + len(self._due)

    @property
    def _has_given_up(self) -> bool:
        return self._failures >= MAX_FAILURES

    def _add_items(self, number: int, elapsed: float) -> None:
        """Register the new items that arrive before this visit, so many seconds after the begin."""
        every = self.traffic.new_item_seconds
        arrived = int(elapsed / every) if every else number // self.traffic.new_item_every
        arrived = min(arrived, self.world.new_items)
        if arrived <= self.summary.items:
            return
        first = self.world.old_items
        try:
            rows = self.world.add(self.client, range(first + self.summary.items, first + arrived))
        except ServiceError as error:
            self._failed(error)
            return
        self._failures, self.summary.items = 0, arrived
        self.log.items(rows)

    def _visit(self, pool: ThreadPoolExecutor, threads: int, number: int) -> None:
        visit = Visit.draw(self.world, self.traffic, number, self.world.old_items + self.summary.items)
        seconds, policy = 0.0, dict[str, Any]()
        if self.traffic.explore is not None:
            policy = {"explore": self.traffic.explore, "strength": self.traffic.strength}

        def ask() -> Answer:
            nonlocal seconds
            begin = time.perf_counter()
            try:
                return self.client.score(visit.user, visit.context, visit.candidates, **policy)
            except ServiceError as error:
                return error
            finally:
                seconds = time.perf_counter() - begin

        def show(answer: Answer) -> None:
            if isinstance(answer, Scores):
                self._failures = 0
                self.summary.answered(seconds)
                self._show(visit, answer)
            elif isinstance(answer, ServiceError):
                self.summary.failed += 1
                self._failed(answer)

        self._submit(pool, threads, ask, show)

    def _show(self, visit: Visit, answer: Scores) -> None:
        """Show candidates; their events arrive later."""
        scores = np.array([found.score for found in answer.scores], dtype=float)
        chosen = visit.shown(scores, answer.order, self.traffic.shown)
        if not visit.explores:
            self.summary.shown(visit.truth, chosen)
        for n in chosen.tolist():
            quality = self.summary.phases.setdefault(str(answer.scores[n].phase), Quality())
            quality.add(scores[n], visit.truth[n], bool(visit.clicks[n]))
            event = visit.event(n, answer.request_id, self.world.first_time)
            for repeated in (False, True) if visit.repeats[n] else (False,):
                arrival = visit.number + 1 + int(visit.delays[n]) + repeated
                heapq.heappush(self._later, (arrival, next(self._order), _Sent(event, repeated)))

    def _send_events(self, pool: ThreadPoolExecutor, threads: int, number: int | None) -> None:
        """Send the events that have arrived before visit `number`, in full batches; at the end, without a number, all events."""
        while self._later and (number is None or self._later[0][0] <= number):
            self._due.append(heapq.heappop(self._later)[2])
        batches = len(self._due) // BATCH if number is not None else -(-len(self._due) // BATCH)
        for _ in range(batches):
            batch = [self._due.popleft() for _ in range(min(BATCH, len(self._due)))]
            self._submit(pool, threads, partial(self._warm, batch), partial(self._counted, batch))

    def _warm(self, batch: Sequence[_Sent]) -> Answer:
        try:
            return self.client.warm([sent.event.to_send() for sent in batch])
        except ServiceError as error:
            return error

    def _counted(self, batch: Sequence[_Sent], answer: Answer) -> None:
        """Count what became of events. Those without an answer are sent again."""
        if isinstance(answer, Counts):
            self._failures = 0
            self.summary.acknowledged(len(batch), sum(not sent.repeated for sent in batch), answer)
            self.log.events([sent.event for sent in batch], answer)
        elif isinstance(answer, ServiceError):
            self._failed(answer)
            self._due.extend(batch)

    def _failed(self, error: ServiceError) -> None:
        self._failures += 1
        self.summary.error(str(error))

    def _submit(
        self, pool: ThreadPoolExecutor, threads: int, job: Callable[[], Answer], then: Callable[[Answer], None]
    ) -> None:
        """Run a job in a thread, as soon as one is free, and `then` with its answer in this one."""
        self._running[pool.submit(job)] = then
        self._collect(threads - 1)

    def _collect(self, running: int) -> None:
        """Wait until at most so many jobs are running, and take the answers of the others in."""
        while len(self._running) > running:
            for future in wait(self._running, return_when=FIRST_COMPLETED).done:
                self._running.pop(future)(future.result())
