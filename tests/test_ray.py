"""Actors of Ray Data warm up items in a PostgreSQL database as one process does; see also `docs/ray.md`, which runs as a test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from databases import SqlDatabase
from films import events, features, requests, trained
from newcomer.items.serving.service import ItemService

FILMS = [f"new {n}" for n in range(40)]


@pytest.mark.slow  # a cluster
@pytest.mark.filterwarnings("ignore")  # of Ray itself
def test_actors_count_every_event_once(postgresql: Callable[[], SqlDatabase], tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")

    class Warm:
        """The click model in an actor."""

        def __init__(self, store: str, states: str) -> None:
            self.items = ItemService.open(store, states)

        def __call__(self, table: Any) -> dict[str, list[int]]:
            done = self.items.warm(pl.DataFrame(pl.from_arrow(table)))
            return {"new": [done.new], "known": [done.known]}

    store = trained(tmp_path / "films")
    sent = pl.concat([events(film, 30, start=1000 * n) for n, film in enumerate(FILMS, 1)])
    pl.concat([sent, sent]).sample(fraction=1.0, shuffle=True, seed=0).write_parquet(tmp_path / "events.parquet")
    states, alone = postgresql().url, f"sqlite:///{tmp_path / 'alone.db'}"
    with ItemService.open(store, states) as items:
        items.add(features(*FILMS))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        counted = ray.data.read_parquet(str(tmp_path / "events.parquet")).map_batches(
            Warm,
            fn_constructor_args=(str(store), states),
            batch_format="pyarrow",
            batch_size=300,
            compute=ray.data.ActorPoolStrategy(size=2),
            num_cpus=0.5,
        )
        found = counted.to_pandas()
    finally:
        ray.shutdown()
    assert (found["new"].sum(), found["known"].sum()) == (len(sent), len(sent))
    with ItemService.open(store, states) as items, ItemService.open(store, alone) as other:
        other.add(features(*FILMS))
        other.warm(sent)
        pairs = [one.score(requests(*FILMS))["score"].to_list() for one in (items, other)]
    assert pairs[0] == pytest.approx(pairs[1], abs=1e-5)
