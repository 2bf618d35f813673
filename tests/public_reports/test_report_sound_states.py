"""Non-finite numbers are neither written as an item's state nor returned as scores; damaged states are recomputed."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from films import FILMS, events, features, poison, requests, trained
from newcomer.errors import LearnerError, StoreError
from newcomer.items.lifecycle import Lifecycle
from newcomer.items.methods.emerg import EmerG
from newcomer.items.serving.finite_checks import all_finite
from newcomer.items.serving.service import ItemService
from newcomer.store.states import Change, ItemState
from shell import Shell


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("films") / "store")


@pytest.fixture
def live(store: Path, tmp_path: Path) -> Iterator[ItemService]:
    live = ItemService.open(store, f"sqlite:///{tmp_path / 'items.db'}")
    assert set(live.headers()) == set(FILMS)
    yield live
    live.close()


def test_one_event_far_out_leaves_an_item_as_good_as_it_was(live: ItemService) -> None:
    """VowpalWabbit #537, libffm-python #5: one event with 1e7, or a sentinel, where prices were in [0, 1]."""
    live.warm(events("film 1", 20))
    before = live.score(requests("film 1"))["score"][0]
    for n, price in enumerate([1e7, 9.2e18, -9999.0, 1.7e308]):
        assert live.warm(events("film 1", 1, start=5000 + n, price=price)).new == 1
    after = live.score(requests(*["film 1"] * 3, price=[0.5, 1e3, 9.2e18]))["score"].to_list()
    assert all(0 < score < 1 for score in after)
    assert abs(after[0] - before) < 0.25
    assert all(torch.isfinite(value).all() for value in live.look_up("film 1")[1].values())


def test_a_feature_far_out_is_added_and_scored(live: ItemService) -> None:
    """The same through `add`: a price of 9.2e18."""
    new = features("a", "b").with_columns(minutes=pl.Series([9.2e18, -1e308]))
    assert live.add(new).new == ["a", "b"]
    assert all(0 < score < 1 for score in live.score(requests("a", "b"))["score"])


def test_a_state_that_is_no_number_is_refused_by_name_and_made_anew(live: ItemService) -> None:
    """VowpalWabbit #537: after such an event the stored state was NaN with a valid checksum, and every score with it."""
    live.warm(events("film 2", 10))
    right = live.score(requests("film 2"))["score"][0]
    poison(live, "film 2", price=1.5e9)
    with pytest.raises(
        StoreError, match=r"row 2, .* item 'film 2' has a state that is no number; `newcomer warm STORE --repair`"
    ):
        live.score(requests("film 1", "film 2"))
    answers = live.score(requests("film 1", "film 2", "film 3"), on_error="report")
    assert [score is not None for score in answers["score"]] == [True, False, True]
    assert "--repair" in answers["error"][1]
    assert live.repair().items == ["film 2"]
    healed = live.score(requests("film 2"))
    assert healed["events"][0] == live.headers()["film 2"].events
    assert abs(healed["score"][0] - right) < 0.2
    assert live.repair().items == []


def test_a_state_that_was_carried_away_by_a_number_far_out_is_made_anew(live: ItemService) -> None:
    """The same where the state is a number, of an event whose value was kept before there was a bound."""
    live.add(features("new"))
    live.warm(events("new", 3))
    states = live.states
    row, past = states.get(live.model, ["new"])["new"], states.event_history(live.model, ["new"])["new"]
    far = past[-1].__class__("far", 1, 1, [*list(past[-1].values or ())[:-1], 4e6])
    states.commit(
        live.model, [Change(ItemState("new", row.version + 1, "warm", 4, row.parameters, row.updated_at), [far])]
    )
    assert live.repair().items == ["new"]
    assert 0 < live.score(requests("new"))["score"][0] < 1
    assert live.warm(events("new", 2, start=9000)).new == 2


def test_more_events_heal_an_item_too(live: ItemService) -> None:
    """Where all of an item's events are weighed against where it began, a broken state is no reason to refuse new ones."""
    poison(live, "film 4")
    assert live.warm(events("film 4", 2)).new == 2
    assert live.score(requests("film 4"))["score"].is_finite().all()


def test_what_would_be_no_number_is_not_written_and_the_rest_is(
    live: ItemService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One such item among others in a table of events."""
    adapt = live.learner.adapt

    def broken(*given: object) -> object:
        for items, state in adapt(*given):  # type: ignore[arg-type]
            number = live.refreshed(["film 5"]).numbers["film 5"]
            yield (
                items,
                {key: v.index_fill(0, (items == number).nonzero()[:, 0], torch.nan) for key, v in state.items()},
            )

    monkeypatch.setattr(live.learner, "adapt", broken)
    before = live.states.get(live.model, ["film 5"])
    table = pl.concat([events("film 5", 3), events("film 6", 3, start=2000)])
    done = live.warm(table, on_error="report")
    assert (done.new, done.items) == (3, ["film 6"])
    assert done.left_out == ["item 'film 5': by these events its state would become no number; it stays as it was"]
    assert live.states.get(live.model, ["film 5"]) == before
    with pytest.raises(LearnerError, match="item 'film 5': by these events"):
        live.warm(events("film 5", 3))


def test_a_learner_in_memory_refuses_such_a_state_too(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same without a database: the learner stays what it was."""
    learner = EmerG.load(store)
    before = learner.score(requests("film 1"))
    nothing = {key: value[:1] * torch.nan for key, value in learner.state.items()}
    monkeypatch.setattr(Lifecycle, "warm_up", lambda *given: iter([(torch.tensor([1]), nothing)]))
    with pytest.raises(LearnerError, match="item 'film 1': its state would become no number"):
        learner.warm(events("film 1", 1))
    np.testing.assert_array_equal(learner.score(requests("film 1")), before)
    assert all_finite(learner.state).all()


def test_the_command_refuses_such_an_item_answers_the_rest_and_heals(store: Path, tmp_path: Path, shell: Shell) -> None:
    """VowpalWabbit #537 on the command line: it printed NaN, which is no JSON, and ended with exit code 0."""
    url = f"sqlite:///{tmp_path / 'other.db'}"
    live = ItemService.open(store, url)
    poison(live, FILMS[0]) if live.headers() else None
    live.close()
    requests(FILMS[0], FILMS[1]).write_ndjson(shell.folder / "r.jsonl")
    code, out, err = shell.call("score", str(store), "r.jsonl", "--states", url)
    answers = [json.loads(line, parse_constant=pytest.fail) for line in out.splitlines()]
    assert code == 3
    assert [answer["score"] is None for answer in answers] == [True, False]
    assert err.count("\n") == 1
    assert "left out: r.jsonl: row 1, column 'film': item 'film 0' has a state that is no number" in err
    assert "item 'film 0'" in shell.fails("score", str(store), "r.jsonl", "--states", url, "--strict")
    code, out, err = shell.call("warm", str(store), "--repair", "--states", url)
    assert (code, err) == (0, "")
    assert "1 item recomputed: film 0" in out
    assert shell.call("score", str(store), "r.jsonl", "--states", url)[0] == 0
    assert "no events; give a table of them, or --repair" in shell.fails("warm", str(store))


def test_items_of_a_store_that_are_no_numbers_are_not_taken_up(store: Path, tmp_path: Path) -> None:
    """A model that was poisoned before it was saved: the others are served."""
    learner = EmerG.load(store)
    learner.state = {key: value.index_fill(0, torch.tensor([3]), torch.nan) for key, value in learner.state.items()}
    from newcomer.store.sql import SqlItemStates

    live = ItemService(learner, "model", SqlItemStates(f"sqlite:///{tmp_path / 'poisoned.db'}"))
    assert set(live.headers()) == set(FILMS) - {"film 3"}
    assert live.add(features("film 3")).new == ["film 3"]
    assert live.score(requests("film 3"))["score"].is_finite().all()
    live.close()
