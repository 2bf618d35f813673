"""Simulated traffic: counts agree with the database, the sent log replayed gives the same states, same seed same traffic."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from newcomer.client import Client
from newcomer.errors import DataError, SettingError
from newcomer.items.serving.service import ItemService
from newcomer.server.app import create_app
from newcomer.server.bodies import Explore
from newcomer.server.configuration import ServeConfig
from newcomer.simulation.run import Simulation
from newcomer.simulation.sent_log import SentLog, replay
from newcomer.simulation.summary import Summary
from newcomer.simulation.visits import Traffic, Visit
from newcomer.simulation.world import World
from serving import in_thread
from shell import Shell

WORLD = World(seed=1, old_items=12, old_events=20, new_items=4, users=30)
QUICK: dict[str, Any] = {"width": 4, "pretrain_epochs": 1, "meta_epochs": 1, "episodes_per_step": 8, "device": "cpu"}
TRAFFIC = Traffic(candidates=8, shown=3, exploration=0.2, click_delay=3, new_item_every=5, repeated=0.2)
VISITS = 30
EVENTS = VISITS * TRAFFIC.shown

TOLERANCE = 1e-5
"""Absolute difference of states: sums over events in another order, in float32."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "store"
    WORLD.train(folder, **QUICK)
    return folder


@pytest.fixture
def config(store: Path, tmp_path: Path) -> ServeConfig:
    return ServeConfig(stores=(store,), states=f"sqlite:///{tmp_path / 'served.db'}", folder=tmp_path / "own")


@pytest.fixture
def url(config: ServeConfig) -> Iterator[str]:
    with in_thread(create_app(config)) as url:
        yield url


def simulated(url: str, **options: Any) -> tuple[Summary, list[str]]:
    """The figures and the sent log of a simulation."""
    log = io.StringIO()
    with Client(url) as client:
        simulation = Simulation(client, WORLD, TRAFFIC, SentLog(log))
        list(simulation.run(**{"visits": VISITS} | options))
    return simulation.summary, log.getvalue().splitlines()


def states(service: ItemService) -> dict[str, Any]:
    """Number of events, and state, of every item."""
    found = {}
    for name, header in sorted(service.headers().items()):
        found[name] = (
            header.events,
            torch.cat([value.flatten() for _, value in sorted(service.look_up(name)[1].items())]),
        )
    return found


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.always
def test_what_was_sent_is_counted_once_and_gives_the_same_states_offline(
    url: str, config: ServeConfig, store: Path, tmp_path: Path, threads: int
) -> None:
    summary, log = simulated(url, threads=threads)
    assert (summary.visits, summary.failed, summary.pending, summary.refused, summary.corrected) == (
        VISITS,
        0,
        0,
        0,
        0,
    )
    assert summary.new == summary.distinct == EVENTS
    assert summary.sent == EVENTS + summary.known
    assert summary.known > 0
    assert summary.items == 4
    assert sum(quality.impressions for quality in summary.phases.values()) == EVENTS
    assert summary.regret >= 0
    with (
        ItemService.open(store, config.states) as served,
        ItemService.open(store, f"sqlite:///{tmp_path}/off.db") as own,
    ):
        counts = replay(log, own)
        assert (counts.new, counts.known, counts.refused) == (EVENTS, summary.known, 0)
        one, other = states(served), states(own)
    assert {name: events for name, (events, _) in one.items()} == {name: events for name, (events, _) in other.items()}
    for name, (_, state) in one.items():
        assert torch.allclose(state, other[name][1], atol=TOLERANCE, rtol=0), name


def test_the_same_seed_is_the_same_traffic(store: Path, tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        config = ServeConfig(stores=(store,), states=f"sqlite:///{tmp_path}/{name}.db", folder=tmp_path / name)
        with in_thread(create_app(config)) as url:
            summary, log = simulated(url)
        for line in (lines := [json.loads(line) for line in log]):
            for event in line.get("events", ()):
                event.pop("event_id")  # made of the request id, which is random
        found.append((lines, summary.phases, summary.regret))
    assert found[0] == found[1]


def test_clicks_of_visits_are_drawn_from_the_true_probabilities() -> None:
    visits = [Visit.draw(WORLD, TRAFFIC, number, WORLD.old_items) for number in range(500)]
    clicks, truth = (np.concatenate([getattr(visit, name) for visit in visits]) for name in ("clicks", "truth"))
    assert clicks.mean() == pytest.approx(truth.mean(), abs=0.03)
    delays = np.concatenate([visit.delays[visit.clicks] for visit in visits])
    assert delays.mean() == pytest.approx(TRAFFIC.click_delay, abs=0.2)
    assert {*np.concatenate([visit.delays[~visit.clicks] for visit in visits])} == {2 * TRAFFIC.click_delay}


def test_choosing_the_best_candidates_has_no_regret() -> None:
    summary, truth = Summary(), np.array([0.1, 0.7, 0.4, 0.6])
    summary.shown(truth, np.array([3, 1]))
    assert summary.regret == 0
    summary.shown(truth, np.array([0, 2]))
    assert summary.regret == pytest.approx(0.65 - 0.25)
    assert summary.random_regret == pytest.approx(2 * (0.65 - 0.45))


def test_a_strength_without_exploration_is_refused(shell: Shell) -> None:
    said = shell.fails("simulate", "--against", "http://127.0.0.1:9", "--strength", "0.5")
    assert said.endswith("--strength 0.5 says nothing without --explore; give that too, or leave it out")


def test_new_items_appear_by_time(url: str) -> None:
    with Client(url) as client:
        simulation = Simulation(client, WORLD, replace(TRAFFIC, new_item_every=10**6, new_item_seconds=0.1))
        list(simulation.run(seconds=0.6))
    assert 1 <= simulation.summary.items <= WORLD.new_items


def test_what_the_service_ranks_first_is_shown(url: str, store: Path, tmp_path: Path) -> None:
    visit = Visit.draw(WORLD, replace(TRAFFIC, exploration=0.0), 0, WORLD.old_items)
    assert visit.shown(np.array([0.1, 0.3, 0.2]), None, 2).tolist() == [1, 2]
    assert visit.shown(np.array([0.1, 0.3, 0.2]), [2, 0], 1).tolist() == [2]
    regrets = set()
    policies: tuple[Explore | None, ...] = (None, "none", "thompson")
    for n, explore in enumerate(policies):
        config = ServeConfig(stores=(store,), states=f"sqlite:///{tmp_path}/{n}.db", folder=tmp_path / str(n))
        with in_thread(create_app(config)) as own, Client(own) as client:
            simulation = Simulation(client, WORLD, replace(TRAFFIC, explore=explore, strength=5.0))
            list(simulation.run(visits=30))
        assert simulation.summary.failed == 0
        regrets.add(simulation.summary.regret)
    assert len(regrets) == 2  # greedy twice


def test_a_service_of_another_world_is_refused(url: str, tmp_path: Path) -> None:
    with Client(url) as client:
        with pytest.raises(SettingError, match=r"has items of another world .* --seed 2"):
            next(Simulation(client, World(2, 12, 20, 4, 30), TRAFFIC).run(visits=1))
        with pytest.raises(SettingError, match="does not know item 'i0012'"):
            next(Simulation(client, World(1, 13, 20, 4, 30), TRAFFIC).run(visits=1))


def test_a_service_that_has_gone_ends_the_simulation_with_what_was_not_acknowledged(config: ServeConfig) -> None:
    with in_thread(create_app(config)) as url:
        client = Client(url, retries=0)
        simulation = Simulation(client, WORLD, Traffic(8, 3, click_delay=3, repeated=0.0))
        running = simulation.run(interval=0.0)
        for _ in range(12):
            next(running)
    for _ in running:
        pass
    client.close()
    summary = simulation.summary
    assert summary.failed > 0
    assert summary.distinct + summary.pending == 3 * summary.visits
    assert summary.errors
    with in_thread(create_app(config)) as url, Client(url) as simulation.client:  # it is back: the rest is sent
        for _ in simulation.run(visits=0):
            pass
    assert (summary.distinct, summary.pending) == (3 * summary.visits, 0)


def test_a_line_that_is_none_of_a_log_is_refused(store: Path, tmp_path: Path) -> None:
    with ItemService.open(store, f"sqlite:///{tmp_path}/x.db") as service:
        for line in ("", "[]", '{"scores": []}'):
            with pytest.raises(DataError, match="line 1 is none of a sent log"):
                replay([line], service)


def test_the_command_prints_the_figures(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(seed: int) -> World:
        return World(seed, 12, 20, 4, 30)

    monkeypatch.setattr("newcomer.cli.simulate.World", small)
    monkeypatch.setattr("newcomer.simulation.world.LEARNER", QUICK)
    code, out, _ = shell.call("simulate", "--train", "shop")
    assert (code, "12 items learned" in out) == (0, True)
    assert "holds a model already" in shell.fails("simulate", "--train", "shop")
    with in_thread(create_app(ServeConfig(stores=(shell.folder / "shop",)))) as url:
        words = ["simulate", "--against", url, "--visits", "10", "--candidates", "8", "--shown", "3", "--repeated", "0"]
        code, out, _ = shell.call(*words, "--json", "--log", "sent.jsonl")
        assert code == 0
        found = json.loads(out)
        assert found["events"]["new"] == found["events"]["sent"] == 30
        assert (shell.folder / "sent.jsonl").read_text().count("event_id") == 30
        code, out, _ = shell.call(*words)
        assert "30 new" in out
        assert "regret" in out
        assert "--log sent.jsonl: is there already" in shell.fails(*words, "--log", "sent.jsonl")
    assert "no answer" in shell.fails("simulate", "--against", "http://127.0.0.1:9")


def test_the_command_refuses_more_shown_than_candidates(shell: Shell) -> None:
    assert "only 2 candidates" in shell.fails("simulate", "--candidates", "2", "--shown", "3")
