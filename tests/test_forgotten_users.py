"""Users who are forgotten: their events leave states and databases, and none comes again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from databases import Database
from films import FILMS, features, requests, trained
from newcomer.errors import DataError, StoreError
from newcomer.items.methods.emerg import EmerG
from newcomer.items.serving.service import ForgottenUser, ItemService
from newcomer.items.serving.user_digests import user_digest
from newcomer.store.states import KEPT
from shell import Shell

MAP: dict[str, Any] = {"adaptation": "map", "warmup_events": "all"}
KNOWN, UNSEEN = "3", "ann"
"""A user whom training knew, and one whom it did not."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("films") / "store", **MAP)


def events(count: int, *users: str, film: str = "new", start: int = 0) -> pl.DataFrame:
    """Events of these users, in turns."""
    chance = np.random.default_rng(start)
    return pl.DataFrame(
        {
            "film": [film] * count,
            "viewer": [users[n % len(users)] for n in range(count)],
            "page": [["home", "list"][n] for n in chance.integers(0, 2, count)],
            "price": chance.random(count),
            "liked": chance.integers(0, 2, count),
            "seen": start + np.arange(count),
            "event_id": [f"{start + n}" for n in range(count)],
        }
    )


def opened(store: Path, database: Database) -> ItemService:
    service = ItemService.open(store, database.url)
    service.add(features("new", "other"))
    return service


def alike(one: ItemService, other: ItemService, item: str = "new") -> None:
    (_, mine), (_, others) = one.look_up(item), other.look_up(item)
    for key, value in mine.items():
        torch.testing.assert_close(value, others[key], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("user", [KNOWN, UNSEEN])
def test_states_are_those_of_a_service_that_never_met_the_user(
    user: str, store: Path, databases: Callable[[], Database]
) -> None:
    rows = pl.concat([events(60, "5", user, "eve"), events(10, "5", film="other", start=100)])
    with opened(store, databases()) as service, opened(store, databases()) as never:
        service.warm(rows)
        never.warm(rows.filter(pl.col("viewer") != user))
        before = service.look_up("other")[0]
        found = service.forget_user(user)
        assert (found.events, found.items, found.in_summaries, found.lost, found.left_out) == (20, ["new"], 0, {}, [])
        alike(service, never)
        assert service.look_up("other")[0] == before
        assert found.untraceable == (len(FILMS) if user == KNOWN else 0)  # training had no event of others
        assert service.forget_user(user) == ForgottenUser(0, [], untraceable=found.untraceable)
        assert service.forget_user("nobody").untraceable == 0  # what was erased is not another user's
        kept = service.states.event_history(service.model, ["new"])["new"]
        assert [event.user for event in kept] == [user_digest(name) for name in ("5", "eve")] * 20
        more = events(30, "5", "bob", start=200)
        service.warm(more)
        never.warm(more)
        alike(service, never)
        np.testing.assert_allclose(
            service.score(requests("new", viewer="5"), uncertainty=True)["logit_std"],
            never.score(requests("new", viewer="5"), uncertainty=True)["logit_std"],
            rtol=1e-3,
        )


def test_a_forgotten_user_is_scored_as_one_never_seen_by_every_process(store: Path, database: Database) -> None:
    rows = requests(*FILMS[:3], "new", viewer=[KNOWN, "5", KNOWN, KNOWN])
    with opened(store, database) as service, opened(store, database) as other:
        before = other.score(rows)
        service.forget_user(KNOWN)
        unseen = service.score(requests(*FILMS[:3], "new", viewer=["nobody has", "5", "seen", "these"]))
        assert service.score(rows).equals(unseen)
        assert other.score(rows).equals(unseen)
        assert other.score(rows)["unseen"].to_list() == [1, 0, 1, 1]
        assert before["score"][1] == unseen["score"][1]
        assert before["score"][0] != unseen["score"][0]
    with opened(store, database) as later:
        assert later.score(rows).equals(unseen)


def test_later_events_of_a_forgotten_user_are_refused_by_name_for_good(store: Path, database: Database) -> None:
    with opened(store, database) as service, opened(store, database) as other:
        service.forget_user(f" {UNSEEN} ")
        for one in (service, other):
            with pytest.raises(DataError, match="row 2: event '1' of item 'new' is of a user who was forgotten; leave"):
                one.warm(events(4, "5", UNSEEN))
        assert service.look_up("new")[0].events == 0
        done = other.warm(events(4, "5", UNSEEN), on_error="report")
        assert (done.new, len(done.left_out)) == (2, 2)
        assert other.warm(events(2, UNSEEN), on_error="report").new == 0
        assert UNSEEN not in " ".join(done.left_out)
    with opened(store, database) as later:
        assert later.warm(events(4, "5", UNSEEN), on_error="report").known == 2


def test_what_was_erased_is_not_said_to_be_lost(store: Path, databases: Callable[[], Database]) -> None:
    """New features, events and a repair keep in mind that events were erased."""
    with opened(store, databases()) as service:
        service.warm(events(9, "5", "5", UNSEEN))
        assert service.forget_user(UNSEEN).events == 3
        service.warm(events(3, "5", start=50))
        service.repair()
        other = features("new").with_columns(genre=pl.lit("love"))
        assert (service.add(other, replace=True).replaced, service.add(other, replace=True).lost) == (["new"], {})
        assert service.add(features("new"), replace=True).lost == {}
        assert service.forget_user("nobody").remains == []
        assert service.refreshed(["new"]).erased == {"new": 3}


def test_an_event_that_comes_while_its_user_is_forgotten_does_not_stay(
    store: Path, databases: Callable[[], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = databases()
    with opened(store, database) as service, opened(store, database) as other:
        commit = service.states.commit

        def after_the_other(*arguments: Any) -> set[str]:
            monkeypatch.undo()
            assert other.forget_user(UNSEEN).events == 0
            return commit(*arguments)

        monkeypatch.setattr(service.states, "commit", after_the_other)
        done = service.warm(events(6, "5", UNSEEN), on_error="report")
        assert (done.new, len(done.left_out)) == (3, 3)
        kept = service.states.event_history(service.model, ["new"])["new"]
        assert {event.user for event in kept} == {user_digest("5")}


def test_an_item_that_changes_while_a_user_is_forgotten_loses_no_event(
    store: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(store, database) as service, opened(store, database) as other:
        service.warm(events(10, "5", UNSEEN))
        commit = service.states.commit

        def after_the_other(*arguments: Any) -> set[str]:
            monkeypatch.undo()
            assert other.warm(events(3, "5", start=50)).new == 3
            return commit(*arguments)

        monkeypatch.setattr(service.states, "commit", after_the_other)
        found = service.forget_user(UNSEEN)
        assert (found.events, found.items) == (5, ["new"])
        assert len(service.states.event_history(service.model, ["new"])["new"]) == 8


def test_what_a_summary_has_absorbed_is_counted_and_nothing_else_is_lost(
    store: Path, databases: Callable[[], Database]
) -> None:
    with opened(store, databases()) as service:
        service.warm(events(KEPT + 50, "5", "5", "5", "5", UNSEEN))  # of 250 events 100 are in the summary
        found = service.forget_user(UNSEEN)
        assert (found.events, found.in_summaries, found.lost, found.left_out) == (40, 10, {}, [])
        assert found.untraceable == 1  # 50 events without their user
        kept = service.states.event_history(service.model, ["new"])["new"]
        assert len(kept) == KEPT - 40
        service.warm(events(60, "5", start=1000))
        kept = service.states.event_history(service.model, ["new"])["new"]
        assert [event.id for event in kept][-60:] == [str(1000 + n) for n in range(60)]
        assert len(kept) == KEPT  # the places of erased events went first


def test_events_before_and_after_a_user_is_forgotten_enter_summaries_as_without_the_user(
    store: Path, databases: Callable[[], Database]
) -> None:
    first, then = events(190, "5", "bob", UNSEEN), events(130, "5", "bob", start=500)
    with opened(store, databases()) as service, opened(store, databases()) as never:
        service.warm(first)
        assert service.forget_user(UNSEEN).events == 63
        never.warm(first.filter(pl.col("viewer") != UNSEEN))
        for part in (then[:50], then[50:]):
            service.warm(part)
            never.warm(part)
        alike(service, never)


def test_an_item_whose_latest_events_are_all_the_users_begins_anew_and_says_so(
    store: Path, sqlite: Callable[[], Database]
) -> None:
    with opened(store, sqlite()) as service, opened(store, sqlite()) as never:
        service.warm(events(100, "5"))
        service.warm(events(150, UNSEEN, start=100))
        found = service.forget_user(UNSEEN)
        assert found.lost == {"new": "item 'new': the summary of its events before the latest is deleted"}
        alike(service, never)
        assert service.warm(events(5, "5", start=900)).new == 5


def test_what_a_learner_kept_of_a_user_before_it_was_saved_is_erased_from_the_database(
    store: Path, tmp_path: Path, sqlite: Callable[[], Database]
) -> None:
    learner = EmerG.load(store)
    learner.add(features("new"))
    learner.warm(events(20, "5", KNOWN).drop("event_id"))
    learner.save(tmp_path / "store")
    with ItemService.open(tmp_path / "store", sqlite().url) as service:
        assert service.look_up("new")[0].events == 20
        assert len(service.states.event_history(service.model, ["new"])["new"]) == 20
        found = service.forget_user(KNOWN)
        assert (found.events, found.items) == (10, ["new"])
        with opened(store, sqlite()) as never:
            never.warm(events(20, "5", KNOWN).filter(pl.col("viewer") == "5"))
            alike(service, never)


@pytest.mark.parametrize("settings", [{"adaptation": "adam", "warmup_events": "all"}, {"warmup_events": "new"}])
def test_of_other_adaptations_it_is_said_what_remains(
    settings: dict[str, Any], tmp_path: Path, sqlite: Callable[[], Database]
) -> None:
    store, database = trained(tmp_path / "store", **settings), sqlite()
    with opened(store, database) as service:
        service.warm(events(KEPT + 10, "5", UNSEEN))
        before = service.look_up("new")[0]
        found = service.forget_user(UNSEEN)
        assert found.untraceable >= 1
        if settings["warmup_events"] == "new":  # no event is kept
            assert (found.events, found.items) == (0, [])
            assert service.look_up("new")[0] == before
        else:
            assert (found.events, found.items) == (KEPT // 2, ["new"])
            assert found.lost == {"new": "item 'new': 10 of its events are not kept, and are lost"}
        with pytest.raises(DataError, match="is of a user who was forgotten"):
            service.warm(events(1, UNSEEN, start=900))


def test_a_damaged_item_is_named_and_the_user_leaves_the_others(store: Path, database: Database) -> None:
    with opened(store, database) as service:
        service.warm(pl.concat([events(4, UNSEEN, "5"), events(4, UNSEEN, "5", film="other", start=100)]))
        database.damage_event("100", "payload", json.dumps({"user": "x", "values": []}))
        found = service.forget_user(UNSEEN)
        assert found.items == ["new"]
        assert len(found.left_out) == 1
        assert "item 'other': event '100' is not what was written" in found.left_out[0]


def test_an_item_that_lacks_an_event_is_named_and_the_user_leaves_the_others(store: Path, database: Database) -> None:
    with opened(store, database) as service:
        service.warm(pl.concat([events(4, UNSEEN, "5"), events(4, UNSEEN, "5", film="other", start=100)]))
        database.delete_event("101")
        found = service.forget_user(UNSEEN)
        assert (found.events, found.items) == (2, ["new"])
        assert "item 'other': one of its latest events is not what was written" in found.left_out[0]


@pytest.mark.parametrize("user", ["", "  ", None])
def test_nobody_is_not_forgotten(user: Any, store: Path, sqlite: Callable[[], Database]) -> None:
    with opened(store, sqlite()) as service, pytest.raises(DataError, match="is no id; give the id of a user"):
        service.forget_user(user)


def test_where_nothing_can_be_written_nobody_is_forgotten(store: Path, sqlite: Callable[[], Database]) -> None:
    database = sqlite()
    opened(store, database).close()
    with ItemService.open(store, database.read_only_url()) as service:
        with pytest.raises(StoreError, match="cannot be written"):
            service.forget_user(UNSEEN)
        assert len(service.score(requests("new"))) == 1


def test_the_command_forgets_users_and_says_what_remains(store: Path, shell: Shell) -> None:
    states = f"sqlite:///{shell.folder / 'items.db'}"
    features("new").write_ndjson(shell.folder / "new.jsonl")
    events(6, "5", UNSEEN).write_ndjson(shell.folder / "events.jsonl")
    shell.call("add", str(store), "new.jsonl", "--states", states)
    shell.call("warm", str(store), "events.jsonl", "--states", states)
    code, out, err = shell.call("forget", str(store), "--user", UNSEEN, "--user", "5", "--states", states)
    assert (code, err) == (0, "")
    assert f"user {UNSEEN} is forgotten: 3 events of 1 item erased; later ones are refused" in out
    assert f"{len(FILMS)} items have events whose user is not kept" in out
    assert "user 5 is forgotten: 3 events of 1 item erased" in out
    refused = shell.fails("warm", str(store), "events.jsonl", "--states", states)
    assert "event '0' of item 'new' is of a user who was forgotten" in refused
    assert "give only one of --class" in shell.fails("forget", str(store), "--user", "5", "--item", "new")
    assert "is no id" in shell.fails("forget", str(store), "--user", " ", "--states", states)
