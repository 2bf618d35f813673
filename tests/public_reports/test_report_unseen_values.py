"""Unseen values are counted with every score, with a warning where nearly all are unseen."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from films import events, requests, trained
from newcomer.errors import DataWarning
from newcomer.items.encoding.unseen_values import Counted, Unseen
from newcomer.items.methods.emerg import EmerG
from newcomer.items.serving.service import ItemService
from shell import Shell


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("films") / "store")


@pytest.fixture
def live(store: Path, tmp_path: Path) -> Iterator[ItemService]:
    live = ItemService.open(store, f"sqlite:///{tmp_path / 'items.db'}")
    yield live
    live.close()


def test_every_answer_says_how_many_of_its_values_are_unseen(live: ItemService) -> None:
    """tfx #819: all users became unseen without a word, and all scores alike."""
    asked = requests(
        *["film 1"] * 4, viewer=["3", "nobody", "3", "nobody"], page=["home", "home", "elsewhere", "elsewhere"]
    )
    assert live.score(asked)["unseen"].to_list() == [0, 1, 1, 2]
    assert live.score(requests("film 1", page=None))["unseen"].to_list() == [0]


@pytest.mark.parametrize("viewers", [[float(n) for n in range(12)], [f" {n}" for n in range(12)], list(range(12))])
def test_ids_that_are_written_otherwise_are_seen(viewers: list[object], live: ItemService) -> None:
    """tfx #819: trained on whole numbers, served the floats of a pandas column with a gap."""
    assert live.score(requests(*["film 1"] * 12, viewer=viewers))["unseen"].sum() == 0


def test_a_column_that_is_nearly_all_unseen_is_warned_of(live: ItemService) -> None:
    """tfx #819: ids with a prefix that they did not have in training."""
    asked = requests(*["film 1"] * 12, viewer=[f"user-{n}" for n in range(12)])
    with pytest.warns(DataWarning, match="column 'viewer': nearly all values were not there when the model learned"):
        live.score(asked)
    with pytest.warns(DataWarning, match="column 'page': nearly all values"):
        done = live.warm(events("film 1", 12, page="Home page"))
    assert done.unseen.to_json()["page"] == {"values": 12, "unseen": 12}
    assert done.unseen.to_json()["viewer"] == {"values": 1, "unseen": 0}


def test_what_is_unseen_by_its_nature_is_not_warned_of(live: ItemService) -> None:
    """One new user who is shown a long list, some new users among others, one request: no warning drowns the others."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert live.score(requests(*["film 1"] * 500, viewer="somebody new"))["unseen"].sum() == 500
        live.score(requests(*["film 1"] * 20, viewer=[f"new {n}" if n % 2 else str(n) for n in range(20)]))
        live.score(requests("film 1", viewer="nobody", page="nowhere"))


def test_a_column_of_which_most_values_come_once_is_expected_to_be_unseen(tmp_path: Path) -> None:
    """A log whose users are sessions, each with one event or two."""
    from films import QUICK, SCHEMA, log

    EmerG(SCHEMA, **QUICK).learn(log().with_columns(viewer=pl.int_range(400))).save(tmp_path / "store")
    live = ItemService.open(tmp_path / "store")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        live.score(requests(*["film 1"] * 30, viewer=[f"session {n}" for n in range(30)]))
    live.close()


def test_counts_add_up_by_column() -> None:
    """Parts of a long table."""
    both = Unseen({"a": Counted(3, 1)}) + Unseen({"a": Counted(2, 0), "b": Counted()})
    assert both.to_json() == {"a": {"values": 5, "unseen": 1}}
    assert str(both) == "a 1 of 5"


def test_summaries_of_commands_say_it(store: Path, shell: Shell) -> None:
    """tfx #819 on the command line."""
    states = ["--states", f"sqlite:///{shell.folder / 'items.db'}"]
    pl.DataFrame({"film": ["x", "y"], "genre": ["opera", "war"], "minutes": [90.0, 91.0]}).write_csv(
        shell.folder / "new.csv"
    )
    code, out, err = shell.call("add", str(store), "new.csv", *states)
    assert (code, err) == (0, "")
    assert "2 items added; never seen before: genre 1 of 2" in out
    events("x", 12, page="Home").write_csv(shell.folder / "e.csv")
    code, out, err = shell.call("warm", str(store), "e.csv", *states)
    assert code == 0
    assert "never seen before: page 12 of 12" in out
    assert err.count("\n") == 1
    assert "column 'page': nearly all values were not there when the model learned" in err
    requests(*["x"] * 12, viewer=[f"u{n}" for n in range(12)]).write_ndjson(shell.folder / "r.jsonl")
    code, out, err = shell.call("score", str(store), "r.jsonl", "--out", "a.csv", *states)
    assert (code, err.count("\n")) == (0, 1)
    assert "12 values of requests were never seen before" in out
    assert "column 'viewer': nearly all values" in err
    result = json.loads(shell.call("add", str(store), "new.csv", "--json", *states)[1])
    assert result == {"new": [], "known": ["x", "y"], "left_out": [], "unseen": {}}
