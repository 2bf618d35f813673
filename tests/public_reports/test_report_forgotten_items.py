"""A deleted item stays deleted, and starts cold when it is added again."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from films import FILMS, alter, events, features, requests, trained
from newcomer.errors import DataError, StoreError
from newcomer.items.methods.emerg import EmerG
from newcomer.items.serving.service import ItemService, fingerprint
from newcomer.store.sql import SqlItemStates
from shell import Shell


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A store of its own, copied from one that was trained once."""
    if "store" not in _TRAINED:
        _TRAINED["store"] = trained(tmp_path_factory.mktemp("films") / "store")
    (tmp_path / "store").mkdir()
    for file in _TRAINED["store"].iterdir():
        (tmp_path / "store" / file.name).write_bytes(file.read_bytes())
    return tmp_path / "store"


_TRAINED: dict[str, Path] = {}


@pytest.fixture
def opened(folder: Path) -> Iterator[list[ItemService]]:
    every = [ItemService.open(folder)]
    every[0].headers()
    yield every
    for live in every:
        live.close()


def again(opened: list[ItemService], folder: Path) -> ItemService:
    opened.append(ItemService.open(folder))
    return opened[-1]


def test_a_deleted_item_stays_deleted_though_the_model_had_learned_it(opened: list[ItemService], folder: Path) -> None:
    """collie #28, gorse #65: an item that was deleted came back when the model was opened again."""
    live, other = opened[0], again(opened, folder)
    other.score(requests("film 1"))
    live.warm(events("film 1", 5))
    assert live.forget(["film 1"]) == ["film 1"]
    for service in (live, other, again(opened, folder)):
        with pytest.raises(DataError, match="item 'film 1' is not known; add it first"):
            service.score(requests("film 1"))
        assert set(service.headers()) == set(FILMS) - {"film 1"}
        assert service.score(requests("film 2"))["score"].is_finite().all()


def test_an_item_whose_rows_were_deleted_by_hand_does_not_come_back_either(
    opened: list[ItemService], folder: Path
) -> None:
    """gorse #65: by SQL, as the documentation said."""
    alter(
        folder,
        *(f"DELETE FROM {table} WHERE item_id IN ('film 1', 'film 2')" for table in ("item_states", "item_events")),
    )
    assert set(again(opened, folder).headers()) == set(FILMS) - {"film 1", "film 2"}


def test_an_item_added_again_starts_cold_and_its_events_count_again(opened: list[ItemService], folder: Path) -> None:
    """The same title is on sale again, with other features: nothing of before is left."""
    live, other = opened[0], again(opened, folder)
    live.add(features("twin"))
    live.warm(events("film 1", 5))
    assert other.score(requests("film 1"))["events"][0] > 5
    live.forget(["film 1"])
    assert live.add(features("film 1")).new == ["film 1"]
    for service in (live, other, again(opened, folder)):
        answers = service.score(requests("film 1", "twin"))
        assert answers["phase"].to_list() == ["cold", "cold"]
        assert answers["score"][0] == pytest.approx(answers["score"][1], abs=1e-6)
    assert other.warm(events("film 1", 5)).new == 5
    live.warm(events("twin", 5))
    for service in (live, other, again(opened, folder)):
        one, twin = service.score(requests("film 1", "twin"))["score"]
        assert one == pytest.approx(twin, abs=1e-6)


def test_a_state_that_was_read_before_is_not_written_over_the_new_item(opened: list[ItemService]) -> None:
    """One process deletes an item and adds it again while another warms up what it was."""
    live = opened[0]
    live.add(features("film x"))
    before = live.states.get(live.model, ["film x"])["film x"]
    live.forget(["film x"])
    live.add(features("film x").with_columns(genre=pl.lit("love")))
    now = live.states.get(live.model, ["film x"])["film x"]
    assert now.version > before.version
    from newcomer.store.states import Change, ItemState

    stale = ItemState("film x", before.version + 1, "warm", 1, before.parameters, before.updated_at)
    assert live.states.commit(live.model, [Change(stale, [])]) == {"film x"}


def test_items_that_a_model_learns_later_are_taken_up_and_no_others(opened: list[ItemService], folder: Path) -> None:
    """A store that grew: the items of its new stage are there, what was deleted of an older one is not."""
    opened[0].forget(["film 1"])
    EmerG.load(folder).add(features("later")).save(folder)
    assert set(again(opened, folder).headers()) == {*FILMS, "later"} - {"film 1"}
    opened[-1].forget(["later"])
    assert set(again(opened, folder).headers()) == set(FILMS) - {"film 1"}


@pytest.mark.parametrize(
    "change",
    ["ALTER TABLE item_states DROP COLUMN events_checksum", "ALTER TABLE item_events RENAME COLUMN position TO place"],
)
def test_a_database_of_another_layout_is_refused(change: str, opened: list[ItemService], folder: Path) -> None:
    """One that an earlier or a later version has written: one sentence, and nothing is changed."""
    opened[0].warm(events("film 2", 3))
    alter(folder, change)
    with pytest.raises(
        StoreError, match=r"table 'item_\w+' has no column '\w+': it was written by another version"
    ) as caught:
        again(opened, folder)
    assert "\n" not in str(caught.value)


def test_the_command_forgets_items(folder: Path, shell: Shell) -> None:
    """gorse #65 on the command line."""
    requests("film 1").write_ndjson(shell.folder / "r.jsonl")
    assert shell.call("score", str(folder), "r.jsonl")[0] == 0
    code, out, err = shell.call("forget", str(folder), "--item", "film 1", "--item", "film 3")
    assert (code, err) == (0, "")
    assert "film 1, film 3: state and events are deleted" in out
    assert "item 'film 1' is not known; add it first" in shell.fails("score", str(folder), "r.jsonl")
    assert "item 'film 1' is not known; did you mean" in shell.fails("forget", str(folder), "--item", "film 1")
    both = shell.fails("forget", str(folder), "--item", "film 2", "--class", "film 2")
    assert "give only one of --class" in both
    assert "give --class NAME of a classifier, or --item ID" in shell.fails("forget", str(folder))


def test_forgetting_with_one_unknown_item_deletes_none(opened: list[ItemService]) -> None:
    """A typo in the second of two names."""
    with pytest.raises(DataError, match=r"item 'film 22' is not known; did you mean 'film 2'\?"):
        opened[0].forget(["film 1", "film 22"])
    assert "film 1" in opened[0].headers()


def test_the_states_of_another_model_are_left_alone(folder: Path, opened: list[ItemService]) -> None:
    """Two models in one database."""
    url = f"sqlite:///{folder / 'items.db'}"
    other = ItemService(EmerG.load(folder), "another", SqlItemStates(url))
    opened.append(other)
    assert len(other.headers()) == 8
    other.forget(["film 1"])
    assert "film 1" in opened[0].headers()
    assert fingerprint(folder) != "another"


REST = "timestamp, label, payload, checksum, payload_checksum FROM item_events"


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE item_events SET label = 1 - label WHERE event_id = 'e1001'",
        "DELETE FROM item_events WHERE event_id = 'e1001'",
        "DELETE FROM item_events WHERE position = (SELECT max(position) FROM item_events)",
        "UPDATE item_events SET event_id = 'other' WHERE event_id = 'e1000'",
        "UPDATE item_events SET timestamp = timestamp + 1 WHERE event_id = 'e1002'",
        "UPDATE item_events SET payload = replace(payload, '2', '3') WHERE event_id = 'e1003'",
        f"INSERT INTO item_events SELECT model, item_id, 'twice', position, {REST} WHERE event_id = 'e1001'",
        f"INSERT INTO item_events SELECT model, item_id, 'x', position + 9, {REST} WHERE event_id = 'e1004'",
    ],
)
def test_events_that_are_not_those_that_were_noted_are_found(
    damage: str, opened: list[ItemService], folder: Path
) -> None:
    """5 of 127 damages by hand passed: labels flipped, an event counted twice."""
    live = opened[0]
    live.add(features("new"))
    live.warm(events("new", 5))
    alter(folder, damage)
    before = live.states.get(live.model, ["new"])
    with pytest.raises(
        StoreError,
        match=r"item 'new': (one of its latest events|event '\w+') is not what was written \(checksum\); restore",
    ):
        live.warm(events("new", 2, start=7000))
    assert live.states.get(live.model, ["new"]) == before
    both = pl.concat([events("new", 2, start=7000), events("film 2", 2, start=7000)])
    done = live.warm(both, on_error="report")
    assert (done.new, done.items, len(done.left_out)) == (2, ["film 2"], 1)
    assert live.forget(["new"]) == ["new"]


def test_a_warm_up_made_elsewhere_is_refused_and_not_overlooked(
    opened: list[ItemService], folder: Path, tmp_path: Path
) -> None:
    """A model was warmed up in Python and saved; its service went on with the states of before, without a word."""
    assert len(opened[0].headers()) == len(FILMS)
    EmerG.load(folder).warm(events("film 2", 3)).save(folder)
    with pytest.raises(StoreError, match=r"has a warm-up .* that was made without this database"):
        again(opened, folder).headers()
    elsewhere = ItemService.open(folder, f"sqlite:///{tmp_path / 'new.db'}")
    assert elsewhere.headers()["film 2"].events > opened[0].states.headers(opened[0].model)["film 2"].events
    elsewhere.close()
