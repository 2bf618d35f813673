"""Speed of new items in service: warm-up of a thousand items and of one, scoring of cold items, generation of cold states.

    python benchmarks/speed/items_service.py

One core, the default EmerG on MovieLens-1M, trained briefly on few items: accuracy does not matter for timings. Latencies are
args in wall-clock time and in CPU time.
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
from models import in_turns, measurement

from measurement import Measurement, emit, one_line
from newcomer.data.click_log import ClickLog
from newcomer.data.datasets.movielens import movielens_1m
from newcomer.items.adaptation.rules import AdamAdaptation
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.inference import adapt, predict, select
from newcomer.items.methods.emerg import EmerG
from newcomer.items.networks.graph_cache import GraphCache
from newcomer.items.networks.item_network import State
from newcomer.items.serving.service import ItemService, fingerprint
from newcomer.store.sql import SqlItemStates, sqlite_url
from newcomer.streams.cold_start import ColdStart, ValidationLife

COMMAND = "python benchmarks/speed/items_service.py"
NEW, OLD, ABOVE = 1000, 40, 220
"""Numbers of new items, of old items, and the events of an old item: the paper's 200 leave only 972 new items."""
COLD, WRITTEN = 500, 10_000
"""Items scored for one user, and cold states generated at once."""
MIN_CALLS = 20
"""The fewest timed calls; the first tenth is warm-up and not counted."""
PAPER = AdamAdaptation(rate=1e-2, steps=12, inner_lr=1e-2, inner_steps=1)


@dataclass(frozen=True)
class Service:
    """A trained learner and cold new items, with the first twenty events of each."""

    learner: EmerG
    new: ValidationLife
    item_features: Values
    state: State
    clicks: Clicks

    @classmethod
    def of(cls, stream: ColdStart) -> "Service":
        learner = EmerG(stream.schema, pretrain_epochs=1, meta_epochs=1, device="cpu").learn(stream.old_log)
        item_features, log = learner.encoder.items(stream.new.items), stream.new.phases[0]
        number = {name: n for n, name in enumerate(stream.new.items.ids)}
        clicks = learner.encoder.clicks(log, np.array([number.get(name, -1) for name in log.items.ids])[log.item])
        return cls(learner, stream.new, item_features, learner.cold_state(item_features, len(number)), clicks.by_row())

    def warm_all(self) -> None:
        for _ in self.learner.adapt(self.state, self.item_features, self.clicks):
            pass

    def warm_all_as_the_paper(self) -> None:
        for _ in adapt(self.learner.network, self.state, self.item_features, self.clicks, PAPER):
            pass

    def warm_one(self) -> Callable[[], None]:
        """Adapt one item to one encoded event in memory; each call takes the first event of another item."""
        rows = np.unique(self.clicks.item.numpy(), return_index=True)[1]
        events = iter([self.clicks.by_row(torch.tensor([row])) for row in rows])

        def warm() -> None:
            ((item, _),) = self.learner.adapt(self.state, self.item_features, next(events))
            assert len(item) == 1

        return warm

    def warm_live(self, live: ItemService) -> Callable[[], None]:
        """The same through the database, with the event as a data frame."""
        log = self.new.phases[0]
        first = log.take(np.unique(log.item, return_index=True)[1])
        events = iter([_frame(first.take(np.array([n]))) for n in range(len(first))])

        def warm() -> None:
            assert live.warm(next(events)).new == 1  # the event was not counted before

        return warm

    def score_cold(self) -> Callable[[], None]:
        """Score `COLD` cold items for one user."""
        items = torch.arange(COLD)
        state, item_features = select(self.state, items), [values[items] for values in self.item_features]
        user = [values[:1] for values in self.clicks.of_rows]
        asked = Clicks(items, torch.zeros(COLD), torch.zeros(COLD, dtype=torch.long), user, [])

        prepared = GraphCache()

        def score() -> None:
            predict(self.learner.network, state, item_features, asked, prepared)

        return score

    def write_cold(self) -> Callable[[], None]:
        items = torch.arange(WRITTEN) % NEW
        item_features = [values[items] for values in self.item_features]

        def write() -> None:
            self.learner.cold_state(item_features, WRITTEN)

        return write


def _frame(log: ClickLog) -> pl.DataFrame:
    """A log as a data frame of events."""
    schema = log.schema
    users = {name: column.take(log.user).texts() for name, column in log.users.columns.items()}
    ids = {schema.item: [log.items.ids[n] for n in log.item], schema.user: [log.users.ids[n] for n in log.user]}
    return pl.DataFrame(ids | users | {schema.label: log.label.astype(np.int64), schema.time: log.time})


def latency(action: Callable[[], object], calls: int) -> tuple[list[float], list[float]]:
    """Wall-clock and CPU milliseconds of each call."""
    wall, cpu = [], []
    for _ in range(calls):
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        action()
        cpu.append(1e3 * (time.process_time() - cpu_start))
        wall.append(1e3 * (time.perf_counter() - wall_start))
    warm_up = calls // 10
    return wall[warm_up:], cpu[warm_up:]


def latency_measurements(
    name: str, action: Callable[[], object], calls: int, target: float | None
) -> list[Measurement]:
    wall, cpu = latency(action, calls)
    print(f"{name}: {_format(wall, 'ms')} wall-clock, {_format(cpu, 'ms')} CPU")
    return [_median(name, wall, "ms", target), _median(f"{name}, processor", cpu, "ms", None)]


def throughput_measurements(service: Service, repeats: int) -> list[Measurement]:
    actions = {
        "warm-up of 1,000 items with 20 events each": service.warm_all,
        "warm-up of 1,000 items with 20 events each, the paper's rule": service.warm_all_as_the_paper,
        "writing a cold state": service.write_cold(),
    }
    *warm, written = in_turns(actions, repeats).values()
    times = [*warm, [1e6 * seconds / WRITTEN for seconds in written]]
    results = []
    for name, taken, unit, target in zip(actions, times, ("s", "s", "µs"), (1.5, None, None), strict=True):
        print(f"{name}: {_format(taken, unit)} CPU")
        results.append(_median(name, taken, unit, target))
    return results


def _median(name: str, taken: Sequence[float], unit: str, target: float | None) -> Measurement:
    std = round(statistics.stdev(taken), 4)
    return measurement(name, round(statistics.median(taken), 4), COMMAND, target, std, unit)


def _format(taken: Sequence[float], unit: str) -> str:
    return f"{statistics.median(taken):.2f} ± {statistics.stdev(taken):.2f} {unit}"


def measurements(repeats: int, calls: int, folder: Path) -> list[Measurement]:
    service = Service.of(ColdStart(movielens_1m(), min_old_events=ABOVE, old_items=OLD, new_items=NEW))
    assert len(service.clicks) == 20 * NEW
    service.learner.save(folder)
    states = SqlItemStates(sqlite_url(folder / "items.db"))
    live = ItemService(EmerG.load(folder, device="cpu"), fingerprint(folder), states)
    live.add(service.new.items)
    results = throughput_measurements(service, repeats)
    results += latency_measurements("warming up one item by one event, in memory", service.warm_one(), calls, 1.0)
    results += latency_measurements("warming up one item by one event, in SQLite", service.warm_live(live), calls, None)
    results += latency_measurements("scoring 500 cold items for one user", service.score_cold(), calls, 5.0)
    live.close()
    return results


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--calls", type=int, default=200, help="timed calls of each latency")
    args = parser.parse_args()
    if not MIN_CALLS <= args.calls <= NEW:
        parser.error(f"--calls {args.calls}; give {MIN_CALLS} to {NEW}: each event of an item counts once")
    return args


if __name__ == "__main__":
    args = parse_args()
    torch.set_num_threads(1)
    with one_line(), tempfile.TemporaryDirectory() as name:
        emit(measurements(args.repeats, args.calls, Path(name)))
