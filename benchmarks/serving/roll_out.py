"""A new version of the click model goes live under traffic, and is rolled back: does a request fail, is an event lost?

    python benchmarks/serving/roll_out.py [--model FOLDER]

Two workers serve simulated traffic whose client sends nothing again. The job `train` teaches a version on the world's log and the
events so far, and makes it live; it is rolled back, and goes live again. At the end both versions must have all events.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from endurance import TOLERANCE, WORLD, Load, Service, arguments, compare, result

from measurement import Measurement, emit
from newcomer.client import Client
from newcomer.data.datasets.simulated_clicks import SCHEMA, simulate_click_log
from newcomer.data.io.log_tables import entity_frame, log_frame
from newcomer.items.serving.service import ItemService
from newcomer.server.models import FIRST, VERSIONS
from newcomer.server.preparation import open_version
from newcomer.simulation.run import BATCH
from newcomer.simulation.sent_log import replay
from newcomer.simulation.visits import Traffic

COMMAND = "python benchmarks/serving/roll_out.py"
TRAFFIC = Traffic(candidates=20, exploration=1.0, new_item_every=4)
RATE = 10.0
"""Visits a second, of five events each."""
SECONDS = 10.0
"""Of traffic between two changes."""
SETTINGS = {"pretrain_epochs": 2}
"""Of the new version: quickly trained."""


def write_log(path: Path) -> None:
    """The log of the world's old items, as the first version was trained on it."""
    log = simulate_click_log(
        old_items=WORLD.old_items,
        old_events=WORLD.old_events,
        new_items=WORLD.new_items,
        new_events=0,
        users=WORLD.users,
        seed=WORLD.seed,
    )
    columns = [pl.Series(SCHEMA.label, log.label.astype(int)), pl.Series(SCHEMA.time, log.time)]
    items = entity_frame(log.items, SCHEMA.item, SCHEMA.of("item"))
    log_frame(log).with_columns(columns).join(items, on=SCHEMA.item).sort(SCHEMA.time).write_csv(path)


def rolled_out(client: Client) -> str:
    """A version is trained, goes live, and is rolled back, and goes live again; its name."""
    time.sleep(SECONDS)
    job = client.wait(client.train(promote="always", settings=SETTINGS).id)
    if job.status != "done" or job.result is None:
        raise RuntimeError(f"the job has {job.status}: {job.detail}")
    name = str(job.result["version"])
    for live in (FIRST, name):
        time.sleep(SECONDS)
        client.change_models(live=live)
    time.sleep(SECONDS)
    return name


def measurements(store: Path, folder: Path) -> Iterator[Measurement]:
    write_log(folder / "log.csv")
    states, own = f"sqlite:///{folder / 'items.db'}", folder / "own"
    words = [str(store), "--states", states, "--folder", str(own), "--workers", "2", "--log", str(folder / "log.csv")]
    with (
        Service(*words, log=folder / "log") as service,
        Client(service.url, retries=0, timeout=60) as client,
        Load(client, TRAFFIC, RATE) as load,
        Client(service.url, timeout=60) as other,
    ):
        name = rolled_out(other)
    summary = load.summary
    print(f"{summary.visits:,} visits, {summary.sent:,} events, p99 {summary.info()['p99_ms']:.0f} ms", file=sys.stderr)
    yield result(COMMAND, "roll-out under traffic, requests", summary.visits + summary.sent // BATCH, "requests")
    yield result(COMMAND, "roll-out under traffic, failed requests", len(summary.errors), "requests", 0.0)
    for version, trained in ((FIRST, store), (name, own / VERSIONS / name)):
        offline = f"sqlite:///{folder / version}.db"
        with ItemService.open(trained, states) as served, open_version(trained, offline) as replayed:
            before = replayed.headers()
            replay(load.lines(), replayed)
            counted = compare(served, replayed, before)
        print(f"{version}: {counted}", file=sys.stderr)
        yield result(COMMAND, f"roll-out under traffic, lost by {version}", counted.lost, "events", 0.0)
        yield result(COMMAND, f"roll-out under traffic, counted twice by {version}", counted.twice, "events", 0.0)
        yield result(
            COMMAND, f"roll-out under traffic, {version} against a replay", counted.difference, "absolute", TOLERANCE
        )


if __name__ == "__main__":
    with arguments(__doc__) as (args, folder):
        emit(measurements(args.model, folder))
