"""New items in service: warming up a thousand at once and one in place, scoring cold ones, writing cold states.

    python benchmarks/speed/items_service.py

One core, the default EmerG on MovieLens-1M, taught briefly on few items: how well it is taught makes no difference to what is
timed. What a user waits for is quoted by the clock, and beside it in seconds of the processor.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from models import figure, in_turns

from figure import Figure, emit, one_line
from newcomer.data.click_log import Log
from newcomer.data.datasets.movielens import movielens_1m
from newcomer.items.adaptation.rules import Adam
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.inference import part_of, scored, tuned
from newcomer.items.methods.emerg import EmerG
from newcomer.items.networks.graph_cache import Prepared
from newcomer.items.networks.item_network import State
from newcomer.items.serving.service import LiveItems, fingerprint
from newcomer.store.sql import SqlItemStates, sqlite_url
from newcomer.streams.cold_start import ColdStart, Trial

COMMAND = "python benchmarks/speed/items_service.py"
NEW, OLD, ABOVE = 1000, 40, 220
"""New items, old items, and how many events make an old one: at the paper's 200 there are only 972 new ones."""
COLD, WRITTEN = 500, 10_000
"""Items that are scored for one user, and that are written at once."""
FEWEST = 20
"""Calls; the first tenth only warms up."""
PAPER = Adam(rate=1e-2, steps=12, inner_rate=1e-2, inner_steps=1)


@dataclass(frozen=True)
class Service:
    """A taught learner and new items, cold, with the first twenty events of each."""

    learner: EmerG
    new: Trial
    own: Values
    state: State
    clicks: Clicks

    @classmethod
    def of(cls, stream: ColdStart) -> "Service":
        learner = EmerG(stream.schema, pretrain_epochs=1, meta_epochs=1, device="cpu").learn(stream.old_log)
        own, log = learner.encoder.items(stream.new.items), stream.new.phases[0]
        number = {name: n for n, name in enumerate(stream.new.items.ids)}
        clicks = learner.encoder.clicks(log, np.array([number.get(name, -1) for name in log.items.ids])[log.item])
        return cls(learner, stream.new, own, learner.begin(own, len(number)), clicks.by_row())

    def warm_all(self) -> None:
        for _ in self.learner.tuned(self.state, self.own, self.clicks):
            pass

    def warm_all_as_the_paper(self) -> None:
        for _ in tuned(self.learner.network, self.state, self.own, self.clicks, PAPER):
            pass

    def warm_one(self) -> Callable[[], None]:
        """What one event does to one item in memory; each time the first event of another item, encoded already."""
        rows = np.unique(self.clicks.item.numpy(), return_index=True)[1]
        events = iter([self.clicks.by_row(torch.tensor([row])) for row in rows])

        def warm() -> None:
            ((item, _),) = self.learner.tuned(self.state, self.own, next(events))
            assert len(item) == 1

        return warm

    def warm_live(self, live: LiveItems) -> Callable[[], None]:
        """The same through the database; each time the first event of another item, as a table."""
        log = self.new.phases[0]
        first = log.take(np.unique(log.item, return_index=True)[1])
        events = iter([_frame(first.take(np.array([n]))) for n in range(len(first))])

        def warm() -> None:
            assert live.warm(next(events)).new == 1  # it was not there before

        return warm

    def score_cold(self) -> Callable[[], None]:
        """Many cold items for one user."""
        items = torch.arange(COLD)
        state, own = part_of(self.state, items), [values[items] for values in self.own]
        user = [values[:1] for values in self.clicks.of_rows]
        asked = Clicks(items, torch.zeros(COLD), torch.zeros(COLD, dtype=torch.long), user, [])

        prepared = Prepared()

        def score() -> None:
            scored(self.learner.network, state, own, asked, prepared)

        return score

    def write_cold(self) -> Callable[[], None]:
        items = torch.arange(WRITTEN) % NEW
        own = [values[items] for values in self.own]

        def write() -> None:
            self.learner.begin(own, WRITTEN)

        return write


def _frame(log: Log) -> pl.DataFrame:
    """Events as a user of the service has them."""
    schema = log.schema
    users = {name: column.take(log.user).texts() for name, column in log.users.columns.items()}
    ids = {schema.item: [log.items.ids[n] for n in log.item], schema.user: [log.users.ids[n] for n in log.user]}
    return pl.DataFrame(ids | users | {schema.label: log.label.astype(np.int64), schema.time: log.time})


def latency(action: Callable[[], object], calls: int) -> tuple[list[float], list[float]]:
    """Milliseconds by the clock, and of the processor, of each call."""
    clock, processor = [], []
    for _ in range(calls):
        began, worked = time.perf_counter(), time.process_time()
        action()
        processor.append(1e3 * (time.process_time() - worked))
        clock.append(1e3 * (time.perf_counter() - began))
    warmed_up = calls // 10
    return clock[warmed_up:], processor[warmed_up:]


def latency_figures(name: str, action: Callable[[], object], calls: int, target: float | None) -> list[Figure]:
    clock, processor = latency(action, calls)
    print(f"{name}: {_told(clock, 'ms')} by the clock, {_told(processor, 'ms')} of the processor")
    return [_median(name, clock, "ms", target), _median(f"{name}, processor", processor, "ms", None)]


def throughput_figures(service: Service, repeats: int) -> list[Figure]:
    actions = {
        "warm-up of 1,000 items with 20 events each": service.warm_all,
        "warm-up of 1,000 items with 20 events each, the paper's rule": service.warm_all_as_the_paper,
        "writing a cold state": service.write_cold(),
    }
    *warm, written = in_turns(actions, repeats).values()
    times = [*warm, [1e6 * seconds / WRITTEN for seconds in written]]
    found = []
    for name, taken, unit, target in zip(actions, times, ("s", "s", "µs"), (1.5, None, None), strict=True):
        print(f"{name}: {_told(taken, unit)} of the processor")
        found.append(_median(name, taken, unit, target))
    return found


def _median(name: str, taken: Sequence[float], unit: str, target: float | None) -> Figure:
    spread = round(statistics.stdev(taken), 4)
    return figure(name, round(statistics.median(taken), 4), COMMAND, target, spread, unit)


def _told(taken: Sequence[float], unit: str) -> str:
    return f"{statistics.median(taken):.2f} ± {statistics.stdev(taken):.2f} {unit}"


def figures(repeats: int, calls: int, folder: Path) -> list[Figure]:
    service = Service.of(ColdStart(movielens_1m(), old_above=ABOVE, old_items=OLD, new_items=NEW))
    assert len(service.clicks) == 20 * NEW
    service.learner.save(folder)
    states = SqlItemStates(sqlite_url(folder / "items.db"))
    live = LiveItems(EmerG.load(folder, device="cpu"), fingerprint(folder), states)
    live.add(service.new.items)
    found = throughput_figures(service, repeats)
    found += latency_figures("warming up one item by one event, in memory", service.warm_one(), calls, 1.0)
    found += latency_figures("warming up one item by one event, in SQLite", service.warm_live(live), calls, None)
    found += latency_figures("scoring 500 cold items for one user", service.score_cold(), calls, 5.0)
    live.close()
    return found


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--calls", type=int, default=200, help="of what is timed one by one")
    given = parser.parse_args()
    if not FEWEST <= given.calls <= NEW:
        parser.error(f"--calls {given.calls}; give {FEWEST} to {NEW}: each event of an item counts once")
    return given


if __name__ == "__main__":
    given = parsed()
    torch.set_num_threads(1)
    with one_line(), tempfile.TemporaryDirectory() as name:
        emit(figures(given.repeats, given.calls, Path(name)))
