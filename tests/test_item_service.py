"""The item service equals the learner in memory, with several processes, threads and failures."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from databases import Database, SqlDatabase
from newcomer.data.io.log_reader import items_from_frame, log_from_frame
from newcomer.data.schema import Field, Schema
from newcomer.errors import DataError, StoreError
from newcomer.items.learner import ItemLearner
from newcomer.items.methods.emerg import EmerG
from newcomer.items.methods.id_tuning import IdTuning
from newcomer.items.networks.item_network import State
from newcomer.items.serving.serialization import SUFFICIENT, phase
from newcomer.items.serving.service import SCORE_COLUMNS, Added, ItemService, Warmed, fingerprint
from newcomer.store.states import KEPT, ItemStates
from newcomer.store.urls import open_states

SCHEMA = Schema(
    "film",
    "viewer",
    "liked",
    "seen",
    (
        Field("genre", "item"),
        Field("words", "item", "text"),
        Field("minutes", "item", "numeric", missing="mark"),
        Field("age", "user"),
        Field("tags", "user", "multi"),
        Field("page", "context", missing="mark"),
        Field("price", "context", "numeric", missing="mark"),
    ),
)
SHORT: dict[str, Any] = {"width": 4, "pretrain_epochs": 1, "batch_size": 64, "warmup_steps": 3, "device": "cpu"}
META = SHORT | {"meta_epochs": 1, "episodes_per_step": 8, "support_events": 6, "query_events": 6}
KINDS: dict[str, tuple[type[ItemLearner], dict[str, Any]]] = {
    "emerg": (EmerG, META),
    "emerg, all events so far": (EmerG, META | {"warmup_events": "all"}),
    "deepfm": (IdTuning, SHORT | {"hidden": [8]}),
    "deepfm, all events so far": (IdTuning, SHORT | {"hidden": [8], "warmup_events": "all"}),
}


def events(films: range, each: int, seed: int = 0, start: int = 0) -> pl.DataFrame:
    """So many events of each of these films, with fields of every kind and an id."""
    chance = np.random.default_rng(seed)
    film = chance.permutation(np.repeat(np.array(films), each))
    viewer = chance.integers(0, 15, len(film))
    words = ["sea sun", "sea", "war and sun", "love"]
    return pl.DataFrame(
        {
            "film": [f"film {n:02d}" for n in film],
            "viewer": viewer,
            "liked": (chance.random(len(film)) < 0.2 + 0.06 * (film % 8)).astype(int),
            "seen": start + np.arange(len(film)),
            "genre": [f"genre {n % 3}" for n in film],
            "words": [words[n % 4] for n in film],
            "minutes": [None if n % 5 == 2 else 80.0 + n for n in film],
            "age": [str(n % 4) for n in viewer],
            "tags": [["a|b", "", "a|b|c"][n % 3] for n in viewer],
            "page": [["home", "list", None][n] for n in chance.integers(0, 3, len(film))],
            "price": [None if x > 1.5 else x for x in chance.normal(size=len(film)).tolist()],
            "event_id": [f"e{seed}-{n}" for n in range(len(film))],
        }
    )


OLD, NEW = range(8), range(8, 12)
FIRST, SECOND = events(NEW, 6, seed=1), events(NEW, 5, seed=2)
QUERY = events(range(12), 7, seed=3)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store of each kind that has learned its old films."""
    root = tmp_path_factory.mktemp("stores")
    for name, (kind, settings) in KINDS.items():
        kind(SCHEMA, **settings).learn(events(OLD, 30)).save(root / name)
    return {name: root / name for name in KINDS}


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Place:
    """Services and learners of one kind; what services write is in a database of its own."""

    def __init__(self, name: str, store: Path, databases: Callable[[], Database]) -> None:
        self.kind, self.store, self.databases, self.database = KINDS[name][0], store, databases, databases()
        self.url = self.database.url

    def live(self, url: str | None = None) -> ItemService:
        return ItemService(self.kind.load(self.store), fingerprint(self.store), open_states(url or self.url))

    def elsewhere(self) -> ItemService:
        """With the new films added, in another database, which is the place's from here on."""
        self.url = self.databases().url
        return self.ready()

    def learner(self) -> ItemLearner:
        return self.kind.load(self.store)

    def ready(self) -> ItemService:
        """With the new films added."""
        live = self.live()
        live.add(features(NEW))
        return live


@pytest.fixture
def place(name: str, stores: dict[str, Path], sqlite: Callable[[], Database]) -> Place:
    return Place(name, stores[name], sqlite)


@pytest.fixture
def shared(name: str, stores: dict[str, Path], databases: Callable[[], Database]) -> Place:
    """A place in each kind of database."""
    return Place(name, stores[name], databases)


@pytest.fixture
def emerg(stores: dict[str, Path], sqlite: Callable[[], Database]) -> Place:
    return Place("emerg", stores["emerg"], sqlite)


def features(films: range) -> pl.DataFrame:
    return events(films, 1).unique("film").select("film", "genre", "words", "minutes").sort("film")


def states(live: ItemService, items: list[str]) -> State:
    """The items' states as they are in the database."""
    known = live.refreshed(items)
    rows = [known.numbers[item] for item in items]
    return {key: value[rows] for key, value in known.state.items()}


def alike(one: ItemService, other: ItemService, items: list[str]) -> None:
    heads = [live.states.headers(live.model, items) for live in (one, other)]
    assert {name: head.events for name, head in heads[0].items()} == {
        name: head.events for name, head in heads[1].items()
    }
    for key, value in states(one, items).items():
        torch.testing.assert_close(value, states(other, items)[key], atol=1e-5, rtol=1e-4)


def scores(live: ItemService, table: pl.DataFrame = QUERY) -> np.ndarray[Any, Any]:
    return live.score(table)["score"].to_numpy()


FILMS = [f"film {n:02d}" for n in range(12)]


def test_a_service_equals_the_learner_in_memory(shared: Place) -> None:
    learner, live = shared.learner(), shared.live()
    learner.add(features(NEW))
    assert live.add(features(NEW)) == Added([f"film {n:02d}" for n in NEW], [])
    np.testing.assert_allclose(scores(live), learner.score(QUERY), atol=1e-6)
    for part in (FIRST, SECOND, events(OLD, 3, seed=4)):
        learner.warm(part)
        assert live.warm(part).new == len(part)
        np.testing.assert_allclose(scores(live), learner.score(QUERY), atol=1e-5)
        np.testing.assert_allclose(scores(shared.live()), learner.score(QUERY), atol=1e-5)


def test_a_learner_that_was_warmed_before_it_was_saved_goes_on_from_there(place: Place, tmp_path: Path) -> None:
    learner = place.learner().add(features(NEW)).warm(FIRST)
    learner.save(tmp_path / "warmed")
    place.store = tmp_path / "warmed"
    live = place.live()
    np.testing.assert_allclose(scores(live), learner.score(QUERY), atol=1e-6)
    live.warm(SECOND)
    np.testing.assert_allclose(scores(live), learner.warm(SECOND).score(QUERY), atol=1e-5)
    answers = live.score(QUERY)
    assert set(answers.filter(QUERY["film"] >= "film 08")["events"]) == {11}
    assert set(answers.filter(QUERY["film"] < "film 08")["events"]) == {30}


def test_a_score_names_model_phase_and_events(place: Place) -> None:
    live = place.ready()
    live.warm(FIRST.filter(pl.col("film") == "film 08"))
    answers = live.score(QUERY)
    assert answers.schema == SCORE_COLUMNS
    assert set(answers["model"]) == {fingerprint(place.store)}
    cold, warm = answers.filter(QUERY["film"] == "film 09"), answers.filter(QUERY["film"] == "film 08")
    assert set(zip(cold["phase"], cold["events"], strict=True)) == {("cold", 0)}
    assert set(zip(warm["phase"], warm["events"], strict=True)) == {("warm", 6)}
    assert answers["score"].is_between(0, 1).all()


def test_warming_some_items_leaves_all_others_and_the_weights_as_they_were(place: Place) -> None:
    live = place.ready()
    others = [name for name in FILMS if name != "film 09"]
    before, weights = (
        live.states.get(live.model, others),
        {k: v.clone() for k, v in live.learner.network.state_dict().items()},
    )
    assert live.warm(FIRST.filter(pl.col("film") == "film 09")).items == ["film 09"]
    assert live.states.get(live.model, others) == before
    assert all(torch.equal(value, weights[key]) for key, value in live.learner.network.state_dict().items())


def test_an_event_counts_once_however_often_it_comes(shared: Place) -> None:
    once, often = shared.ready(), shared.ready()
    assert once.warm(FIRST) == Warmed(24, 0, FILMS[8:])
    before = once.states.get(once.model, FILMS)
    twice = pl.concat([FIRST, FIRST.sample(fraction=1, shuffle=True, seed=0), FIRST.head(3)])
    assert often.warm(twice) == Warmed(0, 51, [])
    assert often.states.get(often.model, FILMS) == before
    assert often.warm(pl.concat([FIRST, SECOND, SECOND])) == Warmed(20, 44, FILMS[8:])


def test_an_item_of_which_all_events_are_known_stays_as_it_is_beside_others(place: Place) -> None:
    live = place.ready()
    live.warm(FIRST)
    before = live.states.get(live.model, FILMS[8:11])
    known = FIRST.filter(pl.col("film") < "film 11")
    assert live.warm(pl.concat([known, SECOND.filter(pl.col("film") == "film 11")])) == Warmed(5, 18, ["film 11"])
    assert live.states.get(live.model, FILMS[8:11]) == before


def test_doubles_in_one_table_are_as_good_as_none(place: Place) -> None:
    live = place.ready()
    live.warm(pl.concat([FIRST, FIRST]))
    other = place.elsewhere()
    other.warm(FIRST)
    alike(live, other, FILMS)


def test_an_event_without_an_id_is_identified_by_its_content(emerg: Place) -> None:
    live, nameless = emerg.ready(), FIRST.drop("event_id", "genre", "minutes", "words")
    assert live.warm(nameless).new == 24
    assert live.warm(nameless.sample(fraction=1, shuffle=True, seed=1)).new == 0
    assert live.warm(log_from_frame(nameless, SCHEMA, items=False)).new == 0
    for column, value in (("seen", 10**6), ("viewer", 99), ("page", "other"), ("price", 7.0), ("film", "film 08")):
        other = nameless.filter(pl.col("film") == "film 09").head(1).with_columns(pl.lit(value).alias(column))
        assert live.warm(other).new == 1, column


def test_another_column_can_hold_the_ids(emerg: Place) -> None:
    live = emerg.ready()
    named = FIRST.rename({"event_id": "request"})
    assert live.warm(named, event_id="request").new == 24
    assert live.warm(FIRST).new == 0
    with pytest.raises(DataError, match="no column 'reqest'; did you mean 'request'"):
        live.warm(named, event_id="reqest")
    for misspelt in ("EventID", "event_id ", "eventId"):
        with pytest.raises(DataError, match=f"column '{misspelt}' looks like event ids"):
            live.warm(FIRST.rename({"event_id": misspelt}))
    assert live.warm(FIRST.rename({"event_id": "EventID"}), event_id="EventID").new == 0
    for wrong in (None, "", "x" * 256, "x\0"):
        with pytest.raises(DataError, match=r"row 1, column 'event_id' is .* give every event an id"):
            live.warm(FIRST.with_columns(pl.lit(wrong, dtype=pl.String).alias("event_id")))


def test_the_clock_may_go_backwards(place: Place) -> None:
    live = place.ready()
    live.warm(FIRST)
    live.warm(SECOND)
    other = place.elsewhere()
    for part in (FIRST, SECOND):
        other.warm(part.with_columns(seen=-pl.col("seen")).reverse())
    alike(live, other, FILMS)


def test_adding_an_item_again_with_the_same_features_is_reported_and_with_others_an_error(place: Place) -> None:
    live = place.ready()
    before = live.states.get(live.model, FILMS)
    assert live.add(features(range(6, 12))) == Added([], FILMS[6:])
    turned = features(NEW).with_columns(pl.col("words").replace({"sea sun": "sun sea"}))
    assert live.add(turned) == Added([], FILMS[8:])
    other = features(range(10, 14)).with_columns(genre=pl.lit("genre 0"))
    with pytest.raises(DataError, match="items: item 'film 10' is there with other features"):
        live.add(other)
    assert live.states.get(live.model, [*FILMS, "film 12", "film 13"]) == before


@pytest.mark.parametrize("name", ["emerg"])
def test_an_item_with_other_features_has_the_state_of_one_that_had_them_from_the_start(shared: Place) -> None:
    first, second, query = (part.drop("genre", "words", "minutes") for part in (FIRST, SECOND, QUERY))
    live, other = shared.ready(), shared.live()
    scores(other, query)
    live.warm(first)
    now = features(NEW).with_columns(genre=pl.lit("genre 0"), minutes=pl.lit(33.0))
    assert live.add(now, replace=True) == Added([], [], replaced=FILMS[8:])
    assert live.add(now, replace=True) == live.add(now) == Added([], FILMS[8:])
    assert {head.events for head in live.states.headers(live.model, FILMS[8:]).values()} == {6}
    live.warm(second)
    found, found_by_other = scores(live, query), scores(other, query)
    right = shared.elsewhere()
    right.forget(FILMS[8:])
    right.add(now)
    right.warm(first)
    right.warm(second)
    alike(live, right, FILMS[8:])
    np.testing.assert_allclose(found, scores(right, query), atol=1e-5)
    np.testing.assert_allclose(found, found_by_other, atol=1e-6)


@pytest.mark.parametrize("name", ["deepfm", "deepfm, all events so far"])
def test_features_do_not_change_where_a_state_cannot_begin_anew(place: Place) -> None:
    live = place.ready()
    before = live.states.get(live.model, FILMS)
    with pytest.raises(DataError, match=r"is there with other features; add it under another id$"):
        live.add(features(NEW).with_columns(minutes=pl.lit(33.0)), replace=True)
    assert live.states.get(live.model, FILMS) == before


def test_what_a_replaced_item_loses_is_said(emerg: Place) -> None:
    live = emerg.ready()
    done = live.add(features(range(1)).with_columns(genre=pl.lit("genre 3")), replace=True)
    assert done.lost == {
        "film 00": "item 'film 00': what training learned about it is lost; its state begins at its new features"
    }
    again = live.add(features(range(1)), replace=True)
    assert (again.replaced, list(again.lost)) == (["film 00"], ["film 00"])


def test_features_that_change_while_events_arrive_lose_neither(emerg: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    live, other = emerg.ready(), emerg.live()
    now = features(NEW).with_columns(genre=pl.lit("genre 0"), minutes=pl.lit(33.0))
    commit, parts = live.states.commit, [FIRST.drop("genre", "words", "minutes")]

    def delayed(model: str, changes: Any) -> set[str]:
        if parts:
            other.warm(parts.pop())
        return commit(model, changes)

    monkeypatch.setattr(live.states, "commit", delayed)
    assert live.add(now, replace=True).replaced == FILMS[8:]
    right = emerg.elsewhere()
    right.add(now, replace=True)
    right.warm(FIRST.drop("genre", "words", "minutes"))
    alike(live, right, FILMS[8:])


def test_of_two_concurrent_additions_the_first_wins(emerg: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    live, other = emerg.live(), emerg.live()
    scores(live, QUERY.filter(pl.col("film") < "film 08"))
    add, first = live.states.add, features(range(8, 10))

    def delayed(model: str, changes: Any) -> set[str]:
        other.add(first)
        return add(model, changes)

    monkeypatch.setattr(live.states, "add", delayed)
    assert live.add(features(range(9, 11))) == Added(["film 10"], ["film 09"])
    first = features(range(11, 12))
    with pytest.raises(DataError, match="item 'film 11' is there with other features"):
        live.add(first.with_columns(genre=pl.lit("genre 0")))
    np.testing.assert_allclose(scores(live), scores(other), atol=1e-6)


OPENED = """
import sys
from newcomer.items.methods.emerg import EmerG
from newcomer.items.serving.service import ItemService, fingerprint
from newcomer.store.urls import open_states

store, url = sys.argv[1:]
with ItemService(EmerG.load(store), fingerprint(store), open_states(url)) as service:
    print(*sorted(service.headers()), sep=",")
"""


@pytest.mark.parametrize("name", ["emerg"])
def test_a_deleted_item_that_training_learned_is_nowhere_again(shared: Place) -> None:
    """Not for who deleted it, not for one that was open, not after a restart, and not in another process."""
    live, other = shared.live(), shared.live()
    scores(other, QUERY.filter(pl.col("film") < "film 08"))
    assert live.forget(FILMS[:2]) == FILMS[:2]
    left = FILMS[2:8]
    for service in (live, other, shared.live()):
        assert sorted(service.headers()) == left
        with pytest.raises(DataError, match="item 'film 00' is not known"):
            service.look_up("film 00")
    words = [sys.executable, "-W", "error", "-c", OPENED, str(shared.store), shared.url]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip().split(",") == left
    assert shared.live().add(features(range(1))) == Added(["film 00"], [])
    assert other.headers()["film 00"].events == 0  # and begins anew


def test_a_user_whose_fields_change_is_scored_by_those_of_each_row(emerg: Place) -> None:
    """A table that was joined with users of today and of yesterday: each row counts as it stands."""
    live, row = emerg.ready(), QUERY.head(1)
    other = row.with_columns(age=pl.lit("age 1"), tags=pl.lit("x"))
    both = live.score(pl.concat([row, other.cast(row.schema)]))["logit"]
    assert both.to_list() == pytest.approx([live.score(one)["logit"][0] for one in (row, other)], abs=1e-6)


def test_writes_of_one_process_are_seen_by_others(shared: Place) -> None:
    one, other = shared.ready(), shared.live()
    assert (scores(one) == scores(other)).all()
    one.add(features(range(12, 13)))
    one.warm(FIRST)
    assert (scores(one) == scores(other)).all()
    other.warm(events(range(12, 13), 4, seed=8))
    assert one.score(events(range(12, 13), 1))["events"].to_list() == [4]


def test_two_services_at_once_lose_and_double_no_event(shared: Place) -> None:
    parts = [events(NEW, 4, seed=seed) for seed in range(10, 16)]
    shared.ready()
    services = [shared.live(), shared.live()]
    threads = [Thread(target=lambda live=live: [live.warm(part) for part in parts]) for live in services]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    heads = services[0].states.headers(services[0].model, FILMS[8:])
    assert {head.events for head in heads.values()} == {24}
    assert services[1].warm(pl.concat(parts)).new == 0


@pytest.mark.parametrize("name", ["emerg"])
def test_impressions_and_clicks_that_race_give_one_state(shared: Place) -> None:
    """Two processes, one with the impressions and one with the clicks on some of them, in opposite orders."""
    parts = [events(NEW, 4, seed=seed).with_columns(pl.lit(0).alias("liked")) for seed in range(10, 16)]
    clicks = [part.gather_every(3).with_columns(pl.lit(1).alias("liked")) for part in parts]
    shared.ready()
    services = [shared.live(), shared.live()]

    def send(live: ItemService, tables: list[pl.DataFrame]) -> None:
        for table in tables:
            live.warm(table)

    threads = [Thread(target=send, args=both) for both in zip(services, (parts, clicks[::-1]), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = shared.elsewhere()
    whole.warm(pl.concat([*parts, *clicks]))
    for key, value in states(services[0], FILMS[8:]).items():
        torch.testing.assert_close(value, states(whole, FILMS[8:])[key], atol=2e-3, rtol=1e-2)
    ids = {name: [f"{n}" for n in pl.concat(parts)["event_id"].cast(pl.String)] for name in FILMS[8:]}
    found, right = (live.states.labels(live.model, ids) for live in (services[1], whole))
    assert found == right
    assert sum(sum(labels.values()) for labels in right.values()) == sum(map(len, clicks))


def test_a_state_that_changes_meanwhile_is_tuned_anew(emerg: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other's events come between reading and writing; the result is as if they had come first."""
    live, other = emerg.ready(), emerg.live()
    advance, late = live.states.commit, list[set[str]]()

    def delayed(*given: Any) -> set[str]:
        if not late:
            other.warm(FIRST)
        late.append(advance(*given))
        return late[-1]

    monkeypatch.setattr(live.states, "commit", delayed)
    assert live.warm(pl.concat([SECOND, FIRST.head(2)])).new == 20
    assert late == [set(FILMS[8:]), set()]
    learner = emerg.learner().add(features(NEW)).warm(FIRST).warm(SECOND)
    np.testing.assert_allclose(scores(live), learner.score(QUERY), atol=1e-5)


def test_an_item_that_others_change_without_end_is_an_error(emerg: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    live = emerg.ready()
    monkeypatch.setattr(live.states, "commit", lambda model, changes, *_: {change.state.item for change in changes})
    with pytest.raises(
        StoreError, match="'film 08' was changed by others 100 times meanwhile; send the same events again"
    ):
        live.warm(FIRST.filter(pl.col("film") == "film 08"))


@pytest.mark.parametrize("name", ["emerg", "emerg, all events so far"])
def test_an_item_with_a_damaged_event_is_left_out_and_the_others_are_warmed(shared: Place) -> None:
    live, damaged = shared.ready(), FIRST["film"][0]
    live.warm(FIRST)
    shared.database.damage_event("e1-0", "position", "77")
    before = live.states.headers(live.model, [damaged])
    with pytest.raises(StoreError, match=f"item '{damaged}': event 'e1-0' is not what was written"):
        live.warm(FIRST)
    done = live.warm(pl.concat([FIRST, SECOND]), on_error="report")
    assert (done.new, done.known, done.items) == (15, 18, sorted({*FILMS[8:]} - {damaged}))
    assert len(done.left_out) == 1
    assert f"item '{damaged}': event 'e1-0' is not what was written" in done.left_out[0]
    assert "(11 events of it)" in done.left_out[0]
    assert live.states.headers(live.model, [damaged]) == before


@pytest.mark.parametrize("name", ["emerg, all events so far"])
def test_where_nothing_can_be_written_items_are_scored(shared: Place) -> None:
    live = shared.ready()
    live.warm(FIRST)
    reader = shared.live(shared.database.read_only_url())
    assert (scores(reader) == scores(live)).all()
    live.warm(SECOND)
    shared.database.read_only_url()  # a replica has it by now
    assert (scores(reader) == scores(live)).all()
    for write in (lambda: reader.warm(SECOND), lambda: reader.add(features(NEW)), lambda: reader.forget(["film 09"])):
        with pytest.raises(StoreError, match="cannot be written, and was read as it is: items can be scored, but not"):
            write()


@pytest.mark.parametrize("name", ["emerg"])
def test_where_nothing_can_be_written_the_learners_items_must_be_there(shared: Place) -> None:
    open_states(shared.url).close()
    reader = shared.live(shared.database.read_only_url())
    with pytest.raises(
        StoreError, match=r"the database refused \(.*read.?only.*\); (open it once where|make the file)"
    ):
        scores(reader)


FORKS = """
import json, os, random, signal, sys, time
import polars as pl
from newcomer.data.io.log_reader import log_from_frame
from newcomer.items.methods.emerg import EmerG
from newcomer.items.methods.id_tuning import IdTuning
from newcomer.items.serving.service import ItemService, fingerprint
from newcomer.store.urls import open_states

kind, store, url, *files = sys.argv[1:]
learner = {"emerg": EmerG, "id-tuning": IdTuning}[kind].load(store)
logs = [log_from_frame(pl.read_parquet(file), learner.schema, items=False) for file in files]

def warm():
    live = ItemService(learner, fingerprint(store), open_states(url))
    for log in logs:
        live.warm(log)
    live.close()

def forked():
    child = os.fork()
    if not child:
        warm()
        os._exit(0)
    return child
"""
"""One process that has loaded everything, whose children warm the items up."""

OTHERS = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("postgresql", "valkey")]

KILLED = """
chance, killed = random.Random(0), 0
while killed < 100:
    child = forked()
    time.sleep(chance.uniform(0.005, 0.1))
    os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1] != signal.SIGKILL:
        break
    killed += 1
warm()
print(killed)
"""

TOGETHER = """
children = [forked() for _ in range(3)]
print([os.waitpid(child, 0)[1] for child in children])
"""


def run(script: str, place: Place, parts: list[pl.DataFrame], folder: Path) -> str:
    """What the script prints, the parts at hand."""
    for n, part in enumerate(parts):
        part.write_parquet(folder / f"{n}.parquet")
    files = [str(folder / f"{n}.parquet") for n in range(len(parts))]
    words = [sys.executable, "-W", "error", "-c", FORKS + script, place.kind.name, str(place.store), place.url, *files]
    few = os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run(words, env=few, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["emerg", pytest.param("deepfm, all events so far", marks=pytest.mark.slow)])
@pytest.mark.parametrize("databases", ["sqlite", *OTHERS], indirect=True)
@pytest.mark.always
def test_killed_at_any_moment_no_event_is_lost_or_counted_twice(shared: Place, tmp_path: Path) -> None:
    parts = [events(NEW, 2, seed=seed).drop("event_id") for seed in range(20, 40)]
    shared.ready()
    assert int(run(KILLED, shared, parts, tmp_path)) >= 5
    live = shared.live()
    whole = shared.elsewhere()
    for part in parts:
        whole.warm(part)
    alike(live, whole, FILMS)


@pytest.mark.parametrize("name", ["emerg, all events so far"])
def test_processes_that_warm_at_once_count_every_event_once(shared: Place, tmp_path: Path) -> None:
    parts = [events(NEW, 2, seed=seed).drop("event_id") for seed in range(20, 30)]
    shared.ready()
    assert run(TOGETHER, shared, parts, tmp_path) == "[0, 0, 0]"
    live = shared.live()
    whole = shared.elsewhere()
    for part in parts:
        whole.warm(part)
    alike(live, whole, FILMS)


def test_zero_rows_are_answered_with_nothing(emerg: Place) -> None:
    live = emerg.ready()
    assert live.score(QUERY.clear()).schema == SCORE_COLUMNS
    assert len(live.score(QUERY.clear())) == 0
    assert live.warm(FIRST.clear()) == Warmed(0, 0, [])
    assert live.add(features(NEW).clear()) == Added([], [])


def test_an_item_that_was_not_added_is_named(emerg: Place) -> None:
    live = emerg.live()
    for call in (live.score, live.warm):
        with pytest.raises(
            DataError, match=r"table: row \d+, column 'film': item 'film \d\d' is not known; add it first"
        ):
            call(SECOND)
    with pytest.raises(DataError, match=r"item '' has 0 characters|item 'x+…' has 300 characters"):
        live.add(features(NEW).with_columns(film=pl.lit("x" * 300)).head(1))
    with pytest.raises(DataError, match="item 'x\0y…' has a NUL; give an id of 1 to 255 without NUL"):
        live.add(features(NEW).with_columns(film=pl.lit("x\0y")).head(1))


@pytest.mark.parametrize("name", ["\ud800", "film \udcff", " \udfff "])
def test_half_of_a_character_is_refused_by_name(emerg: Place, name: str) -> None:
    with emerg.live() as service:
        for ask in (service.look_up, service.forget):
            with pytest.raises(
                DataError, match=r"'.*\\ud.*' has half of a character \(a lone surrogate\); write whole"
            ):
                ask(name)


def test_users_and_values_never_seen_are_read_as_unseen(place: Place) -> None:
    live = place.ready()
    row = {
        "film": ["film 09"],
        "viewer": ["nobody"],
        "age": ["99"],
        "tags": ["new|tags|altogether"],
        "page": ["elsewhere"],
    }
    assert live.score(pl.DataFrame(row | {"price": [1e3]}))["score"].is_between(0, 1).all()
    assert live.warm(pl.DataFrame(row | {"price": [1e3], "liked": [1], "seen": [1], "event_id": ["x"]})).new == 1
    strange = pl.DataFrame({"film": ["film 77"], "genre": ["opera"], "words": ["gnu"], "minutes": [None]})
    assert live.add(strange.with_columns(pl.col("minutes").cast(pl.Float64))).new == ["film 77"]
    assert len(live.score(QUERY.head(3).drop("genre", "minutes", "words").with_columns(film=pl.lit("film 77")))) == 3


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("count", [1, 40])
def test_events_of_one_kind_move_the_score_that_way(place: Place, label: int, count: int) -> None:
    live = place.ready()
    mine = QUERY.filter(pl.col("film") == "film 10")
    before = scores(live, mine)
    live.warm(events(range(10, 11), count, seed=30).with_columns(liked=pl.lit(label)))
    after = scores(live, mine)
    assert ((after - before).mean() > 0) == bool(label)
    assert np.isfinite(after).all()


def test_very_many_events_at_once_or_in_parts_are_all_counted(place: Place) -> None:
    live, many = place.ready(), events(range(8, 9), 5000, seed=40)
    assert live.warm(many).new == 5000
    for start in range(0, 1000, 250):
        part = events(range(9, 10), 250, seed=41 + start)
        assert live.warm(part).new == 250
    heads = live.states.headers(live.model, FILMS[8:10])
    assert [(head.events, head.phase, head.version) for head in heads.values()] == [
        (5000, "sufficient", 1),
        (1000, "sufficient", 4),
    ]
    kept = live.states.event_history(live.model, FILMS[8:10])
    keeps = KEPT if live.learner.warmup_events == "all" else 0
    assert [len(past) for past in kept.values()] == [keeps, keeps]
    assert live.warm(many).new == 0


def test_phases_go_by_the_number_of_events() -> None:
    assert [phase(n) for n in (0, 1, SUFFICIENT - 1, SUFFICIENT, 10**6)] == [
        "cold",
        "warm",
        "warm",
        *["sufficient"] * 2,
    ]


@pytest.mark.parametrize("kind", [EmerG, IdTuning])
def test_items_without_fields_go_through_all_phases(kind: type[ItemLearner], tmp_path: Path) -> None:
    bare = Schema("film", "viewer", "liked", "seen")
    settings = META if kind is EmerG else SHORT | {"hidden": [8]}
    learner = kind(bare, **settings).learn(events(OLD, 20))
    learner.save(tmp_path / "bare")
    live = ItemService.open(tmp_path / "bare")
    live.add(features(NEW))
    live.warm(FIRST)
    learner.add(features(NEW)).warm(FIRST)
    np.testing.assert_allclose(scores(live), learner.score(QUERY), atol=1e-5)
    assert (tmp_path / "bare" / "items.db").exists()


def test_the_states_of_other_weights_are_not_used(
    stores: dict[str, Path], sqlite: Callable[[], Database], tmp_path: Path
) -> None:
    EmerG(SCHEMA, **META | {"seed": 1}).learn(events(OLD, 30)).save(tmp_path / "again")
    one, other = Place("emerg", stores["emerg"], sqlite), Place("emerg", tmp_path / "again", sqlite)
    other.url = one.url
    live = one.ready()
    live.warm(FIRST)
    with pytest.raises(DataError, match="is not known; add it first"):
        other.live().score(SECOND)
    second = other.ready()
    assert second.warm(FIRST).new == 24
    learner = other.learner().add(features(NEW)).warm(FIRST)
    np.testing.assert_allclose(scores(second), learner.score(QUERY), atol=1e-5)
    learner = one.learner().add(features(NEW)).warm(FIRST)
    np.testing.assert_allclose(scores(live), learner.score(QUERY), atol=1e-5)


def test_ten_thousand_items_are_taken_up_once(emerg: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = emerg.learner()
    many = features(range(8, 9)).join(pl.DataFrame({"n": range(10_000)}), how="cross")
    learner.add(items_from_frame(many.with_columns(film=pl.format("item {}", "n")).drop("n"), SCHEMA))
    live = ItemService(learner, "a model", open_states(emerg.url))
    live.score(QUERY.head(1).drop("genre", "minutes", "words").with_columns(film=pl.lit("film 00")))
    assert len(live.states.headers("a model")) == 10_008
    again = ItemService(learner, "a model", open_states(emerg.url))
    monkeypatch.setattr(again.states, "add", None)
    again.score(QUERY.head(1).drop("genre", "minutes", "words").with_columns(film=pl.lit("film 00")))


def test_a_damaged_row_is_named(emerg: Place) -> None:
    emerg.ready().close()
    SqlDatabase("sqlite", emerg.url).damage_state("film 09", "event_count", "7")
    live = emerg.live()
    with pytest.raises(StoreError, match=r"item 'film 09': its row is not what was written \(checksum\); restore"):
        live.score(QUERY)
    assert len(live.score(QUERY.filter(pl.col("film") != "film 09"))) == 77


def test_an_item_whose_rows_were_deleted_can_be_added_again(emerg: Place) -> None:
    live = emerg.ready()
    live.warm(FIRST)
    SqlDatabase("sqlite", emerg.url).execute(
        *(f"DELETE FROM {table} WHERE item_id = 'film 09'" for table in ("item_states", "item_events"))
    )
    with pytest.raises(DataError, match="item 'film 09' is not known"):
        live.score(QUERY)
    assert live.add(features(NEW)).new == ["film 09"]
    assert live.warm(FIRST).new == 6


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every database that a test opens is closed after it."""
    opened: list[ItemStates] = []
    init = ItemService.__init__

    def noting(self: ItemService, learner: ItemLearner, model: str, states: ItemStates) -> None:
        opened.append(states)
        init(self, learner, model, states)

    monkeypatch.setattr(ItemService, "__init__", noting)
    yield
    for states in opened:
        states.close()
